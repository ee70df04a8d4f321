"""Shards as WebDataset tar files: ``KEY.jpg .cls .json .embedding.npy``; plain webdataset streams them.

A row with several labels has them in its ``.json`` instead of ``.cls``; further columns are
``NAME.npy``.
"""

from __future__ import annotations

import io
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from numpy.typing import NDArray

from cache.runtime.atomic_files import sha256_of
from cache.sources.image_folder import ENDINGS
from cache.store.checksums import is_sealed, sealed
from cache.store.read_errors import DAMAGED, damaged_shard
from cache.store.shard_rows import Damage, ShardRows

OWN = ("embedding.npy", "caption_embedding.npy")
SUMS = "crc32"


def write(path: Path, rows: ShardRows, images: Sequence[Path] | None = None) -> None:
    """Write one shard; with ``images``, each row carries its picture's file as it is.

    A fixed time and owner make equal rows equal bytes.
    """
    with webdataset.TarWriter(str(path), encoder=False, mtime=0.0, user="distill", group="distill") as tar:
        for i, key in enumerate(rows.keys):
            parts = _parts(rows, i)
            if images is not None:
                parts[images[i].suffix.lstrip(".").lower()] = images[i].read_bytes()
            tar.write({"__key__": tar_name(key), "json": _described(rows, i, parts), **parts})


def _parts(rows: ShardRows, i: int) -> dict[str, bytes]:
    parts = {}
    if rows.labels.ndim == 1:
        parts["cls"] = str(rows.labels[i]).encode()
    parts["embedding.npy"] = _npy(rows.image_embedding[i])
    if rows.captions is not None and rows.caption_embedding is not None:
        parts["caption_embedding.npy"] = _npy(rows.caption_embedding[i])
        parts["txt"] = rows.captions[i].encode("utf-8")
    return parts | {f"{name}.npy": _npy(column[i]) for name, column in rows.more.items()}


def tar_name(key: str) -> str:
    """Return a key's name in the tar: without its ending, and without the dots that WebDataset cuts at."""
    folder, _, file = key.rpartition("/")
    # Only what is an image's ending: an episode may be called "run.1".
    stem = file.rpartition(".")[0] if Path(file).suffix.lower() in ENDINGS else file
    name = (stem or file).replace("%", "%25").replace(".", "%2E")
    return f"{folder}/{name}" if folder else name


def read(path: Path, *, sha256: str) -> ShardRows:
    """Read one shard, whose file's checksum is compared first; pictures are passed over.

    Raises
    ------
    UserError
        If the tar is damaged or cut short, or a row lacks a part or has one of another type.
    """
    with damaged_shard(path):
        if sha256_of(path) != sha256:
            raise ValueError("its checksum is not the manifest's")
        samples = [_parsed(sample) for sample in _samples(path)]
        described = [sample["json"] for sample in samples]
        captioned = bool(samples) and "caption_embedding.npy" in samples[0]
        return ShardRows(
            split=_field(described[0], "split", str),
            keys=[_field(row, "key", str) for row in described],
            labels=np.array([_field(row, "label", int, list) for row in described], dtype=np.int64),
            image_embedding=np.stack([sample["embedding.npy"] for sample in samples]),
            file_sha256=[_field(row, "file_sha256", str) for row in described],
            file_bytes=np.array([_field(row, "file_bytes", int) for row in described], dtype=np.int64),
            file_mtime_ns=np.array([_field(row, "file_mtime_ns", int) for row in described], dtype=np.int64),
            captions=[sample["txt"].decode("utf-8") for sample in samples] if captioned else None,
            caption_embedding=np.stack([sample["caption_embedding.npy"] for sample in samples])
            if captioned
            else None,
            more={
                name.removesuffix(".npy"): np.stack([sample[name] for sample in samples])
                for name in samples[0]
                if name.endswith(".npy") and name not in OWN
            },
        )


def _field(row: dict[str, Any], name: str, *kinds: type) -> Any:
    if type(row[name]) not in kinds:
        raise ValueError(f"{name} is {row[name]!r:.80}")
    return row[name]


def damage(path: Path) -> Damage:
    """Return which rows of a damaged shard are not what was written, as far as the tar can be read.

    Rows that lie behind a place where it cannot are not among the names.
    """
    bad: list[int] = []
    names: list[str] = []
    try:
        for sample in _samples(path, endings=()):
            name, sound = _checked(sample)
            if not sound:
                bad.append(len(names))
            names.append(name)
    except DAMAGED:
        pass  # what cannot be read is what is missing
    return Damage(rows=bad, names=names)


def _checked(sample: dict[str, Any]) -> tuple[str, bool]:
    """Return a row's key, or its name in the tar, and whether it is sound."""
    raw = sample.get("json", b"")
    try:
        text = raw.decode("utf-8")
        described = json.loads(text)
        parts = {name: part for name, part in sample.items() if name != "json" and not name.startswith("__")}
        sums = {name: zlib.crc32(part) for name, part in parts.items()}
        return described["key"], is_sealed(text) and sums == described[SUMS]
    except DAMAGED:
        return str(sample["__key__"]), False


def _samples(
    path: Path, *, endings: tuple[str, ...] = (".json", ".cls", ".npy", ".txt")
) -> Iterator[dict[str, Any]]:
    def parts_of_interest(name: str) -> bool:
        return not endings or name.endswith(endings)

    with open(path, "rb") as stream:
        source = [{"url": str(path), "stream": stream}]
        files = webdataset.tariterators.tar_file_expander(source, select_files=parts_of_interest)
        yield from webdataset.tariterators.group_by_keys(files)


def _parsed(sample: dict[str, Any]) -> dict[str, Any]:
    parsed = {name: _array(name, raw) for name, raw in sample.items() if name.endswith(".npy")}
    return {**sample, **parsed, "json": json.loads(sample["json"])}


def _array(name: str, raw: bytes) -> NDArray[Any]:
    # Not np.load: it makes room for whatever shape the header claims before it looks for the numbers.
    buffer = io.BytesIO(raw)
    version = np.lib.format.read_magic(buffer)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(buffer)
    at = buffer.tell()
    if (
        version != (1, 0)
        or fortran
        or dtype.kind != "f"
        or math.prod(shape) * dtype.itemsize != len(raw) - at
    ):
        raise ValueError(f"{name} holds {dtype} of shape {shape} in {len(raw)} bytes")
    return np.frombuffer(raw, dtype=dtype, offset=at).reshape(shape)


def _described(rows: ShardRows, i: int, parts: dict[str, bytes]) -> bytes:
    row = {
        "key": rows.keys[i],
        "split": rows.split,
        "label": rows.labels[i].tolist(),
        "file_sha256": rows.file_sha256[i],
        "file_bytes": int(rows.file_bytes[i]),
        "file_mtime_ns": int(rows.file_mtime_ns[i]),
        SUMS: {name: zlib.crc32(part) for name, part in parts.items()},
    }
    return sealed(row, indent=None).encode("utf-8")


def _npy(row: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(row), allow_pickle=False)
    return buffer.getvalue()
