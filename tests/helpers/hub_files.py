"""Serves the files of a folder as the Hugging Face hub does, ORG/REPO/resolve/main/NAME, and plainly."""

from __future__ import annotations

import http.server
from hashlib import sha256
from pathlib import Path


def hub_of(folder: Path) -> type[http.server.BaseHTTPRequestHandler]:
    """Return what answers for the files of ``folder``/ORG/REPO; ``cut``.NAME ends after half of NAME."""

    class Hub(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            """Say nothing."""

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.replace("/resolve/main/", "/").partition("?")[0]
            file = folder / path.lstrip("/").replace("cut.", "")
            if path.startswith("/api/models/"):
                self.send(200, b'{"id": "x", "sha": "%s", "siblings": []}' % (b"0" * 40), {}, body=body)
            elif file.is_file():
                content = file.read_bytes()
                head = {"ETag": f'"{sha256(content).hexdigest()}"', "X-Repo-Commit": "0" * 40}
                self.send(200, content, head, body=body, cut="cut." in path)
            else:
                self.send(404, b"", {"X-Error-Code": "EntryNotFound"}, body=body)

        def send(
            self, status: int, content: bytes, head: dict[str, str], *, body: bool, cut: bool = False
        ) -> None:
            self.send_response(status)
            for name, value in {**head, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content[: len(content) // 2] if cut else content)
                self.close_connection = cut

    return Hub
