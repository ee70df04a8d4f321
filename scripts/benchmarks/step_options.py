"""What each option of training costs a step.

A step of this program with nothing added, and with one option at a time, beside the plain supervised step on
the same student, as above: each a session of its own, its losses cls, mse and im_cst. Of a pool every fourth
image of the batch has no label; the bank is of all cached rows; replayed views are crops that are given, not
drawn.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.steps import (
    PLAIN,
    STEP_OPTIONS,
    Step,
    drawn_crops,
    open_resident,
    own_step,
    plain_step,
    seconds_of,
)
from benchmarks.turns import Row, in_turn, median_ratios, medians
from cache.runtime.devices import keep_freed_memory
from cache.runtime.errors import UserError

NOTHING, POOL, VIEWS = "nothing added", "a pool", "replayed views"
WAYS: dict[str, tuple[str, ...]] = {
    NOTHING: (),
    POOL: (),
    VIEWS: (),
    "centred": ("loss.center=true",),
    "bank of all rows": ("loss.im_cst_bank=-1",),
    "clipping": ("optim.clip_norm=1.0",),
    "moving average": ("optim.ema=0.99",),
    "frozen batch norm": ("student.freeze_batch_norm=true",),
    "layer decay": ("optim.layer_decay=0.8",),
    "head on all stages": ("student.head=stages",),
}
ROUNDS = 5
OPTIONS = STEP_OPTIONS | {
    "arch": "timm:tf_efficientnet_lite0",
    "image_size": 160,
    "losses": ["cls", "mse", "im_cst"],
    "ways": [*WAYS][1:],
}
COLUMNS = {
    "student": "{}",
    "step": "{}",
    "images/s": "{:.1f}",
    "time by plain": "{:.3f}",
    "by nothing added": "{:.3f}",
}


def chosen_ways(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the settings of the ways of those names, after that of nothing added; UserError for others."""
    if unknown := [name for name in names if name not in WAYS]:
        raise UserError(f"{unknown[0]!r} is no way to take a step", fix=f"give some of {', '.join(WAYS)}.")
    return {name: settings for name, settings in WAYS.items() if name in (NOTHING, *names)}


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Let the steps take turns in this process."""
    with tempfile.TemporaryDirectory() as folder:
        steps = dict[str, Step]()
        for name, settings in chosen_ways(args.ways).items():
            place = Path(folder) / name.replace(" ", "-")
            session, batch = open_resident(args, place, settings)
            if not steps:
                keep_freed_memory(session.model.device)
                steps[PLAIN] = plain_step(session, args.classes, batch)
            if name == POOL:
                labels = batch.label_B.clone()
                labels[::4] = -1
                batch = replace(batch, label_B=labels)
            crops = drawn_crops(args.batch_size) if name == VIEWS else None
            steps[name] = own_step(session, batch, place / "run", crops=crops)
        device = session.model.device
        for take in steps.values():
            seconds_of(take, device, args.warm_up)
        torch.manual_seed(0)
        rounds = in_turn(
            {n: partial(seconds_of, take, device, args.steps) for n, take in steps.items()}, args.rounds
        )
    seconds, ratios, beside = medians(rounds), median_ratios(rounds, PLAIN), median_ratios(rounds, NOTHING)
    rows: list[Row] = [
        {
            "student": args.arch,
            "step": name,
            "images/s": args.batch_size / seconds[name],
            "time by plain": ratios.get(name, 1.0),
            "by nothing added": beside.get(name, 1.0),
        }
        for name in steps
    ]
    return rows, rounds
