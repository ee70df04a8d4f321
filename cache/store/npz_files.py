"""Arrays in npz files that anybody may have written: read without pickle, of the type and shape asked for."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import reason_of


def read_npz(path: Path, wanted: Callable[[str], bool] = bool) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file whose names are ``wanted``, by name.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If it is damaged.
    """
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in filter(wanted, file.files)}
    except (OSError, MemoryError):
        raise
    # Nothing of ours is called in there; of a damaged file zipfile and numpy raise whatever there is.
    except Exception as error:
        raise ValueError(reason_of(error)) from error


def names_in_npz(path: Path) -> list[str]:
    """Return the names of a file's arrays; OSError or BadZipFile where there is no such file."""
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def values_of(array: NDArray[Any], kinds: str, *, ndim: int = 1) -> Any:
    """Return an array as Python's own values; ValueError where it is of another type or shape.

    ``kinds`` are the letters of numpy's kinds of dtype that it may have.
    """
    if array.ndim != ndim or array.dtype.kind not in kinds:
        raise ValueError(f"an array is {array.dtype} of {array.ndim} dimensions")
    return array.tolist()
