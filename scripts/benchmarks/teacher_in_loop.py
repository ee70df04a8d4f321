"""A training step with and without the teacher.

A plain supervised step, this program's whole step with the teacher's rows from the cache, and that step
with the teacher in the loop, as open_clip's --distill-model has it: at every step it embeds the student's
very batch, without gradients and in the student's precision. The batch is resident, the class texts are
embedded before; each measurement is a process of its own. A ResNet-18 at 224 px, 200 classes, losses cls,
mse, im_cst and vlalign. Memory is the most while steps were taken.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.steps import CACHED, IN_LOOP, PLAIN, STEP_OPTIONS, config_of, one_way
from benchmarks.turns import Row, alone, in_turn, median_ratios, medians, one_number, weights_of
from cache.runtime.devices import choose_device
from cache.teacher.weights import model_config

OPTIONS = {**STEP_OPTIONS, "model": "ViT-B-32-quickgelu"}
COLUMNS = {
    "teacher, precision, batch": "{}",
    PLAIN: "{:.3f} s",
    CACHED: "{:.3f} s",
    IN_LOOP: "{:.3f} s",
    "loop / cache": "{:.2f}",
    "peak memory of the three, GB": "{0[0]:.2f}, {0[1]:.2f}, {0[2]:.2f}",
}


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Let the ways take turns, each in a process of its own."""
    # What is wrong is told before anything is measured.
    args.embed_dim = model_config(args.model)["embed_dim"]
    config_of(args)
    choose_device(args.device)
    with tempfile.TemporaryDirectory() as folder:
        args.weights = weights_of(args.model, Path(folder))
        ways = {way: partial(alone, args, one_way, args, way) for way in (PLAIN, CACHED, IN_LOOP)}
        rounds = in_turn(ways, args.rounds)
    seconds = one_number(rounds, "seconds")
    row = {
        "teacher, precision, batch": f"{args.model}, {args.precision}, {args.batch_size}",
        **medians(seconds),
        "loop / cache": median_ratios(seconds, CACHED)[IN_LOOP],
        "peak memory of the three, GB": [
            value / 1e9 for value in medians(one_number(rounds, "host_bytes")).values()
        ],
    }
    return [row], rounds
