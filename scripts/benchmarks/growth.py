"""A cache whose photos change.

A folder of photos (--photos, else drawn) is begun with a part of them, and changed ten times (--changes);
after each change the same `distill cache-features` goes over it, with the small teacher of the demo. "New
rows" are those that the teacher made, "expected" the images that were not there before. The cache is compared
with one that is made afresh of the same folder: the rows' greatest difference, and what `distill train` makes
of both with one seed (by drawn.toml at a constant rate). Macro accuracies in percent; the cosine is that of
student and teacher on OOD images. The demo's teacher knows drawn shapes: on photos its accuracy means
nothing, being the same does.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from benchmarks.turns import Row, command_failed, timed
from cache import EmbeddingCache
from cache.sources.folder_walk import is_picture_name
from cache.sources.splits import FOLDERS

DEMO = Path(__file__).parents[2] / "distill" / "demo"
RECIPE = Path(__file__).with_name("drawn.toml")
SAID = "data changed: "
ROUNDS = 1
OPTIONS = {"photos": "", "epochs": 4, "changes": 10}
COLUMNS = {
    "change": "{}",
    "images": "{:,}",
    "rows": "{:,}",
    "new rows": "{:,}",
    "expected": "{:,}",
    "said": "{}",
    "time": "{:.1f} s",
    "afresh": "{:.1f} s",
    "rows differ by": "{:.0e}",
    **dict.fromkeys(("ID, OOD", "afresh, ID, OOD"), "{}"),
    **dict.fromkeys(("cosine", "afresh, cosine"), "{:.4f}"),
}


@dataclass
class Photos:
    """A folder ``data`` that is changed, and ``aside``, where what is not in it lies."""

    data: Path
    aside: Path
    classes: list[str] = field(default_factory=list)  # of training
    texts: dict[str, str] = field(default_factory=dict)

    def images(self, split: str = "*", name: str = "*") -> list[Path]:
        """Return the images of a split's folder and a class, sorted."""
        return sorted(path for path in self.data.glob(f"{split}/{name}/*") if is_picture_name(path.name))

    def move(self, paths: list[Path], from_: Path, to: Path) -> int:
        """Move files, which keep their time; folders that are left empty go. Return how many."""
        for path in paths:
            place = to / path.relative_to(from_)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.rename(place)
            for folder in (path.parent, path.parent.parent):
                if not any(folder.iterdir()):
                    folder.rmdir()
        return len(paths)

    def take(self, paths: list[Path], name: str) -> None:
        """Move images out of the folder, to be put back by that name."""
        self.move(paths, self.data, self.aside / name)

    def put(self, name: str) -> int:
        """Move images back into the folder, and return how many."""
        there = self.aside / name
        return self.move(sorted(path for path in there.rglob("*") if path.is_file()), there, self.data)

    def write_texts(self) -> None:
        """Write label2text.txt anew."""
        lines = [f"{name} {i} {text}\n" for i, (name, text) in enumerate(sorted(self.texts.items()), start=1)]
        (self.data / "label2text.txt").write_text("".join(lines))


