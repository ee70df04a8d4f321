"""Shards in HDF5: contiguous and uncompressed, so that rows can be memory-mapped; plain h5py reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cache.runtime.hdf5_safety import is_inner, open_hdf5
from cache.store.hdf5_columns import (
    mapped_column,
    read_column,
    read_strings,
    read_text,
    write_column,
    write_strings,
    write_text,
    wrong_rows_of,
)
from cache.store.read_errors import reading
from cache.store.shard_rows import ShardRows, WrongRows

ENDING, MORE = "h5", "more"


def write(path: Path, rows: ShardRows, images: Sequence[Path] | None = None) -> None:
    """Write one shard. ``images`` is the other format's business: this one keeps no pictures."""
    del images
    with open_hdf5(path, "w") as file:
        write_text(file, "split", rows.split)
        write_strings(file, "key", rows.keys)
        write_strings(file, "file_sha256", rows.file_sha256)
        write_column(file, "label", rows.labels)
        write_column(file, "file_bytes", rows.file_bytes)
        write_column(file, "file_mtime_ns", rows.file_mtime_ns)
        write_column(file, "image_embedding", rows.image_embedding)
        if rows.captions is not None and rows.caption_embedding is not None:
            write_strings(file, "caption", rows.captions)
            write_column(file, "caption_embedding", rows.caption_embedding)
        for name, column in rows.more.items():
            write_column(file, f"{MORE}/{name}", column)


def read(path: Path, *, sha256: str) -> ShardRows:
    """Read one shard; its embeddings are mapped, and checked when they are read.

    ``sha256``, the file's, is the other format's business: here every row has a checksum.

    Raises
    ------
    UserError
        If the file is no HDF5 file, damaged, or a column is missing or of another type or length.
    """
    del sha256
    with reading(path), open_hdf5(path) as file:
        captioned = is_inner(file, "caption")
        return ShardRows(
            split=read_text(file, "split"),
            keys=read_strings(file, "key"),
            labels=read_column(file, "label", kinds="i", ndim=(1, 2)),
            image_embedding=mapped_column(path, file, "image_embedding", kinds="f", ndim=(2,)),
            file_sha256=read_strings(file, "file_sha256"),
            file_bytes=read_column(file, "file_bytes", kinds="i"),
            file_mtime_ns=read_column(file, "file_mtime_ns", kinds="i"),
            captions=read_strings(file, "caption") if captioned else None,
            caption_embedding=(
                mapped_column(path, file, "caption_embedding", kinds="f", ndim=(2,)) if captioned else None
            ),
            more={
                name: mapped_column(path, file, f"{MORE}/{name}", kinds="f", ndim=(2, 3))
                for name in (file[MORE] if is_inner(file, MORE) else ())
            },
        )


def wrong_rows(path: Path) -> WrongRows:
    """Return which rows of a damaged shard differ from their checksums."""
    with reading(path):
        return wrong_rows_of(path)
