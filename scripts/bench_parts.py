"""What the benchmark scripts share: their arguments, turns, medians, random rows, and what they write."""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from cache.files import write_json
from cache.images import ImageFolder, SplitImages
from cache.import_embeddings import ImportedTexts, import_embeddings
from cache.manifest import Manifest
from distill.runlog import hardware, versions

T = TypeVar("T")


def parser_of(script: str, doc: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with a script's docstring, ``--rounds`` and ``--out``."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"Turns of each; {rounds} unless given.")
    parser.add_argument("--out", type=Path, default=Path("artifacts") / f"{Path(script).stem}.json")
    return parser


def numbers(text: str) -> list[int]:
    """Return the whole numbers of an argument such as ``1000,10000``."""
    return [int(number) for number in text.split(",")]


def timed(take: Callable[[], T]) -> tuple[float, T]:
    """Return the seconds that a call took, and what it returned."""
    began = time.perf_counter()
    value = take()
    return time.perf_counter() - began, value


def in_turn(ways: Mapping[str, Callable[[], T]], rounds: int) -> list[dict[str, T]]:
    """Call every way once a round, A B C A B C, and return what they returned."""
    return [{name: take() for name, take in ways.items()} for _ in range(rounds)]


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return every way's median over the rounds."""
    return {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}


def median_ratios(rounds: Sequence[Mapping[str, float]], beside: str) -> dict[str, float]:
    """Return the median over the rounds of every way's number by that of ``beside`` in the same round."""
    return medians([{name: value / r[beside] for name, value in r.items()} for r in rounds])


def write_result(args: argparse.Namespace, result: Mapping[str, Any], device: torch.device) -> None:
    """Write a script's JSON: its arguments, its result, the day, the hardware and the versions."""
    about = {
        "arguments": {name: str(value) for name, value in vars(args).items()},
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(device),
        "versions": versions(),
    }
    write_json(args.out, {**about, **result})


def fresh(script: Path, arguments: Sequence[object]) -> dict[str, Any]:
    """Run a script in a process of its own and return the JSON that it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, str(script), *map(str, arguments), "--out", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found: dict[str, Any] = json.loads(out.read_text())
    return found


def forget_peak() -> None:
    """Let :func:`distill.runlog.peak_resident` of this process begin anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def random_rows(out: Path, folder: ImageFolder, *, embed_dim: int, **options: Any) -> Manifest:
    """Write a cache of random rows for every image of a folder, with one text a class.

    ``options`` go to :func:`cache.import_embeddings.import_embeddings`.
    """
    rng, names = np.random.default_rng(0), list(folder.class_names)
    keys = [f"{name}/{image.key}" for name, split in folder.splits.items() for image in split.images]
    texts = ImportedTexts(name="labels", classes=names, embeddings=rng.normal(size=(len(names), embed_dim)))
    rows = rng.standard_normal((len(keys), embed_dim), dtype=np.float32)
    return import_embeddings(out, keys=keys, embeddings=rows, texts=[texts], folder=folder, **options)


def first_images(folder: ImageFolder, count: int) -> ImageFolder:
    """Return a folder cut to ``count`` training images, spread over the classes; other splits alike."""
    share = min(count / len(folder.split("train").images), 1.0)
    return ImageFolder(path=folder.path, splits={k: _cut(v, share) for k, v in folder.splits.items()})


def training_images(folder: ImageFolder) -> ImageFolder:
    """Return a folder without its other splits."""
    return ImageFolder(path=folder.path, splits={"train": folder.split("train")})


def _cut(split: SplitImages, share: float) -> SplitImages:
    count = max(1, round(share * len(split.images)))
    chosen = [split.images[i * len(split.images) // count] for i in range(count)]
    return SplitImages(name=split.name, class_names=split.class_names, images=tuple(chosen))


def weights_of(model: str, folder: Path) -> Path | None:
    """Save random weights of a teacher in ``folder`` and return the file; None where it brings its own."""
    if ":" in model:
        return None
    import cache.vision  # noqa: F401  # isort: skip
    import open_clip

    logging.getLogger().setLevel(logging.ERROR)  # it warns that the weights are random
    path = folder / f"{model}-random.pt"
    torch.manual_seed(0)
    torch.save(open_clip.create_model(model).state_dict(), path)
    return path
