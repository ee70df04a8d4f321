"""Embeddings made elsewhere: .npy, .pt and .npz files, and the row order of the original research code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import UserError, nearest_names, reason_of
from cache.runtime.system_errors import read_error
from cache.sources.class_texts import read_lines
from cache.sources.samples import DataFolder
from cache.sources.splits import FOLDERS


class Rows(Protocol):
    """An array [N, D], or what is read as one: arrays in several files are never all in memory."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (N, D)."""

    @property
    def ndim(self) -> int:
        """Return 2."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of a number."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> NDArray[Any]: ...


class JoinedRows:
    """Arrays [n, D] of one type, read as one after the other: by number, slice, or an array of numbers."""

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        self._arrays = arrays
        self._ends = np.cumsum([len(array) for array in arrays])
        self.shape = (int(self._ends[-1]), *arrays[0].shape[1:])
        self.ndim = arrays[0].ndim
        self.dtype = arrays[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any, /) -> NDArray[Any]:
        """Return some rows, in memory."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        at = np.asarray(rows, dtype=np.int64)
        number = np.searchsorted(self._ends, at, side="right")
        if not at.ndim:
            return np.array(self._arrays[int(number)][int(at - self._start(number))])
        read = np.empty((len(at), *self.shape[1:]), dtype=self.dtype)
        for one in np.unique(number).tolist():
            own = number == one
            read[own] = self._arrays[one][at[own] - self._start(one)]
        return read

    def _start(self, number: Any) -> int:
        return int(self._ends[number]) - len(self._arrays[int(number)])


def load_array(source: str) -> NDArray[Any]:
    """Return the array in a ``.npy`` or ``.pt`` file, or one of a ``.npz`` file given as ``FILE.npz:NAME``.

    Nothing in the file is executed: pickled objects are refused.

    Raises
    ------
    UserError
        If the file is missing, damaged, or holds no single array.
    """
    path, name = _file_and_name(source)
    if path.is_dir():
        raise UserError(
            f"{path} is a folder, and no output of clip-retrieval: it has no img_emb",
            fix="give a file of rows: .npy, .npz or .pt.",
        )
    if not path.is_file():
        raise UserError(f"{path} does not exist", fix="check the path.")
    try:
        if path.suffix == ".npz":
            return _from_npz(path, name)
        return _from_npy(path) if path.suffix == ".npy" else _from_torch(path)
    except UserError:
        raise
    # numpy, zipfile and torch's unpickler raise nearly anything on a file of another kind.
    except Exception as error:
        if refused := read_error(path, error):
            raise refused from error
        is_ours = path.suffix in (".npy", ".npz", ".pt", ".pth")
        reason = reason_of(error) if is_ours else "it is no .npy, .npz or .pt file"
        raise UserError(
            f"{path} holds no plain array ({reason})", fix="save one tensor or array, without pickles."
        ) from error


def _file_and_name(source: str) -> tuple[Path, str]:
    file, separator, name = source.rpartition(":")
    return (Path(file), name) if separator and file.endswith(".npz") else (Path(source), "")


def _from_npy(path: Path) -> NDArray[Any]:
    """Return an array that is mapped, not read: nothing of it is in memory before it is asked for."""
    mapped: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    return mapped


def _from_npz(path: Path, name: str) -> NDArray[Any]:
    with ZipFile(path) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        if name not in members:
            raise UserError(
                f"{path} has no array {name!r} (it has {', '.join(members)})",
                fix=f"{nearest_names(name, members)}write {path.name}:NAME.",
            )
        with archive.open(members[name]) as stream:
            return _read(stream, members[name].file_size)


def _read(stream: IO[bytes], size: int) -> NDArray[Any]:
    """Read an array from ``size`` bytes in numpy's format; ValueError where it claims more.

    numpy would take the memory first.
    """
    form = np.lib.format
    is_first = form.read_magic(stream) == (1, 0)
    shape, _, dtype = (form.read_array_header_1_0 if is_first else form.read_array_header_2_0)(stream)
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > size and not dtype.hasobject:
        raise ValueError(f"it claims {claimed:,} bytes of numbers, and has {size:,}")
    stream.seek(0)
    return form.read_array(stream, allow_pickle=False)


def _from_torch(path: Path) -> NDArray[Any]:
    import torch

    value = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(value, torch.Tensor):
        raise UserError(
            f"{path} holds a {type(value).__name__}, expected one tensor", fix="save the tensor alone."
        )
    return value.detach().float().numpy() if value.is_floating_point() else value.numpy()


def load_names(source: str) -> list[str]:
    """Return a list of names: a text file's lines, or an array of texts (``.npy``, ``FILE.npz:NAME``)."""
    path, _ = _file_and_name(source)
    if path.suffix in (".npy", ".npz"):
        return [str(name) for name in load_array(source)]
    return [line.strip() for line in read_lines(path) if line.strip()]


def keys_in_original_order(folder: DataFolder, rows: int, *, source: str) -> list[str]:
    """Return ``SPLIT/CLASS/FILE`` of each of ``rows`` rows in the original code's order.

    That is: all ``*.JPEG`` paths sorted, then all ``*.jpg`` paths sorted; of the training folder, or
    of all folders, whichever has as many images.

    Raises
    ------
    UserError
        If neither has ``rows`` images.
    """
    counts = {}
    for names in (["train"], list(folder.splits)):
        images = [
            (f"{FOLDERS[name]}/{image.key}", f"{name}/{image.key}")
            for name in names
            for image in folder.split(name).all()
        ]
        ordered = [
            key for ending in (".JPEG", ".jpg") for path, key in sorted(images) if path.endswith(ending)
        ]
        if len(ordered) == rows:
            return ordered
        counts[" + ".join(names)] = len(ordered)
    raise UserError(
        f"{source} has {rows} rows, but {folder.path} has "
        + " or ".join(f"{count} .JPEG and .jpg images in {names}" for names, count in counts.items()),
        fix="give the images that the rows were made from, or a list of keys with --keys.",
    )
