"""Where training images come from, without a student: images/s of every way there is.

    python scripts/bench_input.py --data DATA --image-size 224

The ways: image files decoded in one worker process; the cache's JPEG in one worker; the cache's raw pixels,
mapped; decoded images in memory. Each gives the same random batches of uint8 images, R = 256/224 of the
student's side; what the device does after that is in none of them. They take turns, A B C D A B C D.
Prints a table of medians, and the bytes an image takes; writes JSON.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from cache import EmbeddingCache
from cache.devices import choose_device
from cache.files import write_json
from cache.images import ImageFolder
from cache.import_embeddings import ImportedTexts, import_embeddings
from cache.manifest import Manifest
from cache.pixels import PixelOptions, write_pixels
from cache.progress import Silent
from distill.augment import resize_size
from distill.pixels import Pixels, SquashedPhoto, StoredImages
from distill.runlog import hardware, versions


def cache_of(folder: ImageFolder, out: Path, side: int, kind: str) -> EmbeddingCache:
    """Return a cache of random rows of the training split that keeps its images."""
    rng, train = np.random.default_rng(0), folder.split("train")
    names = list(train.class_names)
    texts = ImportedTexts(name="labels", classes=names, embeddings=rng.normal(size=(len(names), 8)))
    keys = [f"train/{image.key}" for image in train.images]
    rows = rng.normal(size=(len(keys), 8)).astype("float32")
    import_embeddings(out, keys=keys, embeddings=rows, texts=[texts], folder=folder)
    write_pixels(Manifest.load(out), out, folder, PixelOptions(side=side, kind=kind), Silent())
    return EmbeddingCache.open(out)


def images_per_s(pixels: Pixels, batches: list[np.ndarray]) -> float:
    """Return how many images a second come, from the first asked for to the last."""
    began, count = time.perf_counter(), 0
    for indices, _ in pixels.batches(batches):
        count += len(indices)
    return count / (time.perf_counter() - began)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("artifacts/bench_input.json"))
    args = parser.parse_args()
    side, folder = resize_size(args.image_size), ImageFolder.scan(args.data, require=("train",))
    train = ImageFolder(path=folder.path, splits={"train": folder.split("train")})
    records = train.split("train").images
    rng = np.random.default_rng(0)
    batches = [rng.integers(len(records), size=args.batch_size) for _ in range(args.batches)]
    with tempfile.TemporaryDirectory() as scratch:
        caches = {k: cache_of(train, Path(scratch) / k, side, k) for k in ("raw", "jpeg")}
        stored = {k: StoredImages.find(cache, ("train",), records, side) for k, cache in caches.items()}

        def pixels(memory: int = 0, kept: StoredImages | None = None) -> Pixels:
            return Pixels(
                records, SquashedPhoto(side), memory=memory, workers=args.workers, strict=True, stored=kept
            )

        ways = {
            "files": pixels(),
            "jpeg in the cache": pixels(kept=stored["jpeg"]),
            "raw in the cache": pixels(kept=stored["raw"]),
            "in memory": pixels(memory=2**62),
        }
        rounds: list[dict[str, float]] = [
            {name: images_per_s(way, batches) for name, way in ways.items()} for _ in range(args.rounds)
        ]
        sizes = {k: sum(s.bytes for s in c.manifest.side_shards) / len(records) for k, c in caches.items()}
    result: dict[str, Any] = {"arguments": {k: str(v) for k, v in vars(args).items()}, "rounds": rounds}
    print(f"{len(records):,} images, {side} px\n{'':20}{'images/s':>12}{'beside files':>14}")
    for name in ways:
        rate = statistics.median(r[name] for r in rounds)
        ratio = statistics.median(r[name] / r["files"] for r in rounds)
        result[name] = {"images_per_s": rate, "ratio": ratio}
        print(f"{name:20}{rate:12,.0f}{ratio:14.1f}")
    print(f"bytes an image: raw {sizes['raw']:,.0f}, jpeg {sizes['jpeg']:,.0f}")
    result["bytes_per_image"] = sizes
    write_json(args.out, {**result, "hardware": hardware(choose_device("cpu")), "versions": versions()})


if __name__ == "__main__":
    main()
