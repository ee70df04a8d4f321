"""``distill serve``: the service listens, and ends when it is told. It and ``connections`` import uvicorn."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from cache.runtime.errors import UserError
from distill.deploy.app import create_app
from distill.deploy.beside_teacher import TeacherBeside
from distill.deploy.connections import connections_within
from distill.deploy.limits import Limits
from distill.deploy.model import Model

# What a process needs beside its connections: files of the model, libraries, the listener.
OTHER_FILES = 100


class Server(uvicorn.Server):
    """Says when it listens. A signal ends it once what is in work is done, a second one at once."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so: from here on a signal is one to this server."""
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal; uvicorn would raise it again at the end, and the command would fail by it."""
        if self.should_exit:
            os._exit(128 + sig)
        self.should_exit = True


def serve(
    model: Model,
    *,
    host: str,
    port: int,
    limits: Limits,
    ready: Callable[[str], None],
    teacher: TeacherBeside | None = None,
) -> None:
    """Serve until a signal comes; ``ready`` is told the address, ``teacher`` answers beside the model.

    UserError if the address cannot be listened on, or the model knows no names.
    """
    model.class_set()  # of embeddings alone there is nothing to serve
    _open_files(limits.connections + OTHER_FILES)
    with listener(host, port) as listening:
        bound = listening.getsockname()
        address = f"http://{f'[{bound[0]}]' if ':' in bound[0] else bound[0]}:{bound[1]}"
        server_of(model, limits, ready=lambda: ready(address), teacher=teacher).run(sockets=[listening])


def server_of(
    model: Model, limits: Limits, *, ready: Callable[[], None], teacher: TeacherBeside | None = None
) -> Server:
    """Return a server of a model that is not yet running."""
    config = uvicorn.Config(
        create_app(model, limits, teacher),
        http=connections_within(limits),
        ws="none",
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_keep_alive=limits.idle,
        timeout_graceful_shutdown=limits.grace,
    )
    return Server(config, ready)


def listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens; UserError where it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UserError(
            f"{host}:{port} cannot be listened on ({error.strerror or error})",
            fix="choose another --port (0: any that is free) or --host.",
        ) from error


def _open_files(wanted: int) -> None:
    """Let this process have so many files open, if the system allows."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
