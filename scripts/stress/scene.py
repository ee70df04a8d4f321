"""What faults are injected into: photos, and finished caches and runs of them."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from stress.commands import commands_of
from stress.content import Datasets, as_read, datasets_of
from stress.processes import ranks

# Words that the small teacher knows.
TRAINED, UNSEEN = (
    ("plain red star", "plain blue circle", "striped red square"),
    ("plain green ring", "dotted blue star"),
)
CLASSES = {"train": TRAINED, "val_on_train": TRAINED, "val": UNSEEN}
IMAGES = {"train": 24, "val_on_train": 4, "val": 8}
# What the commands import: here once, and not in every fork of this process.
IMPORTED = (
    *("cache.build.from_folder", "cache.maintain.convert", "cache.maintain.import_embeddings"),
    *("distill.fewshot.run", "distill.report.page", "distill.sweep.together", "distill.sweep.watch"),
)
RANKS = "two ranks"


def draw_photos(root: Path) -> Path:
    """Draw a small image folder with texts and captions; the same every time."""
    rng = np.random.default_rng(0)
    captions = []
    for split, classes in CLASSES.items():
        for label, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for i in range(IMAGES[split]):
                pixels = rng.integers(0, 255, size=(40, 40, 3)) // (label + 2)
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{split}_{i}.png")
                captions.append({"key": f"{name}/{split}_{i}.png", "caption": f"{name}"})
    names = sorted({name for classes in CLASSES.values() for name in classes})
    (root / "label2text.txt").write_text(
        "".join(f"{n} {i} {n.replace(' ', '_')}\n" for i, n in enumerate(names, start=1))
    )
    (root / "chatgpt.txt").write_text("".join(f"{n}\tA {n} .\n" for n in names))
    (root / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in captions))
    return root


def draw_fewer(root: Path, photos: Path) -> Path:
    """Make the folder as it was: without a class and some images, with others, and with other pictures."""
    shutil.copytree(photos, root)
    for split in ("train", "val_on_train"):
        shutil.rmtree(root / split / TRAINED[2])
    for name in TRAINED[:2]:
        for i in range(0, IMAGES["train"], 3):
            (root / "train" / name / f"train_{i}.png").unlink()
        picture = (root / "train" / name / "train_1.png").read_bytes()
        (root / "train" / name / "gone.png").write_bytes(picture)
        (root / "train" / name / "train_2.png").write_bytes(picture)
    return root


class Scene:
    """Photos, finished caches and runs, made once and uninterrupted, and the commands that make such."""

    def __init__(self, root: Path) -> None:
        """Make everything below ``root``."""
        torch.set_num_threads(1)
        for module in IMPORTED:
            importlib.import_module(module)
        self.root = root
        self.photos = draw_photos(root / "photos")
        self.whole = root / "whole"
        fewer = draw_fewer(root / "fewer", self.photos)
        commands = commands_of(root, self.photos, fewer, self.whole)
        self.commands = {command.name: command for command in commands}
        self._write_sources()
        self.seconds: dict[str, float] = {}
        self.expected: dict[str, Any] = {}
        for name, command in self.commands.items():
            ended = command.run(self.whole / name, root / "logs" / f"{name}.log")
            assert ended.status == 0, f"{name} fails without any fault: {ended.output}"
            self.seconds[name] = ended.seconds
            self.expected[name] = command.result(self.whole / name)
        self._embed_in_ranks()

    def _embed_in_ranks(self) -> None:
        """Let two ranks make what one process made, row for row."""
        command, out, log = self.commands["cache-features"], self.whole / RANKS, self.root / "logs" / RANKS
        ended = [process.wait() for process in ranks(command.words(out), log, 2)]
        assert not any(one.status for one in ended), f"two ranks fail without any fault: {ended}"
        assert command.result(out) == self.expected[command.name], "two ranks do not make what one makes"
        self.seconds[RANKS] = max(one.seconds for one in ended)

    def _write_sources(self) -> None:
        rng = np.random.default_rng(1)
        keys = [f"train/{p.parent.name}/{p.name}" for p in sorted((self.photos / "train").rglob("*.png"))]
        np.save(self.root / "rows.npy", rng.normal(size=(len(keys), 512)).astype("float32"))
        np.save(self.root / "texts.npy", rng.normal(size=(3, 512)).astype("float32"))
        (self.root / "keys.txt").write_text("\n".join(keys))
        (self.root / "classes.txt").write_text("\n".join(CLASSES["train"]))
        (self.root / "sweep.toml").write_text(
            'recipe = "smoke"\nseeds = [0, 1]\n[base]\nstudent.arch = "timm:test_resnet"\n'
            'train.device = "cpu"\ndata.workers = 0\ntrain.checkpoint_steps = 1\n'
        )

    def read(self, name: str) -> tuple[dict[str, Any], Datasets]:
        """Return what is read of a finished cache, and where its numbers are."""
        datasets = datasets_of(self.whole / name)
        return as_read(self.whole / name, datasets), datasets

    def copy(self, name: str, to: Path) -> Path:
        """Return a copy of what a command made."""
        shutil.copytree(self.whole / name, to)
        return to
