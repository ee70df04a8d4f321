"""Shards as WebDataset tar files: ``KEY.jpg .cls .json .embedding.npy``; plain webdataset streams them.

A row with several labels has them in its ``.json`` instead of ``.cls``; further columns are
``NAME.npy``.
"""

from __future__ import annotations

import io
import json
import math
import tokenize
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.runtime.atomic_files import sha256_of
from cache.sources.image_folder import ENDINGS
from cache.store.checksums import has_its_checksum, with_checksum
from cache.store.read_errors import READ_ERRORS, reading
from cache.store.shard_rows import ShardRows, WrongRows

OWN = ("embedding.npy", "caption_embedding.npy")
ENDING, SUMS = "tar", "crc32"


def write(path: Path, rows: ShardRows, images: Sequence[Path] | None = None) -> None:
    """Write one shard; with ``images``, each row carries its picture's file as it is.

    A fixed time and owner make equal rows equal bytes.
    """
    import webdataset  # here, because it imports torch, which rows do without

    with webdataset.TarWriter(str(path), encoder=False, mtime=0.0, user="distill", group="distill") as tar:
        for i, key in enumerate(rows.keys):
            members = _members(rows, i)
            if images is not None:
                members[images[i].suffix.lstrip(".").lower()] = images[i].read_bytes()
            tar.write({"__key__": tar_name(key), "json": _json(rows, i, members), **members})


def _members(rows: ShardRows, i: int) -> dict[str, bytes]:
    members = {}
    if rows.labels.ndim == 1:
        members["cls"] = str(rows.labels[i]).encode()
    members["embedding.npy"] = _npy(rows.image_embedding[i])
    if rows.captions is not None and rows.caption_embedding is not None:
        members["caption_embedding.npy"] = _npy(rows.caption_embedding[i])
        members["txt"] = rows.captions[i].encode("utf-8")
    return members | {f"{name}.npy": _npy(column[i]) for name, column in rows.more.items()}


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
        If the tar is damaged or cut short, or a row lacks a member or has one of another type.
    """
    with reading(path):
        if sha256_of(path) != sha256:
            raise ValueError("its checksum is not the manifest's")
        samples = [_parsed(sample) for sample in _samples(path)]
        if not samples:
            raise ValueError("it holds no row")
        tables = [sample["json"] for sample in samples]
        captioned = "caption_embedding.npy" in samples[0]
        return ShardRows(
            split=_text(tables[0], "split"),
            keys=[_text(row, "key") for row in tables],
            labels=_integers(tables, "label"),
            image_embedding=np.stack([sample["embedding.npy"] for sample in samples]),
            file_sha256=[_text(row, "file_sha256") for row in tables],
            file_bytes=_integers(tables, "file_bytes"),
            file_mtime_ns=_integers(tables, "file_mtime_ns"),
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


def _text(row: dict[str, Any], name: str) -> str:
    if not isinstance(row[name], str):
        raise ValueError(f"{name} is {row[name]!r:.80}")
    return str(row[name])


def _integers(rows: Sequence[dict[str, Any]], name: str) -> NDArray[np.int64]:
    values = np.array([row[name] for row in rows])
    if values.dtype != np.int64:
        raise ValueError(f"{name} is of {values.dtype}")
    return values


def wrong_rows(path: Path) -> WrongRows:
    """Return which rows of a damaged shard are not what was written, as far as the tar can be read.

    Rows that lie behind a place where it cannot are not among the names.
    """
    wrong: list[int] = []
    names: list[str] = []
    with suppress(*READ_ERRORS):  # what cannot be read counts as missing
        for sample in _samples(path, endings=()):
            name, sound = _checked(sample)
            if not sound:
                wrong.append(len(names))
            names.append(name)
    return WrongRows(rows=wrong, names=names)


def _checked(sample: dict[str, Any]) -> tuple[str, bool]:
    """Return a row's key, or its name in the tar, and whether it is sound."""
    text = sample.get("json", b"").decode("utf-8", errors="replace")
    if not has_its_checksum(text):
        return str(sample["__key__"]), False
    table = json.loads(text)
    members = {name: raw for name, raw in sample.items() if name != "json" and not name.startswith("__")}
    return table["key"], {name: zlib.crc32(raw) for name, raw in members.items()} == table[SUMS]


def _samples(
    path: Path, *, endings: tuple[str, ...] = (".json", ".cls", ".npy", ".txt")
) -> Iterator[dict[str, Any]]:
    import webdataset  # here, because it imports torch

    def is_asked_for(name: str) -> bool:
        return not endings or name.endswith(endings)

    with open(path, "rb") as stream:
        source = [{"url": str(path), "stream": stream}]
        files = webdataset.tariterators.tar_file_expander(source, select_files=is_asked_for)
        yield from webdataset.tariterators.group_by_keys(files)


def _parsed(sample: dict[str, Any]) -> dict[str, Any]:
    arrays = {name: _array(name, raw) for name, raw in sample.items() if name.endswith(".npy")}
    table = json.loads(sample["json"])
    if not isinstance(table, dict):
        raise ValueError(f"the row {sample['__key__']!r:.80} has no table")
    return {**sample, **arrays, "json": table}


def _array(name: str, raw: bytes) -> NDArray[Any]:
    # Not np.load: it makes room for whatever shape the header claims before it looks for the numbers.
    buffer = io.BytesIO(raw)
    version = np.lib.format.read_magic(buffer)
    try:
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(buffer)
    except (SyntaxError, TypeError, tokenize.TokenError) as error:  # a header is a Python literal
        raise ValueError(f"{name} has no header of numpy's") from error
    at = buffer.tell()
    size = math.prod(shape) * dtype.itemsize
    if version != (1, 0) or fortran or dtype.kind != "f" or size != len(raw) - at:
        raise ValueError(f"{name} holds {dtype} of shape {shape} in {len(raw)} bytes")
    return np.frombuffer(raw, dtype=dtype, offset=at).reshape(shape)


def _json(rows: ShardRows, i: int, members: dict[str, bytes]) -> bytes:
    row = {
        "key": rows.keys[i],
        "split": rows.split,
        "label": rows.labels[i].tolist(),
        "file_sha256": rows.file_sha256[i],
        "file_bytes": int(rows.file_bytes[i]),
        "file_mtime_ns": int(rows.file_mtime_ns[i]),
        SUMS: {name: zlib.crc32(raw) for name, raw in members.items()},
    }
    return with_checksum(row, indent=None).encode("utf-8")


def _npy(row: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(row), allow_pickle=False)
    return buffer.getvalue()
