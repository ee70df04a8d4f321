"""A small server of the Hugging Face hub's API: prints its port, then keeps what is committed in a folder.

``TOKEN`` may write, ``reader`` may not; any other is nobody's. It asks for every file as a part of the commit.
"""

from __future__ import annotations

import base64
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN, READER = "hf_writer", "hf_reader"
OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
MADE: dict[str, Any] = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def reply(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def do_GET(self) -> None:
        if self.path == "/api/whoami-v2":
            known = self.token in (TOKEN, READER)
            self.reply(200 if known else 401, {"name": "someone"} if known else {"error": "Invalid token"})
        else:
            self.reply(200, {"sha": "0" * 40, "siblings": [], "id": self.path})

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.token != TOKEN:
            self.reply(403, {"error": "You don't have the rights to create a model under this namespace"})
        elif self.path == "/api/repos/create":
            MADE.update(json.loads(sent))
            name = f"{MADE.get('organization')}/{MADE['name']}"
            self.reply(200, {"url": f"http://127.0.0.1:{self.server.server_address[1]}/{name}"})
        elif "/preupload/" in self.path:
            files = json.loads(sent)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
            self.reply(200, {"files": modes})
        elif "/commit/" in self.path:
            for line in map(json.loads, sent.decode().splitlines()):
                if line["key"] == "file":
                    path = OUT / line["value"]["path"]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(base64.b64decode(line["value"]["content"]))
            (OUT / ".made").write_text(json.dumps(MADE))
            name = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            address = f"http://127.0.0.1:{self.server.server_address[1]}/{name}/commit/{'1' * 40}"
            self.reply(200, {"commitUrl": address, "commitOid": "1" * 40, "pullRequestUrl": None})
        else:
            self.reply(200, {})


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()
