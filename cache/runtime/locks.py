"""One writer at a time: a lock in the folder that is written. Readers take none, and wait for none.

The lock is the kernel's and ends with the process that holds it, however that ends: one that a killed process
left behind is taken over by the next. It belongs to one open file, which the workers that a writer forks
close.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from cache.runtime.errors import UserError, printable, unwritable

NAME = ".lock"
# File systems that know no locks: then nobody can be told of a second writer.
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
# A holder that is just leaving removes its file, and then the next try is at a new one.
_PATIENCE_S = 0.2
# The lock files of this process, and which file each is.
_held: dict[str, tuple[int, int] | None] = {}


def only_writer(folder: Path) -> AbstractContextManager[None]:
    """Be the only process that writes a folder, which is made if it is not there.

    Within one process a folder may be taken again: an inner writer belongs to the outer one. Where the file
    system knows no locks a line warns of that, and nothing is held.

    Raises
    ------
    UserError
        If another process writes it; the message says which, where and since when.
    """
    return _locked(folder / NAME, folder)


def only_writer_of_file(path: Path) -> AbstractContextManager[None]:
    """Be the only process that writes a file; see :func:`only_writer`."""
    return _locked(path.with_name(f".{path.name}.lock"), path)


def is_lock(path: Path) -> bool:
    """Say whether a file is a lock, which is nobody's work."""
    return path.name == NAME


def check_held(path: Path) -> None:
    """Make sure that a file to be written lies where its lock was taken.

    Without that a run whose folder was moved, or whose mount was lost, would make the folder again and go on
    beside what it has finished.

    Raises
    ------
    UserError
        If the lock is not there any more.
    """
    where = os.path.abspath(path)
    for lock, held in _held.items():
        if where.startswith(os.path.dirname(lock) + os.sep) and _identity(lock) != held:
            raise UserError(
                f"{os.path.dirname(lock)} is not the folder any more that this run began in (moved, removed, "
                "or its mount was lost)",
                fix="bring it back and run the same command again: what is finished is there.",
            )


@contextmanager
def _locked(path: Path, what: Path) -> Iterator[None]:
    name = os.path.abspath(path)
    if name in _held:
        yield
        return
    made = not path.parent.exists()
    # Its fallback of its own, a file that is the lock, would be left behind by a killed process.
    lock = FileLock(name, timeout=_PATIENCE_S, thread_local=False, fallback_to_soft=False, on_acquired=_sign)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"{what} is being written by {_holder(path)}",
            fix="wait until it has ended, or stop it; then run the same command again.",
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise _refused(path, what, error) from error
        problem = f"{what} is written without a lock, which its file system has not ({error.strerror})"
        sys.stderr.write(f"warning: {printable(problem)}: write it with one process at a time.\n")
    _held[name] = _identity(name)
    try:
        yield
    finally:
        if _held.pop(name) == _identity(name):
            with suppress(OSError):
                os.unlink(name)
        with suppress(OSError):
            if made:
                os.rmdir(path.parent)  # nothing was written after all
        lock.release()


def _refused(path: Path, what: Path, error: OSError) -> UserError:
    if error.errno != errno.EACCES or not os.path.lexists(path):
        return unwritable(what, error)
    # Not the folder is closed to us, but a file in it, which its owner's umask keeps from a group.
    return UserError(
        f"{what} has a lock file of another user's ({_holder(path)})",
        fix=f"wait until that has ended; if {path} is still there, remove it; then run the command again.",
    )


def _identity(file: str) -> tuple[int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _sign(file: int) -> None:
    """Write into the open lock file who holds it."""
    about = {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "command": shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(about).encode(), 0)


def _holder(path: Path) -> str:
    try:
        about = json.loads(path.read_bytes()[:65536])
        command = " ".join(str(about["command"]).split())
        return f"process {about['process']} on {about['host']} since {about['since']}: {command:.200}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # anybody may have written it
        return "another process"
