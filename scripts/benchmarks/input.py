"""Where training images come from.

Images/s without a student: files decoded in worker processes, by Pillow, and by torchvision.io where it
loads; plain webdataset over tar shards that hold the same files (read, decode, squash, batch); the cache's
JPEG; the cache's raw pixels, mapped; decoded images in memory; with CUDA, decoded images kept there. Each
gives random batches of 64 uint8 images of 256 px (R = 256/224 of the student's side), the same for all but
webdataset, which shuffles its shards and a buffer of 1,000 files; those that decode have the same number of
workers, whose start is counted. What the device does after that is in none.
"""

from __future__ import annotations

import argparse
import io
import math
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from PIL import Image
from torch import Tensor

from benchmarks.turns import (
    Row,
    in_turn,
    median_ratios,
    medians,
    random_rows,
)
from cache import EmbeddingCache
from cache.build.columns import ColumnsJob, Tools, add_columns
from cache.build.pixels import Pixels as PixelsColumn
from cache.runtime.devices import choose_device
from cache.sources.data import open_data
from cache.sources.decoders import AUTO, PILLOW, TORCHVISION, chosen
from cache.sources.decoding import ENDINGS
from cache.sources.samples import DataFolder
from cache.store.manifest import Manifest
from cache.store.pixels import COLUMN, PixelsSettings
from distill.data.augment import resize_size
from distill.data.pixels import Pixels, SquashedPhoto, StoredImages

FILES = "files"
EMBED_DIM = 8
OPTIONS = {"data": Path, "image_size": 224, "batch_size": 64, "batches": 12, "workers": 1}
COLUMNS = {
    "way": "{}",
    "images/s": "{:,.0f}",
    "beside the first": "{:.3g}",
    "bytes an image": "{:,.0f}",
}


def cache_of(folder: DataFolder, out: Path, side: int, format: str) -> EmbeddingCache:
    """Return a cache of random rows of the training split that keeps its images."""
    random_rows(out, folder, embed_dim=EMBED_DIM)
    column = PixelsColumn(of=PixelsSettings(side=side, encoding=format))
    job = ColumnsJob(out=out, sources=folder.splits, columns=[column], tools=Tools())
    add_columns(job, Manifest.load(out))
    return EmbeddingCache.open(out)


def tar_shards(folder: DataFolder, out: Path, workers: int) -> list[str]:
    """Write the training split as tar shards, four a worker, and return their paths."""
    samples = folder.split("train").all()
    out.mkdir()
    count = math.ceil(len(samples) / (4 * max(workers, 1)))
    with webdataset.ShardWriter(str(out / "%05d.tar"), maxcount=count, verbose=0) as shards:
        for number, sample in enumerate(samples):
            ending = Path(sample.where).suffix.lower().lstrip(".")
            shards.write({"__key__": f"{number:09d}", ending: Path(sample.where).read_bytes()})
    return sorted(map(str, out.glob("*.tar")))


def from_shards(shards: Sequence[str], side: int, args: argparse.Namespace) -> float:
    """Return how many images a second plain webdataset gives, workers' start included."""

    def squash(file: bytes) -> Tensor:
        picture = Image.open(io.BytesIO(file)).convert("RGB")
        return _tensor(picture.resize((side, side), Image.Resampling.BILINEAR))

    began = time.perf_counter()
    ending = ";".join(name.lstrip(".") for name in sorted(ENDINGS))
    dataset = webdataset.WebDataset(
        list(shards), shardshuffle=len(shards), seed=0, workersplitter=webdataset.split_by_worker
    )
    dataset = dataset.repeat().shuffle(1000).to_tuple(ending).map_tuple(squash).batched(args.batch_size)
    loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=args.workers)
    count = sum(len(images) for _, (images,) in zip(range(args.batches), loader, strict=False))
    return count / (time.perf_counter() - began)


def images_per_s(pixels: Pixels, batches: Sequence[np.ndarray]) -> float:
    """Return how many images a second come, from the first asked for to the last."""
    began = time.perf_counter()
    count = sum(len(indices) for indices, _ in pixels.batches(batches))
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return count / (time.perf_counter() - began)


def _tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Let the ways take turns in this process."""
    folder = open_data([args.data])
    folder = DataFolder(path=folder.path, splits={"train": folder.split("train")})
    with tempfile.TemporaryDirectory() as scratch:
        return compare_ways(args, folder, Path(scratch))


def compare_ways(args: argparse.Namespace, folder: DataFolder, scratch: Path) -> tuple[list[Row], Any]:
    """Let the ways take turns, and return their rows."""
    side, samples = resize_size(args.image_size), folder.split("train").all()
    rng = np.random.default_rng(0)
    batches = [rng.integers(len(samples), size=args.batch_size) for _ in range(args.batches)]
    caches = {k: cache_of(folder, scratch / k, side, k) for k in ("raw", "jpeg")}
    stored = {k: StoredImages.find(cache, [("train", samples)], side) for k, cache in caches.items()}

    def pixels(memory: int = 0, decoder: str = PILLOW, **kept: Any) -> Pixels:
        decode = SquashedPhoto(side, decoder)
        return Pixels(samples, decode, memory=memory, workers=args.workers, strict=True, **kept)

    ways = {FILES: partial(images_per_s, pixels(), batches)}
    if chosen(AUTO) == TORCHVISION:
        ways["files, torchvision"] = partial(images_per_s, pixels(decoder=TORCHVISION), batches)
    shards = tar_shards(folder, scratch / "webdataset", args.workers)
    ways["webdataset"] = partial(from_shards, shards, side, args)
    ways["jpeg in the cache"] = partial(images_per_s, pixels(stored=stored["jpeg"]), batches)
    ways["raw in the cache"] = partial(images_per_s, pixels(stored=stored["raw"]), batches)
    ways["in memory"] = partial(images_per_s, pixels(memory=2**62), batches)
    if torch.cuda.is_available():
        on_gpu = pixels(stored=stored["raw"], device=choose_device("cuda"))
        ways["on the GPU"] = partial(images_per_s, on_gpu, batches)
    rounds = in_turn(ways, args.rounds)
    rates, ratios = medians(rounds), median_ratios(rounds, FILES)
    rows = {name: {"way": name, "images/s": rates[name], "beside the first": ratios[name]} for name in ways}
    for name, cache in caches.items():
        size = sum(line.bytes for line in cache.journal.files.values() if line.column == COLUMN) / len(
            samples
        )
        rows[f"{name} in the cache"]["bytes an image"] = size
    return list(rows.values()), rounds
