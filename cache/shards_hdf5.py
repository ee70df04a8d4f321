"""Shards in HDF5: contiguous and uncompressed, so that rows can be memory-mapped; plain h5py reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.errors import UserError
from cache.rows import ShardRows

MORE = "more"


def write(path: Path, rows: ShardRows, images: Sequence[Path] | None = None) -> None:
    """Write one shard. ``images`` is the other format's business: this one keeps no pictures."""
    del images
    with h5py.File(path, "w") as file:
        file.attrs["split"] = rows.split
        write_strings(file, "key", rows.keys)
        write_strings(file, "file_sha256", rows.file_sha256)
        file["label"] = rows.labels
        file["file_bytes"] = rows.file_bytes
        file["file_mtime_ns"] = rows.file_mtime_ns
        file["image_embedding"] = rows.image_embedding
        if rows.captions is not None:
            write_strings(file, "caption", rows.captions)
            file["caption_embedding"] = rows.caption_embedding
        for name, column in rows.more.items():
            file[f"{MORE}/{name}"] = column


def read(path: Path) -> ShardRows:
    """Read one shard; its embeddings are mapped, not read.

    Raises
    ------
    UserError
        If the file is no HDF5 file or a column is missing or of another length than the keys.
    """
    try:
        with h5py.File(path, "r") as file:
            captioned = "caption" in file
            return ShardRows(
                split=str(file.attrs["split"]),
                keys=read_strings(file, "key"),
                labels=file["label"][:],
                image_embedding=mapped(path, file["image_embedding"]),
                file_sha256=read_strings(file, "file_sha256"),
                file_bytes=file["file_bytes"][:],
                file_mtime_ns=file["file_mtime_ns"][:],
                captions=read_strings(file, "caption") if captioned else None,
                caption_embedding=mapped(path, file["caption_embedding"]) if captioned else None,
                more={name: mapped(path, column) for name, column in file.get(MORE, {}).items()},
            )
    except (OSError, KeyError, ValueError, AttributeError) as error:
        raise UserError(
            f"the shard {path} is damaged ({error})",
            fix="run 'distill cache verify', then cache-features again.",
        ) from error


def mapped(path: Path, dataset: h5py.Dataset) -> NDArray[Any]:
    """Return a dataset's numbers as a read-only memory map (h5py handles do not survive a fork, maps do)."""
    offset = dataset.id.get_offset()
    if offset is None or dataset.size == 0:
        return np.asarray(dataset[...])
    return np.memmap(path, mode="r", dtype=dataset.dtype, shape=dataset.shape, offset=offset)


def write_strings(file: h5py.File, name: str, texts: Sequence[str]) -> None:
    """Write a column of texts."""
    # Of one fixed length, so that the column is contiguous and its checksum a matter of its bytes.
    raw = [text.encode("utf-8") for text in texts]
    length = max((len(text) for text in raw), default=1) or 1
    file[name] = np.array(raw, dtype=h5py.string_dtype("utf-8", length))


def read_strings(file: h5py.File, name: str) -> list[str]:
    """Return a column of texts."""
    return [text.decode("utf-8") for text in file[name][:]]
