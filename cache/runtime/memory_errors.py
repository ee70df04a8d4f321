"""Memory that is full, the computer's or a GPU's, and workers that end for want of it: one line each.

What can be lowered is the command's to say: the fixes here name no option, and the command line
puts its own in their place.
"""

from __future__ import annotations

import errno
import os
import re

from cache.runtime.amounts import BYTES, in_bytes
from cache.runtime.errors import Refused, UserError

MORE = "give it more memory (of a container --memory)"
FULL = (
    r"DefaultCPUAllocator: (?:can't allocate|not enough) memory|std::bad_alloc|bad allocation"
    r"|failed to map segment|[Cc]annot allocate memory"
    r"|(?:CUDA|MPS|HIP|backend)(?: error:)? out of memory|_ALLOC_FAILED|Failed to allocate memory"
)
OF_DEVICE = r"CUDA|CUDNN|CUBLAS|MPS|HIP"
ASKED = r"[Tt]ried to allocate ([\d.]+ \w+)|Unable to allocate ([\d.]+ \w+)"
ENDED = r"DataLoader worker .*(?:exited unexpectedly(?: with exit code (\d+))?|is killed by signal: ([^.]*))"
SHARED = r"unable to allocate shared memory|shared memory \(shm\)|Bus error"
SHM = "/dev/shm is full (of a container --shm-size)"


class OutOfMemory(Refused):
    """The computer's memory is full."""


class OutOfDeviceMemory(OutOfMemory):
    """A GPU's memory is full."""


class WorkerEnded(OutOfMemory):
    """A process that decodes images ended before its time."""


def memory_error(error: BaseException) -> UserError | None:
    """Return the one line for memory that is full, or a worker that ended; None for another error."""
    text = str(error)
    if isinstance(error, RuntimeError) and (ended := re.match(ENDED, text)):
        if error.__cause__ is not None:  # which says more, where its end was noticed twice
            ended = re.match(ENDED, str(error.__cause__)) or ended
        return _worker_ended(int(ended[1] or 0), (ended[2] or "").strip())
    if isinstance(error, RuntimeError) and re.search(SHARED, text):
        return WorkerEnded(f"there is too little shared memory: {SHM}", fix=f"{MORE}.")
    if isinstance(error, (OSError, LookupError, ValueError)):
        full = isinstance(error, OSError) and error.errno == errno.ENOMEM
    else:
        full = isinstance(error, MemoryError) or re.search(FULL, text) is not None
    if not full:
        return None
    asked = re.search(ASKED, text)
    more = f" ({_readable(asked[1] or asked[2])} more were asked for)" if asked else ""
    if re.search(OF_DEVICE, text):
        return OutOfDeviceMemory(f"the GPU's memory is full{more}", fix=f"{MORE}.")
    return OutOfMemory(f"the computer's memory is full{more}", fix=f"{MORE}.")


def _worker_ended(status: int, by: str) -> UserError:
    """Return the error of a worker that left with a status, an error's number, or by a signal."""
    what = "a process that decodes images"
    if status in (errno.EMFILE, errno.ENFILE):
        return UserError(
            f"{what} has too few file handles ({os.strerror(status)})", fix="raise their limit (ulimit -n)."
        )
    if by == "Killed":
        return WorkerEnded(f"{what} was killed, most likely because the memory was full", fix=f"{MORE}.")
    if by == "Bus error":
        why = f"ended by a bus error: {SHM}, or a file was cut while it was read"
        return WorkerEnded(f"{what} {why}", fix=f"{MORE}.")
    why = by or (os.strerror(status) if status > 1 else "it may have had too little memory")
    return WorkerEnded(f"{what} ended before its time ({why})", fix=f"{MORE}.")


def _readable(amount: str) -> str:
    """Return an amount of memory; bytes in the unit that fits them."""
    number, unit = amount.split()
    return in_bytes(float(number)) if unit == BYTES else amount
