"""Streaming a cache's tars.

One epoch of tiny pictures from a cache in the format webdataset: read, mixed in a buffer of 4,096, decoded,
and put together to batches of images, labels and the teacher's rows; beside plain webdataset on the same
tars, which shuffles its shards and a buffer of 4,096 and decodes the picture, `embedding.npy` and `cls`. No
student, and no data folder. Each epoch is of a process of its own, with no worker beside it; samples/s are
from opening to the last batch. Memory is the most that was resident, more than before; "a tenth" is that
when a tenth of the epoch was read: of what grows with the rows the rest of the epoch would be more.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import webdataset
from PIL import Image
from torch import Tensor

from benchmarks.cache_probe import random_block, resident
from benchmarks.turns import Row, alone, forget_peak, in_turn, median_ratios, medians, one_number
from cache.store.journal import Journal, JournalWriter
from cache.store.key_index import KeyIndex
from cache.store.manifest import Manifest
from cache.store.row_group import GroupKeys, KeysFile, claim_group
from cache.store.spec import CacheSpec, TeacherSpec
from cache.store.webdataset import write_tar_group
from distill.config import RunConfig
from distill.data.augment import resize_size
from distill.data.streams import open_stream
from distill.settings import with_settings

STREAMED, PLAIN = "as train streams", "plain webdataset"
OPTIONS = {
    "rows": [10_000],
    "embed_dim": 64,
    "image_size": 28,
    "batch_size": 256,
    "rows_per_tar": 8192,
}
COLUMNS = {
    "rows": "{:,}",
    "way": "{}",
    "samples/s": "{:,.0f}",
    "beside plain webdataset": "{:.2f}",
    "memory": "{:+,.0f} MB",
    "a tenth": "{:+,.0f} MB",
    "bytes a sample": "{:,.0f}",
}
CLASSES, PICTURES, BUFFER = 100, 64, 4096


@dataclass(frozen=True)
class Tiny:
    """A sample whose picture is one of a few files."""

    key: str
    path: Path
    views: ClassVar[tuple[str, ...]] = ("image",)
    caption: ClassVar[None] = None
    where: ClassVar[str] = "a picture of the benchmark"

    def content(self) -> bytes:
        """Return the file's bytes."""
        return self.path.read_bytes()


def make(cache: Path, pictures: Path, args: argparse.Namespace, rows: int) -> float:
    """Write a cache of random rows; return the bytes a sample of its tars."""
    cache.mkdir()
    pictures.mkdir()
    for number in range(PICTURES):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((32, 32)).save(pictures / f"{number}.jpg")
    classes = {"train": tuple(f"c{i:03d}" for i in range(CLASSES)), "ood_test": ("other",)}
    # A teacher of no name: nothing is embedded.
    kinds: dict[str, Any] = {"tuple": (), "int": 0, "str": "random"}
    given = {field.name: kinds[str(field.type).partition("[")[0]] for field in fields(TeacherSpec)}
    spec = CacheSpec(teacher=TeacherSpec(**given), format="webdataset")
    manifest = Manifest(spec=spec, embed_dim=args.embed_dim, splits=classes, complete=True)
    manifest.save(cache)
    for split, count in (("train", rows), ("ood_test", CLASSES)):
        for start in range(0, count, args.rows_per_tar):
            numbers = range(start, min(start + args.rows_per_tar, count))
            _write_tar(cache, pictures, split, classes[split], numbers, args.embed_dim)
    journal = Journal.load(cache)
    for split in classes:
        groups = journal.groups(split)
        KeyIndex.of(groups, lambda group: KeysFile(cache, group.keys)).save(cache, split, groups)
    return sum(group.lines["samples"].bytes for group in journal.groups("train")) / rows


