"""HDF5 files from elsewhere: what lies in the file itself, and not where a link of it leads."""

from __future__ import annotations

from pathlib import Path

import h5py


def open_hdf5(path: Path, mode: str = "r") -> h5py.File:
    """Open an HDF5 file, without HDF5's own lock, which many a file system of several machines has not.

    Ours appear whole or not at all, and who writes a folder holds the lock of it.
    """
    return h5py.File(path, mode, locking=False)


def is_inner(file: h5py.Group, name: str) -> bool:
    """Say whether something of that name lies in a file itself, where no link leads to it."""
    parts, links = name.encode("utf-8", "surrogateescape").split(b"/"), file.id.links
    # Not ``name in file``, which opens the file that a link leads to.
    try:
        return all(
            links.exists(place) and links.get_info(place).type == h5py.h5l.TYPE_HARD
            for place in (b"/".join(parts[:n]) for n in range(1, len(parts) + 1))
        )
    except RuntimeError:  # the way leads through a dataset, which holds nothing
        return False


def inner_dataset(file: h5py.Group, name: str) -> h5py.Dataset:
    """Return a dataset whose numbers lie in its own file, whoever wrote that.

    Raises
    ------
    KeyError
        If there is none, or a link leads there: it may lead to another file.
    ValueError
        If its numbers lie in other files.
    """
    if not is_inner(file, name):
        raise KeyError(f"there is no column {name}")
    column = file[name]
    if not isinstance(column, h5py.Dataset) or column.external or column.is_virtual:
        raise ValueError(f"{name} is not a plain column")
    return column
