"""Commands in processes of their own: forks of this one, which has everything imported.

So it is the same code in a real process that can be killed, without seconds of imports before each.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from errno import ENOLCK
from pathlib import Path

import cli

BUG = 99
# The number of the system call flock.
FLOCK = {"x86_64": 73, "aarch64": 32}
# Of prctl and seccomp.
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER, _ALLOW, _ERROR = 38, 22, 2, 0x7FFF0000, 0x00050000


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended: its status (negative: by that signal), what it printed, the seconds it took."""

    status: int
    output: str
    seconds: float

    @property
    def one_line(self) -> bool:
        """Whether an error is one line, as a user is promised."""
        errors = [line for line in self.output.splitlines() if "Error: " in line[:20]]
        # A sweep goes on past a failed run, and names each in a line.
        failed = any(line.startswith("failed: ") for line in self.output.splitlines())
        return "Traceback" not in self.output and self.status != BUG and (len(errors) == 1 or failed)


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What is around a command: limits of resources, more of its environment, what it does first."""

    limits: Mapping[int, int] | None = None
    environment: Mapping[str, str] | None = None
    first: Callable[[], None] | None = None


class Running:
    """A command in a process of its own."""

    def __init__(self, words: Sequence[object], log: Path, surroundings: Surroundings | None = None) -> None:
        """Start ``distill WORDS``."""
        self._log, self._began = log, time.perf_counter()
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()  # it may be killed before it can
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become([str(word) for word in words], log, surroundings or Surroundings())

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    @staticmethod
    def kill(pid: int) -> None:
        """Send SIGKILL to a process that may just have ended."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def is_running(self) -> bool:
        """Say whether it has not ended."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait(self) -> Ended:
        """Return how it ended."""
        _, status = os.waitpid(self.pid, 0)
        output, seconds = self._log.read_text(errors="replace"), time.perf_counter() - self._began
        return Ended(status=os.waitstatus_to_exitcode(status), output=output, seconds=seconds)


def _become(words: list[str], log: Path, surroundings: Surroundings) -> None:
    """Be the command, in a child; never returns."""
    status = BUG
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for what, most in (surroundings.limits or {}).items():
            resource.setrlimit(what, (most, most))
        os.environ.update(surroundings.environment or {})
        if surroundings.first is not None:
            surroundings.first()
        sys.argv = ["distill", *words]
        cli.main(words, prog_name="distill")
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def ranks(words: Sequence[object], log: Path, count: int) -> list[Running]:
    """Start a command in so many processes, as torchrun does; the log of rank R is ``LOG.R``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        Running(
            words,
            log.with_name(f"{log.name}.{rank}"),
            Surroundings(
                environment={k: str(v) for k, v in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()}
            ),
        )
        for rank in range(count)
    ]


def without_locks() -> None:
    """Let every ``flock`` of this process fail, as on a file system that has none: in HDF5's code too."""
    number = FLOCK[platform.machine()]
    # A filter of four instructions: load the call's number; if it is flock, give ENOLCK; else allow it.
    code = ((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, _ERROR | ENOLCK), (0x06, 0, 0, _ALLOW))
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(instructions))
    system = ctypes.CDLL(None, use_errno=True)
    held = ctypes.create_string_buffer(program)
    if system.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or system.prctl(_SECCOMP, _FILTER, held, 0, 0):
        raise OSError(ctypes.get_errno(), "no filter of system calls")
