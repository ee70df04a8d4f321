"""What the benchmarks share: turns and medians, processes of their own, random caches, cut folders."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from cache.maintain.import_embeddings import import_embeddings
from cache.maintain.imported import Imported
from cache.maintain.imported_banks import ImportedTexts
from cache.runtime.devices import choose_device
from cache.runtime.errors import UserError
from cache.sources.data import open_data
from cache.sources.samples import DataFolder
from cache.sources.splits import FOLDERS
from cache.store.manifest import Manifest
from cache.teacher.open_clip_teacher import network_of
from cache.teacher.weights import model_config
from distill.record.run_log import hardware, versions

T = TypeVar("T")
Row = dict[str, Any]
PRECISIONS = ("float32", "auto", "bfloat16", "float16")


def about() -> dict[str, Any]:
    """Return the day, the hardware and the versions."""
    today = datetime.now(UTC).date().isoformat()
    return {"date": today, "hardware": hardware(choose_device("auto")), "versions": versions()}


def positive(text: str) -> int:
    """Read an argument that is a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def timed(take: Callable[[], T]) -> tuple[float, T]:
    """Return the seconds that a call took, and what it returned."""
    began = time.perf_counter()
    value = take()
    return time.perf_counter() - began, value


def in_turn(ways: Mapping[str, Callable[[], T]], rounds: int) -> list[dict[str, T]]:
    """Call every way once a round, A B C A B C, and return what they returned."""
    return [{name: take() for name, take in ways.items()} for _ in range(rounds)]


def seconds_in_turn(ways: Mapping[str, Callable[[], Any]], rounds: int) -> list[dict[str, float]]:
    """Call every way once a round, and return the seconds that each took."""
    return in_turn({name: lambda take=take: timed(take)[0] for name, take in ways.items()}, rounds)


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return every way's median over the rounds."""
    return {name: statistics.median(turn[name] for turn in rounds) for name in rounds[0]}


def median_ratios(rounds: Sequence[Mapping[str, float]], beside: str) -> dict[str, float]:
    """Return the median over the rounds of every way's number by that of ``beside`` in the same round."""
    return medians([{name: value / turn[beside] for name, value in turn.items()} for turn in rounds])


def one_number(rounds: Sequence[Mapping[str, Mapping[str, float]]], name: str) -> list[dict[str, float]]:
    """Return one of the numbers that every way gave, of every round."""
    return [{way: numbers[name] for way, numbers in turn.items()} for turn in rounds]


def alone(args: argparse.Namespace, take: Callable[..., T], *given: Any) -> T:
    """Call a function in a fresh process, or here if ``--one-process`` was given; its errors are ours."""
    if args.one_process:
        return take(*given)
    # Not a fork: memory, threads and the allocator are to be as a new process has them.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(take, *given).result()


def forget_peak() -> None:
    """Let :func:`distill.record.peak_memory.peak_resident` of this process begin anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def command_failed(name: str, status: int, output: str) -> UserError:
    """Return the error for a command that failed, with the last line of what it printed."""
    last = (output.strip().splitlines() or ["no output"])[-1]
    return UserError(f"{name} left with status {status}: {last}", fix="run that command by itself.")


def random_keys(out: Path, keys: Sequence[str], *, embed_dim: int, **options: Any) -> Manifest:
    """Write a cache of random rows for keys ``SPLIT/CLASS/FILE``, with one text a class.

    ``options`` are of :class:`cache.maintain.imported.Imported`.
    """
    rng, names = np.random.default_rng(0), sorted({key.split("/")[1] for key in keys})
    texts = ImportedTexts(name="labels", classes=names, embeddings=rng.normal(size=(len(names), embed_dim)))
    rows = rng.standard_normal((len(keys), embed_dim), dtype=np.float32)
    return import_embeddings(out, Imported(**{"keys": keys, "embeddings": rows, "texts": [texts]} | options))


def random_rows(out: Path, folder: DataFolder, *, embed_dim: int, **options: Any) -> Manifest:
    """Write a cache of random rows for every image of a folder: see :func:`random_keys`."""
    keys = [f"{name}/{image.key}" for name, split in folder.splits.items() for image in split.all()]
    return random_keys(out, keys, embed_dim=embed_dim, folder=folder, **options)


def tiny_photos(data: Path, *, classes: int, images: int) -> DataFolder:
    """Make training images of so many classes, and two OOD classes: hard links to one picture a class."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for split, names in (("train", range(classes)), ("val", range(2))):
        for name in names:
            place = data / split / f"{split}_{name:05d}"
            place.mkdir(parents=True)
            Image.fromarray(pixels).save(place / "000000.jpg")
            for i in range(1, images if split == "train" else 1):
                os.link(place / "000000.jpg", place / f"{i:06d}.jpg")
    return open_data([data])


def linked(data: Path, out: Path, images: int) -> DataFolder:
    """Link so many training images, spread over the classes, and as large a share of other splits."""
    folder = open_data([data])
    share = min(images / len(folder.split("train")), 1.0)
    for name, split in folder.splits.items():
        count = max(1, round(share * len(split)))
        for image in (split.all()[i * len(split) // count] for i in range(count)):
            link = out / FOLDERS[name] / image.key
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path(image.where).absolute())
    for texts in data.glob("*.txt"):
        (out / texts.name).symlink_to(texts.absolute())
    return open_data([out])


def weights_of(model: str, folder: Path) -> str | None:
    """Save random weights of a teacher in ``folder`` and return the file; None where it brings its own.

    Raises
    ------
    UserError
        If there is no such model.
    """
    config = model_config(model)
    if ":" in model:
        return None
    torch.manual_seed(0)
    torch.save(network_of(config).state_dict(), folder / "random.pt")
    return str(folder / "random.pt")
