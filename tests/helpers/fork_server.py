"""A process that has imported what commands need, and is forked for each: see ``fork_client.py``.

    python fork_server.py LISTENER

LISTENER is the number of an open socket. It imports when first asked, and ends when its standard input does. It has one thread and has computed nothing: a fork of it is a fresh process.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import marshal
import os
import resource
import runpy
import select
import signal
import socket
import struct
import sys
import threading
from typing import Any, NoReturn

PARENT = "DISTILL_PARENT"
LIBRARIES = (
    "cache.runtime.torchvision_compat",
    "h5py",
    "faiss",
    "fastapi",
    "matplotlib.figure",
    "open_clip",
    "tensorboard.summary.writer.event_file_writer",
    "timm",
    "torch.distributed.run",
    "torch.utils.tensorboard",
    "uvicorn",
    "webdataset",
)


class Server:
    """Forks a child for every connection to a socket, until standard input ends."""

    def __init__(self, listener: int) -> None:
        self._listener = socket.socket(fileno=listener)
        self._children: dict[int, socket.socket] = {}
        self._ended, self._wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def next_child(self) -> dict[str, Any] | None:
        """Return what is asked of this process in a child that was forked for it; None in the server, at the end."""
        signal.set_wakeup_fd(self._wakes)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            waited = [0, self._ended, self._listener, *self._children.values()]
            ready = select.select(waited, [], [])[0]
            if self._ended in ready:
                os.read(self._ended, 4096)
                self._reap()
            for pid, client in list(self._children.items()):
                if client in ready:  # it sends nothing more: it is gone
                    client.close()
                    del self._children[pid]
                    os.kill(pid, signal.SIGKILL)
            if self._listener in ready and (request := self._forked()):
                return request
            if 0 in ready:
                return None

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                client = self._children.pop(ended[0], None)
                if client is not None:
                    with contextlib.suppress(BrokenPipeError), client:
                        client.sendall(b"%d\n" % ended[1])

    def _forked(self) -> dict[str, Any] | None:
        client, _ = self._listener.accept()
        size, streams, *_ = socket.recv_fds(client, 8, 3)
        data = b""
        while len(data) < struct.unpack("!Q", size)[0]:
            data += client.recv(1 << 20)
        pid = os.fork()
        if pid:
            for stream in streams:
                os.close(stream)
            self._children[pid] = client
            with contextlib.suppress(BrokenPipeError):  # it is gone already, which is seen next
                client.sendall(b"%d\n" % pid)
            return None
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for other in (self._listener, client, *self._children.values()):
            other.close()
        for end in (self._ended, self._wakes):
            os.close(end)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        request: dict[str, Any] = marshal.loads(data)
        return request


def become(request: dict[str, Any]) -> None:
    """Begin as the process that was asked for does."""
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.executable = os.environ.get("FORK_EXECUTABLE", sys.executable)
    if PARENT in os.environ:
        os.environ[PARENT] = str(os.getppid())  # the client ends with the one that was meant
    for number in request["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    for limit, values in request["limits"].items():
        resource.setrlimit(limit, values)
    for name, number in (("stdout", 1), ("stderr", 2)):
        lines = name == "stderr" or "PYTHONUNBUFFERED" in os.environ
        stream = open(number, "w", buffering=1 if lines else -1, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def run(first: str, *words: str, folder: str) -> None:
    """Do what Python does with these words."""
    safe = first == "-P"
    if safe:
        first, *words = words
    if first in ("-m", "-c"):
        what, *words = words
        if not safe:
            sys.path.insert(0, folder)
    sys.argv = [first, *words]
    if first == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    elif first == "-c":
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path.insert(0, os.path.dirname(first))
        runpy.run_path(first, run_name="__main__")


def end(error: BaseException | None) -> NoReturn:
    """End as Python does, but do not take every module apart, which takes a second."""
    status = 0
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            sys.stderr.write(f"{error.code}\n")
    elif error is not None:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status)


def main() -> None:
    """See the module."""
    if 0 in select.select([0, int(sys.argv[1])], [], [])[0]:
        return
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.collect()
    gc.freeze()
    os.fsync = os.fstat  # type: ignore[assignment]  # see conftest.py
    request = Server(int(sys.argv[1])).next_child()
    if request is None:
        return
    ended: BaseException | None = None
    try:
        become(request)
        run(*request["argv"], folder=request["cwd"])
    except BaseException as error:
        ended = error
    end(ended)


if __name__ == "__main__":
    main()
