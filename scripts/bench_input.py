"""Where training images come from, without a student: images/s of every way there is.

    python scripts/bench_input.py --data DATA --image-size 224

The ways: image files decoded in worker processes; plain ``webdataset`` over tar shards that hold the same
files (a cache of the format webdataset: read, decode, squash, batch); the cache's JPEG; the cache's raw
pixels, mapped; decoded images in memory; with CUDA, decoded images kept there. Each gives batches of uint8
images, R = 256/224 of the student's side, and those that decode have the same number of workers, whose start
is counted. The batches are random and the same for all but webdataset, which shuffles its shards and a buffer
of 1,000 files. What the device does after that is in none of them. They take turns, A B C D A B C D.

A second table has ways to decode JPEG files and squash them, in one process and one thread: Pillow, as the
project does; Pillow's draft mode, which decodes at a half, a quarter or an eighth of the size; torchvision's
decoder with a resize of tensors, where its extension can be loaded. PSNR says how far the pixels are from
the first's.

Prints tables of medians, and the bytes an image takes; writes JSON.
"""

from __future__ import annotations

import argparse
import io
import math
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

from bench_parts import (
    first_images,
    in_turn,
    median_ratios,
    medians,
    parser_of,
    random_rows,
    run,
    timed,
    training_images,
    whole,
    write_result,
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

FILES, PILLOW = "files", "Pillow"
EMBED_DIM = 8
Decoder = Callable[[Path, int], Tensor]


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


def from_shards(shards: Sequence[str], side: int, batch_size: int, batches: int, workers: int) -> float:
    """Return how many images a second plain webdataset gives, workers' start included."""

    def squash(file: bytes) -> Tensor:
        picture = Image.open(io.BytesIO(file)).convert("RGB")
        return _tensor(picture.resize((side, side), Image.Resampling.BILINEAR))

    began = time.perf_counter()
    ending = ";".join(name.lstrip(".") for name in sorted(ENDINGS))
    dataset = webdataset.WebDataset(
        list(shards), shardshuffle=len(shards), seed=0, workersplitter=webdataset.split_by_worker
    )
    dataset = dataset.repeat().shuffle(1000).to_tuple(ending).map_tuple(squash).batched(batch_size)
    loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=workers)
    count = sum(len(images) for _, (images,) in zip(range(batches), loader, strict=False))
    return count / (time.perf_counter() - began)


def images_per_s(pixels: Pixels, batches: Sequence[np.ndarray]) -> float:
    """Return how many images a second come, from the first asked for to the last."""
    began, count = time.perf_counter(), 0
    for indices, _ in pixels.batches(batches):
        count += len(indices)
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
    image = torchvision.io.decode_jpeg(
        torchvision.io.read_file(str(path)), mode=torchvision.io.ImageReadMode.RGB
    )
    return torchvision.transforms.v2.functional.resize(image, [side, side], antialias=True)


def psnr(images: Sequence[Tensor], truth: Sequence[Tensor]) -> float:
    """Return 10 log10(255^2 / MSE) in dB, the MSE over all pixels; infinite where there is no difference."""
    error = np.mean([(a.double() - b.double()).square().mean() for a, b in zip(images, truth, strict=True)])
    return 10 * math.log10(255**2 / error) if error else math.inf


