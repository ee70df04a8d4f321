"""Memory that is kept instead of handed back.

The whole training step in fresh processes in turn, with glibc's malloc as it is and told to keep what
tensors free, as every run on the CPU tells it.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from benchmarks.steps import CACHED, STEP_OPTIONS, config_of, one_way
from benchmarks.turns import Row, alone, in_turn, median_ratios, medians, one_number

OPTIONS = STEP_OPTIONS
COLUMNS = {
    "step": "{}",
    "plain": "{:.2f} s",
    "kept": "{:.2f} s",
    "speedup": "{:.2f}",
    "peak memory, plain and kept, GB": "{0[0]:.2f}, {0[1]:.2f}",
}


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Let both take turns, each in a process of its own: the setting is a process's."""
    config_of(args)
    ways = {name: partial(alone, args, one_way, args, CACHED, name == "kept") for name in ("plain", "kept")}
    rounds = in_turn(ways, args.rounds)
    seconds, memory = one_number(rounds, "seconds"), medians(one_number(rounds, "host_bytes"))
    row = {
        "step": f"{args.arch}, batch {args.batch_size}, {args.precision}",
        **medians(seconds),
        "speedup": median_ratios(seconds, "kept")["plain"],
        "peak memory, plain and kept, GB": [memory["plain"] / 1e9, memory["kept"] / 1e9],
    }
    return [row], rounds