def begin(source: Path, photos: Photos) -> None:
    """Copy the photos, and put aside what is to come: a fifth of some classes, other classes, a split."""
    for path in sorted(source.glob("*/*/*")):
        if path.parent.parent.name in FOLDERS.values() and is_picture_name(path.name):
            place = photos.data / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    names = sorted({path.parent.name for path in photos.images()})
    photos.texts = {name: name.replace("-", " ").replace("_", " ") for name in names}
    photos.classes = sorted({path.parent.name for path in photos.images("train")})
    photos.take(photos.images("val_on_train"), "split")
    later = max(1, len(photos.classes) // 10)
    for name in photos.classes[:later]:
        photos.take(photos.images("train", name), "classes")
    for name in photos.classes[later:]:
        photos.take(photos.images("train", name)[4::5], "images")
    photos.write_texts()


def remove_images(photos: Photos) -> int:
    """Remove a tenth of the training images for ever."""
    photos.take(photos.images("train")[3::10], "removed")
    return 0


def replace_images(photos: Photos) -> int:
    """Put a mirrored picture in the place of one in fifteen training images."""
    chosen = photos.images("train")[7::15]
    for path in chosen:
        with Image.open(path) as image:
            ImageOps.mirror(image.convert("RGB")).save(path)
    return len(chosen)


def lose_half(photos: Photos) -> int:
    """Let every second training image go."""
    photos.take(photos.images("train")[::2], "half")
    return 0


def regain_half(photos: Photos) -> int:
    """Bring them back as they were."""
    photos.put("half")
    return 0


def rename_texts(photos: Photos) -> int:
    """Give a third of the classes another name in label2text.txt."""
    for name in photos.classes[::3]:
        photos.texts[name] += " of the shop"
    photos.write_texts()
    return 0


def rename_folder(photos: Photos) -> int:
    """Rename a class's folder in every split: its images have other keys then, and are new."""
    old, count = photos.classes[-1], 0
    new = f"{old}-renamed"
    for folder in sorted(photos.data.glob(f"*/{old}")):
        count += len(list(folder.iterdir()))
        folder.rename(folder.with_name(new))
    photos.texts[new] = photos.texts.pop(old)
    photos.write_texts()
    return count


CHANGES: dict[str, Callable[[Photos], int]] = {
    "the beginning": lambda photos: len(photos.images()),
    "images added": lambda photos: photos.put("images"),
    "classes added": lambda photos: photos.put("classes"),
    "images removed": remove_images,
    "images replaced": replace_images,
    "half of train gone": lose_half,
    "the half back again": regain_half,
    "classes renamed in label2text": rename_texts,
    "a split added": lambda photos: photos.put("split"),
    "a class folder renamed": rename_folder,
    "nothing": lambda photos: 0,
}


def distill(name: str, *words: object) -> tuple[dict[str, Any], list[str]]:
    """Run a command, and return its summary and the lines that it said beside it."""
    command = [sys.executable, "-P", "-m", "cli", *map(str, words), "--device", "cpu", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise command_failed(name, ended.returncode, ended.stderr)
    return json.loads(ended.stdout), ended.stderr.splitlines()


def embed(data: Path, out: Path) -> tuple[dict[str, Any], list[str]]:
    """Make, or grow, the cache of a folder."""
    teacher = ["--model", f"local-dir:{DEMO / 'teacher'}", "--workers", 1, "--dtype", "float32"]
    return distill("cache-features", "cache-features", data, "--out", out, *teacher)


def learn(cache: Path, data: Path, out: Path, epochs: int) -> tuple[str, float]:
    """Train a student; return its ID and OOD accuracies, and its cosine with the teacher on OOD images."""
    words = [
        "--recipe",
        Path(__file__).with_name("drawn.toml"),
        "--losses",
        "cls,mse,vlalign",
        "--epochs",
        epochs,
    ]
    words += ["--set", "optim.schedule=constant", "--set", "data.workers=0"]
    summary, _ = distill("train", "train", cache, "--data", data, "--out", out, *words)
    shutil.rmtree(out)
    accuracies = [
        f"{summary[name]:.1f}" for name in ("id_test_accuracy", "ood_test_accuracy") if name in summary
    ]
    return ", ".join(accuracies), summary["space"]["ood_test"]["cosine"]


def furthest(grown: Path, fresh: Path) -> float:
    """Return the greatest difference of two caches' unit rows, of the same keys with the same labels."""
    one, other = EmbeddingCache.open(grown), EmbeddingCache.open(fresh)
    assert set(one.split_names) == set(other.split_names)
    most = 0.0
    for name in other.split_names:
        mine, theirs = one.split(name), other.split(name)
        assert list(mine.keys) == list(theirs.keys), f"the keys of {name} differ"
        assert mine.class_names == theirs.class_names
        assert np.array_equal(mine.labels, theirs.labels), f"the labels of {name} differ"
        rows = [np.asarray(split.embeddings, dtype=np.float64) for split in (mine, theirs)]
        units = [row / np.linalg.norm(row, axis=1, keepdims=True) for row in rows]
        most = max(most, float(np.abs(units[0] - units[1]).max()))
    return most


def line_said(lines: list[str]) -> str:
    """Return what the command said of the changes; nothing where it said nothing."""
    return next((line.removeprefix(SAID) for line in lines if line.startswith(SAID)), "")


def step(name: str, photos: Photos, root: Path, epochs: int) -> Row:
    """Make one change, let the same command go over the folder, and compare with a fresh cache."""
    expected, grown, fresh = CHANGES[name](photos), root / "grown", root / "fresh"
    seconds, (summary, lines) = timed(lambda: embed(photos.data, grown))
    afresh, _ = timed(lambda: embed(photos.data, fresh))
    ours, theirs = (learn(cache, photos.data, root / "run", epochs) for cache in (grown, fresh))
    row: Row = {
        "change": name,
        "images": len(photos.images()),
        "rows": summary["rows"],
        "new rows": summary["new_rows"],
        "expected": expected,
        "said": line_said(lines).replace("|", "/"),
        "time": seconds,
        "afresh": afresh,
        "rows differ by": furthest(grown, fresh),
        "ID, OOD": ours[0],
        "cosine": ours[1],
        "afresh, ID, OOD": theirs[0],
        "afresh, cosine": theirs[1],
    }
    shutil.rmtree(fresh)
    return row


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Make the changes one after the other."""
    with tempfile.TemporaryDirectory(prefix="growth-") as scratch:
        root = Path(scratch)
        source = Path(args.photos)
        if not args.photos:
            from distill.demo.scenes import draw_dataset

            source = root / "drawn"
            draw_dataset(source)
        photos = Photos(data=root / "data", aside=root / "aside")
        begin(source, photos)
        rows = []
        for name in list(CHANGES)[: 1 + args.changes]:
            rows.append(step(name, photos, root, args.epochs))
            print(rows[-1], file=sys.stderr)
    return rows, []