def compare_decoders(paths: Sequence[Path], side: int, rounds: int) -> dict[str, dict[str, float]]:
    """Let the decoders take turns on the files, print their table and return it."""
    decoders: dict[str, Decoder] = {PILLOW: squashed, "Pillow, draft mode": with_draft}
    try:
        with_torchvision(paths[0], side)
        decoders["torchvision"] = with_torchvision
    except RuntimeError as error:
        print(f"torchvision's decoder is left out: {str(error).splitlines()[0]}")

    def seconds(decode: Decoder) -> float:
        return timed(lambda: [decode(path, side) for path in paths])[0]

    truth = [squashed(path, side) for path in paths]  # first, so that no decoder is the first to read a file
    turns = in_turn({name: partial(seconds, decode) for name, decode in decoders.items()}, rounds)
    ratios, found = median_ratios(turns, PILLOW), {}
    print(f"{len(paths):,} JPEG files, one thread\n{'':20}{'images/s':>12}{'speedup':>14}{'PSNR, dB':>12}")
    for name, spent in medians(turns).items():
        quality = psnr([decoders[name](path, side) for path in paths], truth)
        rate, ratio = len(paths) / spent, 1 / ratios[name]
        # JSON knows no infinity.
        found[name] = {"images_per_s": rate, "ratio": ratio, "psnr_db": min(quality, 999.0)}
        print(f"{name:20}{rate:12,.0f}{ratio:14.2f}{quality:12.1f}")
    return found


def main() -> None:
    """Parse, measure, print."""
    parser = parser_of(__file__, __doc__, rounds=3)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--image-size", type=whole(1), default=224)
    parser.add_argument("--batch-size", type=whole(1), default=64)
    parser.add_argument("--batches", type=whole(1), default=12)
    parser.add_argument("--workers", type=whole(0), default=1)
    parser.add_argument("--decoded", type=whole(1), default=100, help="Files that the decoders take.")
    args = parser.parse_args()
    folder = training_images(ImageFolder.scan(args.data, require=("train",)))
    with tempfile.TemporaryDirectory() as scratch:
        result = compare_ways(args, folder, Path(scratch))
    files = [image.path for image in first_images(folder, args.decoded).split("train").images]
    torch.set_num_threads(1)
    jpegs = [path for path in files if path.suffix.lower() in (".jpg", ".jpeg")]
    result["decoders"] = compare_decoders(jpegs, resize_size(args.image_size), args.rounds) if jpegs else {}
    write_result(args, result, choose_device("auto"))


def compare_ways(args: argparse.Namespace, folder: ImageFolder, scratch: Path) -> dict[str, Any]:
    """Let the ways take turns, print their table and return it."""
    side, records = resize_size(args.image_size), folder.split("train").images
    rng = np.random.default_rng(0)
    batches = [rng.integers(len(records), size=args.batch_size) for _ in range(args.batches)]
    caches = {k: cache_of(folder, scratch / k, side, k) for k in ("raw", "jpeg")}
    stored = {k: StoredImages.find(cache, ("train",), records, side) for k, cache in caches.items()}
    shards = tar_shards(folder, scratch / "webdataset", args.workers)

    def pixels(memory: int = 0, **kept: Any) -> Pixels:
        return Pixels(records, SquashedPhoto(side), memory=memory, workers=args.workers, strict=True, **kept)

    own = {
        FILES: pixels(),
        "jpeg in the cache": pixels(stored=stored["jpeg"]),
        "raw in the cache": pixels(stored=stored["raw"]),
        "in memory": pixels(memory=2**62),
    }
    if torch.cuda.is_available():
        own["on the GPU"] = pixels(stored=stored["raw"], device=choose_device("cuda"))
    ways = {name: partial(images_per_s, way, batches) for name, way in own.items()}
    ways["webdataset"] = partial(from_shards, shards, side, args.batch_size, args.batches, args.workers)
    rounds = in_turn(ways, args.rounds)
    sizes = {k: sum(s.bytes for s in c.manifest.column_shards) / len(records) for k, c in caches.items()}
    result: dict[str, Any] = {"rounds": rounds, "bytes_per_image": sizes, "ways": {}}
    ratios = median_ratios(rounds, FILES)
    print(f"{len(records):,} images, {side} px\n{'':20}{'images/s':>12}{'beside files':>14}")
    for name, rate in medians(rounds).items():
        result["ways"][name] = {"images_per_s": rate, "ratio": ratios[name]}
        print(f"{name:20}{rate:12,.0f}{ratios[name]:14.2f}")
    print(f"bytes an image: raw {sizes['raw']:,.0f}, jpeg {sizes['jpeg']:,.0f}")
    return result


if __name__ == "__main__":
    run(main)
