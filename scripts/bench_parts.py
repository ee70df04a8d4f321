"""What the benchmark scripts share: arguments, errors, turns, medians, random rows, and what they write."""

from __future__ import annotations

import argparse
import json
import logging
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch

from cache.maintain.import_embeddings import ImportedTexts, import_embeddings
from cache.runtime.atomic_files import write_json
from cache.runtime.errors import UserError
from cache.sources.image_folder import ImageFolder, SplitImages
from cache.store.manifest import Manifest
from cache.teacher.weights import model_config
from distill.record.run_log import hardware, versions

T = TypeVar("T")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def run(main: Callable[[], None]) -> None:
    """Call a script's ``main``; what a person gave wrongly is told in one line, as ``distill`` does."""
    try:
        main()
    except UserError as error:
        leave(f"Error: {error}", error.status)


def leave(message: str, status: int) -> NoReturn:
    """Say what is wrong and leave with a status."""
    print(message, file=sys.stderr)
    sys.exit(status)


def leave_as(name: str, status: int, said: str) -> NoReturn:
    """Leave as a process did that failed: with its status, and the last line that it said."""
    last = (said.strip().splitlines() or ["it said nothing"])[-1]
    by_itself = last.startswith("Error: ") or ": error: " in last  # its own line, or argparse's
    leave(last if by_itself else f"Error: {name} ended with status {status}: {last}", max(status, 1))


def parser_of(script: str, doc: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with a script's docstring, ``--rounds`` and ``--out``."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    help = f"Turns of each; {rounds} unless given."
    parser.add_argument("--rounds", type=whole(1), default=rounds, help=help)
    parser.add_argument("--out", type=new_file, default=Path("artifacts") / f"{Path(script).stem}.json")
    return parser


def whole(least: int) -> Callable[[str], int]:
    """Return what reads an argument that is a whole number of at least ``least``."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return read


def above_zero(most: float) -> Callable[[str], float]:
    """Return what reads an argument that is a number above 0 and at most ``most``."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and at most {most:g}")
        return value

    return read


def one_of(*choices: str) -> Callable[[str], str]:
    """Return what reads an argument that is one of some words."""

    def read(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(choices)}")
        return text

    return read


def listed(read: Callable[[str], T]) -> Callable[[str], list[T]]:
    """Return what reads an argument such as ``1000,10000``, each part by ``read``."""
    return lambda text: [read(part) for part in text.split(",")]


def new_file(text: str) -> Path:
    """Return the path of a file to be written."""
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder, a file is expected")
    return Path(text)


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
    """Run a script in a process of its own and return the JSON that it wrote. Where it fails, so do we."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, str(script), *map(str, arguments), "--out", str(out)]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            leave_as(script.name, done.returncode, done.stderr)
        found: dict[str, Any] = json.loads(out.read_text())
    return found


def forget_peak() -> None:
    """Let :func:`distill.record.peak_memory.peak_resident` of this process begin anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def random_rows(out: Path, folder: ImageFolder, *, embed_dim: int, **options: Any) -> Manifest:
    """Write a cache of random rows for every image of a folder, with one text a class.

    ``options`` go to :func:`cache.maintain.import_embeddings.import_embeddings`.
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
    """Save random weights of a teacher in ``folder`` and return the file; None where it brings its own.

    Raises
    ------
    UserError
        If there is no such model.
    """
    model_config(model)
    if ":" in model:
        return None
    import cache.runtime.torchvision_compat  # noqa: F401  # isort: skip
    import open_clip

    logging.getLogger().setLevel(logging.ERROR)  # it warns that the weights are random
    path = folder / "random.pt"
    torch.manual_seed(0)
    torch.save(open_clip.create_model(model).state_dict(), path)
    return path
