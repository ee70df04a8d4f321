"""Two processes beside one, by the commands themselves under torchrun: NCCL joins GPUs, gloo processors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.turns import Row, command_failed
from cache import EmbeddingCache
from cache.build.from_folder import FeatureOptions, cache_features
from distill.demo.scenes import draw_dataset
from distill.settings import load_recipe, with_settings
from distill.train.start import train
from gpu.work import DEMO_TEACHER, Work

ROOT = Path(__file__).parents[2]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python")
# The same steps in another order of sums, in TF32 on GPUs.
MOST_APART = 0.05


def two_processes(work: Work) -> None:
    """Run stage 1 and a training in one process and in two, and say how far apart they are."""
    if work.on_gpu and torch.cuda.device_count() < 2:
        work.keep([{"skipped": True, "said": "one GPU is here, and two processes by NCCL want one each"}])
        return
    root, size = work.folder("several"), 1 if work.small else 100
    draw_dataset(root / "data", train_per_class=size, id_test_per_class=1, ood_test_per_class=1)
    rows: list[Row] = [_stage_1(work, root)]
    work.keep(rows)
    work.keep([*rows, *_training(work, root)])


def _stage_1(work: Work, root: Path) -> Row:
    model, device = f"local-dir:{DEMO_TEACHER}", work.device.type
    cache_features(root / "data", root / "one", FeatureOptions(model=model, device=device))
    _by_two("cache-features", root / "data", "--out", root / "two", "--model", model, "--device", device)
    first, second = (EmbeddingCache.open(root / name).split("train") for name in ("one", "two"))
    place = {key: row for row, key in enumerate(second.keys)}
    order = [place[key] for key in first.keys]
    away = float(np.abs(np.asarray(first.embeddings[:]) - np.asarray(second.embeddings[:])[order]).max())
    said = "the same rows" if away == 0 else f"rows {away:.1e} apart at most"
    return {"what": f"stage 1, {len(order)} images by two processes", "said": f"{said}; {_joined(work)}"}


def _training(work: Work, root: Path) -> list[Row]:
    size = {"image_size": 32, "batch": 20} if work.small else {"image_size": 224, "batch": 256}
    settings = [f"student.image_size={size['image_size']}", f"train.batch_size={size['batch']}"]
    settings += [f"train.device={work.device.type}", "train.epochs=2"]
    config = with_settings(load_recipe("smoke"), settings)
    train(config, cache_dir=root / "one", data_dir=root / "data", out=root / "run-one")
    chosen = [word for setting in settings for word in ("--set", setting)]
    _by_two("train", root / "one", "--out", root / "run-two", "--recipe", "smoke", *chosen)
    one, two = (_last_line(root / name / "metrics.jsonl") for name in ("run-one", "run-two"))
    losses = [name for name in one if name.startswith("loss_")]
    apart = max(abs(two[name] - one[name]) / max(abs(one[name]), 1e-9) for name in losses)
    about = f"resnet18, {size['image_size']} px, batch {size['batch']}"
    return [
        {"what": f"training by one process: {about}", "images/s": one["images_per_s"], "time ratio": 1.0},
        {
            "what": f"by two: {about}",
            "images/s": two["images_per_s"],
            "time ratio": one["images_per_s"] / two["images_per_s"],
            "said": f"losses after two epochs {apart:.1e} apart; {_joined(work)}",
            **work.goal(apart, most=MOST_APART, of=" apart"),
        },
    ]


def _joined(work: Work) -> str:
    return "NCCL" if work.on_gpu else "gloo"


def _by_two(*words: object) -> None:
    """Run a command of ``distill`` in two processes."""
    command = [sys.executable, *TORCHRUN, sys.executable, "-P", "-m", "cli", *map(str, words)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    if ended.returncode:
        print(ended.stdout, ended.stderr)
        raise command_failed(f"distill {words[0]}", ended.returncode, ended.stderr)


def _last_line(path: Path) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(path.read_text().splitlines()[-1])
    return line
