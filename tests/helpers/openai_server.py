"""A small server of OpenAI's chat protocol, as bad as its arguments say. Prints its port, then serves.

``GET /count`` returns how many chat requests came in and which prompts were answered.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOCK = threading.Lock()
REQUESTS: list[str] = []
ANSWERED: list[str] = []
ANSWERS = {
    "plain": "It is what {} is.",
    "newlines": '\n  "It is\n\nwhat\u2028{}\tis."\n',
    "thinking": "<think>\nHm, {}?\n</think>\n\nIt is what {} is.",
    "empty": " \n",
    "none": None,
    "sorry": "I\u2019m sorry, but I can\u2019t help with {}.",
    "same": "It is a fruit.",
    "cut": "It is what {} is, and",
    "filtered": "It is",
    "refused": None,
}
ENDINGS = {"cut": "length", "filtered": "content_filter"}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fail-first", type=int, default=0)
    parser.add_argument("--fail-status", type=int, default=429)
    parser.add_argument("--die-after", type=int, default=0)
    parser.add_argument("--answer", default="plain", choices=sorted(ANSWERS))
    parser.add_argument("--odd", default="empty", choices=sorted(ANSWERS))
    parser.add_argument("--odd-for", default="", help="give the odd answer to prompts with this in them")
    parser.add_argument("--key", default="")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--slow", type=float, default=0.0, help="seconds that a slow answer takes")
    parser.add_argument("--slow-for", default="", help="be slow with prompts with this in them")
    return parser.parse_args()


class Handler(BaseHTTPRequestHandler):
    asked: argparse.Namespace

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def reply(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status >= 400:
            self.send_header("retry-after-ms", "10")
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status: int, message: str) -> None:
        self.reply(status, {"error": {"message": message, "type": "error", "code": None}})

    def do_GET(self) -> None:
        if self.path == "/count":
            self.reply(200, {"requests": len(REQUESTS), "answered": ANSWERED})
        else:
            self.reply(200, "hello")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self.reply(200, "hello")
            return
        prompt = body["messages"][-1]["content"]
        with LOCK:
            REQUESTS.append(prompt)
            number = len(REQUESTS)
        if self.asked.die_after and number > self.asked.die_after:
            os._exit(1)
        if number <= self.asked.fail_first:
            self.refuse(self.asked.fail_status, "come back later")
        elif self.asked.key and self.headers["Authorization"] != f"Bearer {self.asked.key}":
            self.refuse(401, "Incorrect API key provided")
        elif body["model"] != self.asked.model:
            self.refuse(404, f"The model `{body['model']}` does not exist")
        else:
            self.answer(body["model"], prompt)

    def answer(self, model: str, prompt: str) -> None:
        if self.asked.slow_for in prompt:
            time.sleep(self.asked.slow)
        odd = self.asked.odd_for and self.asked.odd_for in prompt
        answer = self.asked.odd if odd else self.asked.answer
        text = ANSWERS[answer]
        message = {"role": "assistant", "content": text and text.replace("{}", prompt)}
        if answer == "refused":
            message["refusal"] = "I will not."
        ANSWERED.append(prompt)
        self.reply(
            200,
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": model,
                "choices": [{"index": 0, "finish_reason": ENDINGS.get(answer, "stop"), "message": message}],
            },
        )


def main() -> None:
    Handler.asked = options()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    os.write(1, f"{server.server_port}\n".encode())
    server.serve_forever()


if __name__ == "__main__":
    main()
