"""One writer at a time: a lock in the folder that is written. Readers take none, and wait for none.

The lock is the kernel's and ends with the process that holds it, however that ends: one that a killed process
left behind is taken over by the next. POSIX record locks, because those are not inherited by the worker
processes that a writer forks, which may outlive it by seconds.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cache.runtime.errors import UserError, unwritable

NAME = ".lock"
# File systems that know no locks: then there is no second writer to be told either.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
# The lock files that this process holds, and which file each is.
_held: dict[str, tuple[int, int]] = {}


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Be the only process that writes a folder, which is made if it is not there.

    Within one process a folder may be taken again: an inner writer belongs to the outer one.

    Raises
    ------
    UserError
        If another process writes it; the message says which, where and since when.
    """
    with _locked(folder / NAME, folder):
        yield


@contextmanager
def only_writer_of_file(path: Path) -> Iterator[None]:
    """Be the only process that writes a file; see :func:`only_writer`."""
    with _locked(path.with_name(f".{path.name}.lock"), path):
        yield


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
def _locked(lock: Path, what: Path) -> Iterator[None]:
    name = os.path.abspath(lock)
    if name in _held:
        yield
        return
    made = not lock.parent.exists()
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = _taken(name, what)
    except OSError as error:
        raise unwritable(what, error) from error
    _held[name] = _identity(file)  # type: ignore[assignment]
    try:
        yield
    finally:
        held = _held.pop(name)
        with suppress(OSError):
            if _identity(name) == held:
                os.unlink(name)
            if made:
                os.rmdir(lock.parent)  # nothing was written after all
        os.close(file)


def _taken(lock: str, what: Path) -> int:
    """Return the open lock file, which says who holds it."""
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                said = _said(file)
                os.close(file)
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    raise _busy(what, said) from error
                raise
        if _identity(lock) == _identity(file):
            break
        os.close(file)  # its holder removed it between our two calls
    os.ftruncate(file, 0)
    os.write(file, json.dumps(_about_us()).encode())
    return file


def _identity(file: int | str) -> tuple[int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _about_us() -> dict[str, str | int]:
    return {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "command": shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _said(file: int) -> str:
    try:
        found = json.loads(os.pread(file, 65536, 0))
        command = " ".join(str(found["command"]).split())
        return f"process {found['process']} on {found['host']} since {found['since']}: {command:.200}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"


def _busy(what: Path, holder: str) -> UserError:
    return UserError(
        f"{what} is being written by {holder}",
        fix="wait until it has ended, or stop it; then run the same command again.",
    )
