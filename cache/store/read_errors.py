"""What a damaged file of a cache raises: one line that names it, and what to do."""

from __future__ import annotations

import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache.runtime.errors import UserError, reason_of
from cache.runtime.system_errors import read_error

REPAIR = (
    "copy the cache again if this is a copy that was cut short, else run 'distill cache repair'; "
    "'distill cache verify' says what else is damaged."
)
# What h5py, tarfile, zipfile, numpy and json raise on damaged bytes, and what our checks of them raise. Not
# TypeError and AttributeError, which are bugs of ours, nor MemoryError: the memory is full.
READ_ERRORS = (
    OSError,
    EOFError,
    KeyError,
    ValueError,
    RuntimeError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextmanager
def reading(path: Path, *, size: int | None = None, what: str = "the file") -> Iterator[None]:
    """Turn what reading a damaged file of a cache raises into a UserError.

    One that has not the ``size`` that was written, in bytes, is damaged.
    """
    try:
        if size is not None and (here := path.stat().st_size) != size:
            raise ValueError(f"it has {here:,} bytes, {size:,} were written")
        yield
    except READ_ERRORS as error:
        if refused := read_error(path, error):
            raise refused from error
        problem = f"{what} {path} is damaged ({reason_of(error)})"
        if isinstance(error, FileNotFoundError):
            problem = f"{what} {path} is missing"
        raise UserError(problem, fix=REPAIR) from error
