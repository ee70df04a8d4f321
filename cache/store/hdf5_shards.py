"""Shards in HDF5: contiguous and uncompressed, so that rows can be memory-mapped; plain h5py reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py

from cache.runtime.atomic_files import sha256_of
from cache.runtime.hdf5_safety import is_inner
from cache.store.hdf5_columns import (
    damaged_rows,
    has_sums,
    mapped_column,
    read_column,
    read_strings,
    read_text,
    write_column,
    write_strings,
    write_text,
)
from cache.store.read_errors import damaged_shard
from cache.store.shard_rows import Damage, ShardRows

MORE = "more"


def write(path: Path, rows: ShardRows, images: Sequence[Path] | None = None) -> None:
    """Write one shard. ``images`` is the other format's business: this one keeps no pictures."""
    del images
    with h5py.File(path, "w") as file:
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

    ``sha256`` is the file's, which is compared where the shard has no checksums of its own.

    Raises
    ------
    UserError
        If the file is no HDF5 file, damaged, or a column is missing or of another type or length.
    """
    with damaged_shard(path), h5py.File(path, "r") as file:
        if not has_sums(file) and sha256_of(path) != sha256:
            raise ValueError("its checksum is not the manifest's")
        captioned = is_inner(file, "caption")
        return ShardRows(
            split=read_text(file, "split"),
            keys=read_strings(file, "key"),
            labels=read_column(file, "label", kind="i", ndim=(1, 2)),
            image_embedding=mapped_column(path, file, "image_embedding", kind="f", ndim=(2,)),
            file_sha256=read_strings(file, "file_sha256"),
            file_bytes=read_column(file, "file_bytes", kind="i"),
            file_mtime_ns=read_column(file, "file_mtime_ns", kind="i"),
            captions=read_strings(file, "caption") if captioned else None,
            caption_embedding=(
                mapped_column(path, file, "caption_embedding", kind="f", ndim=(2,)) if captioned else None
            ),
            more={
                name: mapped_column(path, file, f"{MORE}/{name}", kind="f", ndim=(2, 3))
                for name in (file[MORE] if is_inner(file, MORE) else ())
            },
        )


def damage(path: Path) -> Damage:
    """Return which rows of a damaged shard differ from their checksums."""
    with damaged_shard(path):
        rows, names = damaged_rows(path)
        return Damage(rows=rows, names=names)
