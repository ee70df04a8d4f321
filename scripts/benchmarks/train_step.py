"""A training step beside a plain supervised one.

Plain is forward, cross-entropy, backward and the optimiser's step on one resident, normalised batch; the
whole step is this program's own on one resident batch: augmentation, forward, every loss that is on,
backward, step, sums. Both channels_last, in the same precision, with the same optimiser, both through
torch.compile where `compile` is not off: 32 images of 224 px, 200 classes, D = 768, losses cls, mse, im_cst
and vlalign.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.steps import PLAIN, STEP_OPTIONS, open_resident, own_step, plain_step, seconds_of
from benchmarks.turns import Row, in_turn, median_ratios, medians
from cache.runtime.devices import keep_freed_memory

WHOLE, BARE = "whole step", "without augmentation"
ROUNDS = 5
OPTIONS = STEP_OPTIONS
COLUMNS = {
    "student": "{}",
    "precision": "{}",
    "compile": "{}",
    "plain, images/s": "{:.1f}",
    "whole step, images/s": "{:.1f}",
    "time ratio": "{:.3f}",
    "ratio without augmentation": "{:.3f}",
}


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Let the steps take turns in this process."""
    with tempfile.TemporaryDirectory() as folder:
        session, batch = open_resident(args, Path(folder))
        device = session.model.device
        keep_freed_memory(device)  # a run asks for it too
        plain = replace(session.model.augment, policy="none")
        bare = replace(session, model=replace(session.model, augment=plain))
        steps = {
            PLAIN: plain_step(session, args.classes, batch),
            WHOLE: own_step(session, batch, Path(folder) / "whole"),
            BARE: own_step(bare, batch, Path(folder) / "bare"),
        }
        for take in steps.values():
            seconds_of(take, device, args.warm_up)
        ways = {name: partial(seconds_of, take, device, args.steps) for name, take in steps.items()}
        rounds = in_turn(ways, args.rounds)
    rates = {name: args.batch_size / seconds for name, seconds in medians(rounds).items()}
    ratios = median_ratios(rounds, PLAIN)
    row = {
        "student": args.arch,
        "precision": args.precision,
        "compile": args.compile,
        "plain, images/s": rates[PLAIN],
        "whole step, images/s": rates[WHOLE],
        "time ratio": ratios[WHOLE],
        "ratio without augmentation": ratios[BARE],
    }
    return [row], rounds