def _write_tar(
    cache: Path, pictures: Path, split: str, classes: tuple[str, ...], numbers: range, width: int
) -> None:
    files = [pictures / f"{number}.jpg" for number in range(PICTURES)]
    content = np.stack([np.frombuffer(sha256(file.read_bytes()).digest(), np.uint8) for file in files])
    labels = [classes[number % len(classes)] for number in numbers]
    keys = [f"{label}/{number:07d}.jpg" for label, number in zip(labels, numbers, strict=True)]
    picture_of = np.array(numbers) % PICTURES
    of_group = GroupKeys(
        split=split,
        keys=keys,
        labels=[(label,) for label in labels],
        content=content[picture_of],
        bytes=np.zeros(len(keys), dtype=np.int64),
        mtime_ns=np.zeros(len(keys), dtype=np.int64),
    )
    samples: Any = [Tiny(key, files[i]) for key, i in zip(keys, picture_of.tolist(), strict=True)]
    columns = {"image_embedding": random_block(numbers.start, len(keys), width)}
    JournalWriter(cache).add(*write_tar_group(cache, claim_group(cache, split), of_group, columns, samples))


def streamed(cache: Path, args: argparse.Namespace) -> Iterator[int]:
    """Yield how many samples each batch has, as `distill train` makes it."""
    settings = ["data.workers=0", "train.device=cpu", f"data.shuffle_buffer={BUFFER}"]
    config = with_settings(RunConfig(), [*settings, f"student.image_size={args.image_size}"])
    data = open_stream(config, cache_dir=cache, data_dir=None).data_of(config, ["main"])
    for chosen, images in data.images(data.epoch(0, batch_size=args.batch_size, repeats=1, seed=0)):
        batch = data.batch(chosen, images)
        yield len(batch.label_B)


def plain(cache: Path, args: argparse.Namespace) -> Iterator[int]:
    """Yield how many samples each batch of plain webdataset has."""
    side = resize_size(args.image_size)

    def picture(raw: bytes) -> Tensor:
        image = Image.open(io.BytesIO(raw)).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def row(raw: bytes) -> Tensor:
        return torch.from_numpy(np.load(io.BytesIO(raw), allow_pickle=False)).float()

    shards = sorted(map(str, (cache / "tars").glob("train-*.tar")))
    dataset = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=0)
    dataset = dataset.shuffle(BUFFER).to_tuple("jpg", "embedding.npy", "cls")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves it to Python to close the shards
        for images, rows, labels in dataset.map_tuple(picture, row, int).batched(args.batch_size):
            assert len(images) == len(rows) == len(labels)
            yield len(images)


WAYS = {STREAMED: streamed, PLAIN: plain}


def epoch(way: str, cache: Path, args: argparse.Namespace, rows: int) -> dict[str, float]:
    """Read one epoch; return its samples/s and the memory that it took, in MB."""
    forget_peak()
    before, count, tenth = resident()["all"], 0, 0.0
    began = time.perf_counter()
    for size in WAYS[way](cache, args):
        count += size
        if not tenth and count >= rows / 10:
            tenth = (resident()["peak"] - before) / 1e6
    seconds = time.perf_counter() - began
    return {"samples/s": count / seconds, "memory": (resident()["peak"] - before) / 1e6, "a tenth": tenth}


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Let both ways take turns for every number of rows."""
    table: list[Row] = []
    details = []
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as scratch:
            cache = Path(scratch) / "cache"
            size = make(cache, Path(scratch) / "pictures", args, rows)
            ways = {way: partial(alone, args, epoch, way, cache, args, rows) for way in WAYS}
            rounds = in_turn(ways, args.rounds)
        ratios = median_ratios(one_number(rounds, "samples/s"), PLAIN)
        for way in WAYS:
            numbers = {
                name: medians(one_number(rounds, name))[way] for name in ("samples/s", "memory", "a tenth")
            }
            table.append(
                {
                    "rows": rows,
                    "way": way,
                    **numbers,
                    "beside plain webdataset": ratios[way],
                    "bytes a sample": size,
                }
            )
        details.append(rounds)
    return table, details
