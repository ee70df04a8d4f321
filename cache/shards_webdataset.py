"""Shards as WebDataset tar files: ``KEY.jpg .cls .json .embedding.npy``; plain webdataset streams them.

A row with several labels has them in its ``.json`` instead of ``.cls``; further columns are
``NAME.npy``.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from numpy.typing import NDArray

from cache.errors import UserError
from cache.images import ENDINGS
from cache.rows import ShardRows

OWN = ("embedding.npy", "caption_embedding.npy")


def write(path: Path, rows: ShardRows, images: Sequence[Path] | None = None) -> None:
    """Write one shard; with ``images``, each row carries its picture's file as it is.

    A fixed time and owner make equal rows equal bytes.
    """
    with webdataset.TarWriter(str(path), encoder=False, mtime=0.0, user="distill", group="distill") as tar:
        for i, key in enumerate(rows.keys):
            sample = {
                "__key__": tar_name(key),
                "json": _described(rows, i),
            }
            if rows.labels.ndim == 1:
                sample["cls"] = str(rows.labels[i]).encode()
            sample["embedding.npy"] = _npy(rows.image_embedding[i])
            if rows.captions is not None and rows.caption_embedding is not None:
                sample["caption_embedding.npy"] = _npy(rows.caption_embedding[i])
                sample["txt"] = rows.captions[i].encode("utf-8")
            sample |= {f"{name}.npy": _npy(column[i]) for name, column in rows.more.items()}
            if images is not None:
                sample[images[i].suffix.lstrip(".").lower()] = images[i].read_bytes()
            tar.write(sample)


def tar_name(key: str) -> str:
    """Return a key's name in the tar: without its ending, and without the dots that WebDataset cuts at."""
    folder, _, file = key.rpartition("/")
    # Only what is an image's ending: an episode may be called "run.1".
    stem = file.rpartition(".")[0] if Path(file).suffix.lower() in ENDINGS else file
    name = (stem or file).replace("%", "%25").replace(".", "%2E")
    return f"{folder}/{name}" if folder else name


def read(path: Path) -> ShardRows:
    """Read one shard; pictures are passed over.

    Raises
    ------
    UserError
        If the tar is cut short or a row lacks a part.
    """
    try:
        samples = [_parsed(sample) for sample in _samples(path)]
        described = [sample["json"] for sample in samples]
        captioned = bool(samples) and "caption_embedding.npy" in samples[0]
        return ShardRows(
            split=described[0]["split"],
            keys=[row["key"] for row in described],
            labels=np.array([row["label"] for row in described], dtype=np.int64),
            image_embedding=np.stack([sample["embedding.npy"] for sample in samples]),
            file_sha256=[row["file_sha256"] for row in described],
            file_bytes=np.array([row["file_bytes"] for row in described], dtype=np.int64),
            file_mtime_ns=np.array([row["file_mtime_ns"] for row in described], dtype=np.int64),
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
    except (OSError, EOFError, KeyError, IndexError, ValueError, tarfile.TarError) as error:
        raise UserError(
            f"the shard {path} is damaged ({error})",
            fix="run 'distill cache verify', then cache-features again.",
        ) from error


def _samples(path: Path) -> Iterator[dict[str, Any]]:
    def parts_of_interest(name: str) -> bool:
        return name.endswith((".json", ".cls", ".npy", ".txt"))

    with open(path, "rb") as stream:
        source = [{"url": str(path), "stream": stream}]
        files = webdataset.tariterators.tar_file_expander(source, select_files=parts_of_interest)
        yield from webdataset.tariterators.group_by_keys(files)


def _parsed(sample: dict[str, Any]) -> dict[str, Any]:
    parsed = {name: np.load(io.BytesIO(raw)) for name, raw in sample.items() if name.endswith(".npy")}
    return {**sample, **parsed, "json": json.loads(sample["json"])}


def _described(rows: ShardRows, i: int) -> bytes:
    row = {
        "key": rows.keys[i],
        "split": rows.split,
        "label": rows.labels[i].tolist(),
        "file_sha256": rows.file_sha256[i],
        "file_bytes": int(rows.file_bytes[i]),
        "file_mtime_ns": int(rows.file_mtime_ns[i]),
    }
    return json.dumps(row, ensure_ascii=False).encode("utf-8")


def _npy(row: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(row), allow_pickle=False)
    return buffer.getvalue()
