"""Where training images come from.

Images/s without a student: files decoded in worker processes; plain webdataset over tar shards that hold
the same files (read, decode, squash, batch); the cache's JPEG; the cache's raw pixels, mapped; decoded
images in memory; with CUDA, decoded images kept there. Each gives random batches of 64 uint8 images of 256
px (R = 256/224 of the student's side), the same for all but webdataset, which shuffles its shards and a
buffer of 1,000 files; those that decode have the same number of workers, whose start is counted. What the
device does after that is in none. Below them the ways to decode JPEG files and squash them, in one thread:
Pillow, as the project does; Pillow's draft mode, which decodes at a half, a quarter or an eighth of the
size; torchvision's decoder with a resize of tensors, where its extension can be loaded. PSNR tells how far
the pixels are from Pillow's (infinite: they are the same).
"""

from __future__ import annotations

import argparse
import io
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
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
    first_images,
    in_turn,
    median_ratios,
    medians,
    positive,
    random_rows,
    seconds_in_turn,
    training_images,
)
from cache import EmbeddingCache
from cache.build.pixels import PixelOptions, write_pixels
from cache.runtime.devices import choose_device
from cache.runtime.progress import Silent
from cache.runtime.torchvision_compat import torchvision
from cache.sources.image_folder import ENDINGS, ImageFolder, squashed
from cache.store.manifest import Manifest
from distill.data.augment import resize_size
from distill.data.pixels import Pixels, SquashedPhoto, StoredImages

FILES, PILLOW = "files", "decoding, Pillow"
EMBED_DIM = 8
COLUMNS = {
    "way": "{}",
    "images/s": "{:,.0f}",
    "beside the first": "{:.3g}",
    "bytes an image": "{:,.0f}",
    "PSNR, dB": "{:.1f}",
}


def cache_of(folder: ImageFolder, out: Path, side: int, kind: str) -> EmbeddingCache:
    """Return a cache of random rows of the training split that keeps its images."""
    random_rows(out, folder, embed_dim=EMBED_DIM)
    write_pixels(Manifest.load(out), out, folder, PixelOptions(side=side, kind=kind), Silent())
    return EmbeddingCache.open(out)


def tar_shards(folder: ImageFolder, out: Path, workers: int) -> list[str]:
    """Write the training split as tar shards, four a worker, and return their paths."""
    rows = math.ceil(len(folder.split("train").images) / (4 * max(workers, 1)))
    random_rows(out, folder, embed_dim=EMBED_DIM, format="webdataset", rows_per_shard=rows)
    return sorted(map(str, (out / "images").glob("*.tar")))


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


def with_draft(path: Path, side: int) -> Tensor:
    """Decode at the least size that Pillow's draft mode has above ``side``, and squash."""
    with Image.open(path) as image:
        image.draft("RGB", (side, side))
        return _tensor(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))


def with_torchvision(path: Path, side: int) -> Tensor:
    """Decode with torchvision and squash the tensor, antialiased."""
    mode = torchvision.io.ImageReadMode.RGB
    image = torchvision.io.decode_jpeg(torchvision.io.read_file(str(path)), mode=mode)
    return torchvision.transforms.v2.functional.resize(image, [side, side], antialias=True)


def psnr(images: Sequence[Tensor], truth: Sequence[Tensor]) -> float:
    """Return 10 log10(255^2 / MSE) in dB, the MSE over all pixels; infinite where there is no difference."""
    error = np.mean([(a.double() - b.double()).square().mean() for a, b in zip(images, truth, strict=True)])
    return 10 * math.log10(255**2 / error) if error else math.inf


def compare_decoders(paths: Sequence[Path], side: int, rounds: int) -> list[Row]:
    """Let the decoders take turns on the files, and return their rows."""
    decoders: dict[str, Callable[[Path, int], Tensor]] = {
        PILLOW: squashed,
        "decoding, draft mode": with_draft,
    }
    try:
        with_torchvision(paths[0], side)
        decoders["decoding, torchvision"] = with_torchvision
    except RuntimeError as error:
        print(f"torchvision's decoder is left out: {str(error).splitlines()[0]}", file=sys.stderr)

    def every(decode: Callable[[Path, int], Tensor]) -> list[Tensor]:
        return [decode(path, side) for path in paths]

    truth = every(squashed)  # first, so that no decoder is the first to read a file
    turns = seconds_in_turn({name: partial(every, decode) for name, decode in decoders.items()}, rounds)
    seconds, ratios = medians(turns), median_ratios(turns, PILLOW)
    psnr_of = {name: psnr(every(decode), truth) for name, decode in decoders.items()}
    return [
        {
            "way": name,
            "images/s": len(paths) / seconds[name],
            "beside the first": 1 / ratios[name],
            # JSON knows no infinity.
            "PSNR, dB": "infinite" if math.isinf(psnr_of[name]) else psnr_of[name],
        }
        for name in decoders
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this benchmark takes."""
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--image-size", type=positive, default=224)
    parser.add_argument("--batch-size", type=positive, default=64)
    parser.add_argument("--batches", type=positive, default=12)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--decoded", type=positive, default=100, help="Files that the decoders take.")


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Let the ways take turns, then the decoders, in this process."""
    folder = training_images(args.data)
    with tempfile.TemporaryDirectory() as scratch:
        rows, rounds = compare_ways(args, folder, Path(scratch))
    files = [image.path for image in first_images(folder, args.decoded).split("train").images]
    jpegs = [path for path in files if path.suffix.lower() in (".jpg", ".jpeg")]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows += compare_decoders(jpegs, resize_size(args.image_size), args.rounds) if jpegs else []
    finally:
        torch.set_num_threads(threads)
    return rows, rounds


def compare_ways(args: argparse.Namespace, folder: ImageFolder, scratch: Path) -> tuple[list[Row], Any]:
    """Let the ways take turns, and return their rows."""
    side, records = resize_size(args.image_size), folder.split("train").images
    rng = np.random.default_rng(0)
    batches = [rng.integers(len(records), size=args.batch_size) for _ in range(args.batches)]
    caches = {k: cache_of(folder, scratch / k, side, k) for k in ("raw", "jpeg")}
    stored = {k: StoredImages.find(cache, ("train",), records, side) for k, cache in caches.items()}

    def pixels(memory: int = 0, **kept: Any) -> Pixels:
        return Pixels(records, SquashedPhoto(side), memory=memory, workers=args.workers, strict=True, **kept)

    ways = {FILES: partial(images_per_s, pixels(), batches)}
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
        size = sum(shard.bytes for shard in cache.manifest.side_shards) / len(records)
        rows[f"{name} in the cache"]["bytes an image"] = size
    return list(rows.values()), rounds
