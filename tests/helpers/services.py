"""A running service for tests: as a command, or in a thread of this process with limits of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import ROOT
from helpers.processes import distill

from distill.deploy.limits import Limits
from distill.deploy.model import Model
from distill.deploy.serve import listener, server_of

Ask = Callable[..., tuple[int, Any]]


# urllib keeps the proxies of its first request: of a test where nobody is to be reached.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def asker(address: str) -> Ask:
    """Return a function that asks a service, and returns the status and the answer."""

    def ask(
        path: str, body: bytes | None = None, method: str | None = None, **headers: str
    ) -> tuple[int, Any]:
        request = urllib.request.Request(address + path, data=body, headers=headers, method=method)
        try:
            with DIRECT.open(request, timeout=600) as answer:
                ask.headers = answer.headers  # type: ignore[attr-defined]
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            ask.headers = error.headers  # type: ignore[attr-defined]
            return error.code, json.loads(error.read() or b"null")

    ask.address = address  # type: ignore[attr-defined]
    return ask


@contextmanager
def started(model: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], Ask]]:
    """Yield the process of the command, listening, and what asks it."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        distill("serve", model, "--port", 0, *options),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process, asker(process.stdout.readline().split()[-1])
    finally:
        process.kill()
        process.communicate()


@contextmanager
def serving(model: Path, *options: str) -> Iterator[Ask]:
    """Yield what asks a service, which must end well and have said nothing but that it began and ended."""
    with started(model, *options) as (process, ask):
        yield ask
        process.send_signal(signal.SIGTERM)
        printed = process.communicate(timeout=600)
    assert (process.returncode, *printed) == (0, "stopped\n", "")


@contextmanager
def running(model: Model, **limits: Any) -> Iterator[Ask]:
    """Yield what asks a service in a thread."""
    listening, ready = listener("127.0.0.1", 0), threading.Event()
    server = server_of(model, Limits(**limits), ready=ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    port = listening.getsockname()[1]
    thread.start()
    try:
        assert ready.wait(60)
        yield asker(f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        thread.join(60)
        listening.close()
    assert not thread.is_alive()


def connected(ask: Ask, sent: bytes) -> socket.socket:
    """Return a connection to a service, over which something was sent."""
    port = int(ask.address.rsplit(":", 1)[1])  # type: ignore[attr-defined]
    connection = socket.create_connection(("127.0.0.1", port), timeout=600)
    connection.sendall(sent)
    return connection


def post(head: bytes = b"", *, path: bytes = b"/predict") -> bytes:
    """Return the header of a POST."""
    return b"POST %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (path, head)


def rest(connection: socket.socket) -> bytes:
    """Return what comes over a connection until the service closes it, and close it here."""
    received = b""
    with connection, contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            received += part
    return received


def answered(connection: socket.socket) -> tuple[int, str]:
    """Return the status and header of the next answer, and leave the connection open."""
    received = b""
    while b"\r\n\r\n" not in received and (part := connection.recv(65536)):
        received += part
    head = received.partition(b"\r\n\r\n")[0].decode().lower()
    return int(head.split()[1]), head


def until(condition: Callable[[], bool]) -> None:
    """Wait for what must come."""
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")
