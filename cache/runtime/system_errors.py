"""What the system refuses (room, handles, rights, a mount) as one line, however a library said it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

from cache.runtime.errors import Refused, UserError, unwritable
from cache.runtime.memory_errors import MORE, memory_error

KEEP = "set HOME (or HF_HOME) to a folder that you can write to and that has room, to keep what is fetched."
AGAIN = "then run the same command again: what is finished is kept."
FIXES = {
    errno.ENOSPC: f"make room, {AGAIN}",
    errno.EDQUOT: f"make room within your quota, {AGAIN}",
    errno.EFBIG: f"raise the limit of file sizes (ulimit -f), {AGAIN}",
    errno.EMFILE: f"raise the limit of open files (ulimit -n), or give fewer --workers, {AGAIN}",
    errno.ENFILE: f"close other programs, {AGAIN}",
    errno.EROFS: "choose a folder that you can write to.",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "choose a folder that you may read and write."),
    errno.EIO: f"look at the disk or the network, {AGAIN}",
    **dict.fromkeys((errno.ESTALE, errno.ENOTCONN, errno.ENODEV), f"bring the mount back, {AGAIN}"),
    errno.EAGAIN: f"raise the limit of processes (ulimit -u; of a container --pids-limit), {AGAIN}",
    errno.ENOMEM: f"{MORE}, {AGAIN}",
}
SYSTEMS = FIXES.keys() - {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
# How libraries below say it whose exceptions carry no number.
TEXTS = {
    r"Too many open files|received 0 items of ancdata": errno.EMFILE,
    r"PytorchStreamWriter failed|unexpected pos \d+ vs": errno.ENOSPC,
    r"can't start new thread": errno.EAGAIN,
}


def system_errors(error: BaseException | None) -> Iterator[OSError]:
    """Yield the system's errors behind an exception, from the outermost."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        number = _number(error)
        if number is not None:
            file = getattr(error, "filename", None)
            yield OSError(number, os.strerror(number), *([file] if file else []))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def as_user_error(error: BaseException) -> UserError | None:
    """Return the one line for a system's error behind an exception; None where there is none."""
    if full := memory_error(error):
        return full
    if isinstance(error, RuntimeError) and "initialize cpuinfo" in str(error):
        return UserError("torch finds no processor: /proc/cpuinfo is hidden", fix="mount /proc and /sys.")
    for refusal in system_errors(error):
        if full := memory_error(refusal):
            return full
        if refusal.errno in FIXES:
            where = f"{refusal.filename}: " if refusal.filename else ""
            return UserError(f"{where}the system says: {refusal.strerror}", fix=FIXES[refusal.errno])
    return None


def is_the_systems(error: OSError) -> bool:
    """Say whether a file could not be read for a reason that is not the file's own: others fail as well."""
    return error.errno in SYSTEMS


def read_error(what: object, error: BaseException) -> UserError | None:
    """Return the error of a file that the system could not read; None where the file itself is the reason."""
    refusal = next((e for e in system_errors(error) if is_the_systems(e)), None)
    if refusal is None:
        return memory_error(error)
    return Refused(f"{what} could not be read ({refusal.strerror})", fix=FIXES[refusal.errno or 0])


def kept_fix(error: BaseException) -> str:
    """Return where to keep what is fetched, if an error says that it cannot be written, else ''."""
    refused = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
    return KEEP if any(refusal.errno in refused for refusal in system_errors(error)) else ""


def write_error(path: object, error: BaseException) -> UserError | None:
    """Return the error of a file that could not be written; None where that is not the reason."""
    refusal = next(system_errors(error), None)
    return unwritable(path, refusal, fix=FIXES.get(refusal.errno or 0)) if refusal is not None else None


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno:
        return error.errno
    text = str(error)
    if told := re.search(r"\b(?:errno = |os error )(\d+)", text):  # the ways of HDF5 and of Rust
        return int(told[1])
    if not isinstance(error, (OSError, RuntimeError)):
        return None
    return next((number for pattern, number in TEXTS.items() if re.search(pattern, text)), None)
