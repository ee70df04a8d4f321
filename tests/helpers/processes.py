"""``distill`` in processes of its own: without their imports, by torchrun, with one lost, or stopped in an evaluation."""

from __future__ import annotations

import atexit
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT

HELPERS = Path(__file__).parent
PYTHON = sys.executable
CLIENT = [PYTHON, "-IS", str(HELPERS / "fork_client.py")]
SERVER = "FORK_SERVER"


@cache
def server() -> str:
    """The socket of the process that is forked for those below: this run's, or one of our own.

    Of tests side by side the process that starts them all starts it, for they inherit its environment; it imports
    nothing before it is asked for a process.
    """
    if SERVER in os.environ:
        return os.environ[SERVER]
    folder = tempfile.TemporaryDirectory(prefix="fork-")  # a socket's path has to be short
    path = Path(folder.name) / "socket"
    program = Path(folder.name) / "python"
    program.write_text(f'#!/bin/sh\nexec {shlex.join([*CLIENT, str(path)])} "$@"\n')
    program.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(64)
        forked = subprocess.Popen(
            [PYTHON, str(HELPERS / "fork_server.py"), str(listener.fileno())],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
        )

    def end() -> None:
        forked.communicate()
        folder.cleanup()

    atexit.register(end)
    return str(path)


def python() -> list[str]:
    """What stands for ``sys.executable`` where a real process is the point, and its start is not.

    The process is a fork of one that has imported torch and its like already; see ``fork_server.py``.
    """
    return [*CLIENT, server()]


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes that commands start with ``sys.executable`` be forks too."""
    program = str(Path(server()).with_name("python"))
    monkeypatch.setattr(sys, "executable", program)
    monkeypatch.setenv("FORK_EXECUTABLE", program)


def distill(*words: object) -> list[str]:
    """The command that runs ``distill`` in a process of its own, which imports nothing that is imported already."""
    return [*python(), "-m", "cli", *map(str, words)]


def launch(count: int) -> list[str]:
    """The beginning of a command of torchrun with so many processes, which only has to be followed by Python's words."""
    launcher = [*python(), "-c", "from torch.distributed.run import main; main()"]
    return [*launcher, "--standalone", "--nproc-per-node", str(count), "--no-python", *python()]


def torchrun(*words: object) -> list[str]:
    """The command that runs ``distill`` in two processes."""
    return [*launch(2), "-m", "cli", *map(str, words)]


def loses_second(event: str, count: int, words: list[str]) -> list[str]:
    """The command that runs ``distill`` in two processes, of which one is lost; see ``lost_process.py``."""
    return [*launch(2), str(HELPERS / "lost_process.py"), event, str(count), *map(str, words)]


def stopped(start, out, judged, words):
    """Run words until the signal; return the child's status and what it said."""
    log = out.with_name(f"{out.name}.log")
    command = [
        *start,
        str(HELPERS / "stop_in_evaluation.py"),
        str(out),
        str(judged),
        str(log),
        *words,
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, start_new_session=True
    )
    assert log.exists(), done.stderr
    assert log.read_text() == "", done.stderr  # nothing was evaluated after it
    return done.returncode, done.stderr
