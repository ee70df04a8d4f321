"""Real servers of files on this machine: of the web, with and without parts of files, of S3, and broken ones."""

from __future__ import annotations

import functools
import http.server
import re
import socket
import threading
import urllib.request
from contextlib import contextmanager


class _Files(http.server.SimpleHTTPRequestHandler):
    """Python's own, which sends whole files alone; it keeps what it was asked for."""

    asked: list[tuple[str, str, str]]
    breaks_at = ""

    def do_GET(self):
        if self.path == self.breaks_at:
            self.connection.close()
            return
        self.asked.append(("GET", self.path, self.headers.get("Range", "")))
        super().do_GET()

    def do_HEAD(self):
        self.asked.append(("HEAD", self.path, ""))
        super().do_HEAD()

    def log_message(self, *words):
        pass


class _FilesInParts(_Files):
    def do_GET(self):
        told = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = self.translate_path(self.path)
        if not told:
            return super().do_GET()
        self.asked.append(("GET", self.path, self.headers["Range"]))
        try:
            with open(path, "rb") as file:
                raw = file.read()
        except OSError:
            return self.send_error(404)
        first, last = int(told[1]), min(int(told[2]), len(raw) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(raw)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        self.wfile.write(raw[first : last + 1])


@contextmanager
def serving(handler):
    """Serve until the block ends; yields the address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def web(folder, *, parts=True, breaks_at=""):
    """Serve a folder; yields its address, and the list of what is asked for."""
    kind = _FilesInParts if parts else _Files
    asked = []
    handler = type("Handler", (kind,), {"asked": asked, "breaks_at": breaks_at})
    with serving(functools.partial(handler, directory=str(folder))) as address:
        yield address, asked


@contextmanager
def answering(status):
    """Answer everything with one status; yields the address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(status)

        do_HEAD = do_GET

        def log_message(self, *words):
            pass

    with serving(Handler) as address:
        yield address


@contextmanager
def silent():
    """A server that takes connections and never says a word; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def nobody():
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def s3(environ):
    """A server of S3 with the bucket ``photos``, as AWS's variables name it in ``environ``; yields a client."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environ.update(
        AWS_ENDPOINT_URL=f"http://{host}:{port}",
        AWS_ACCESS_KEY_ID="key",
        AWS_SECRET_ACCESS_KEY="secret",
        AWS_DEFAULT_REGION="us-east-1",
    )
    try:
        # All servers of one process hold the same.
        url = f"{environ['AWS_ENDPOINT_URL']}/moto-api/reset"
        # By an opener of its own: a proxy of another test is none of its.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        direct.open(urllib.request.Request(url, method="POST")).close()
        client = boto3.client(
            "s3",
            endpoint_url=environ["AWS_ENDPOINT_URL"],
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="photos")
        yield client
        client.close()
    finally:
        server.stop()
