"""A training step with and without glibc keeping the memory that tensors free (CPU, Linux).

    python scripts/bench_allocator.py --rounds 3 -- --arch resnet18 --batch-size 128 --precision bfloat16

What follows ``--`` goes to bench_train_step.py. The setting is a process's own, so each measurement is a
process: A (plain) B (kept) A B. Prints a table of medians, writes JSON.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import torch

from bench_parts import fresh, in_turn, parser_of, run, write_result

TRAIN_STEP = Path(__file__).parent / "bench_train_step.py"
STEP = "whole step"


def main() -> None:
    """Parse, measure, print."""
    parser = parser_of(__file__, __doc__, rounds=3)
    parser.add_argument("rest", nargs="*", help="Arguments of bench_train_step.py, after --.")
    args = parser.parse_args()
    ways = {
        "plain": lambda: fresh(TRAIN_STEP, [*args.rest, "--plain-allocator"]),
        "kept": lambda: fresh(TRAIN_STEP, args.rest),
    }
    rounds = in_turn(ways, args.rounds)
    speedup = statistics.median(r["plain"][STEP]["seconds"] / r["kept"][STEP]["seconds"] for r in rounds)
    print(f"{'':8}{'step, s':>12}{'peak memory, GB':>18}")
    for name in ways:
        seconds = statistics.median(r[name][STEP]["seconds"] for r in rounds)
        memory = statistics.median(r[name]["peak_memory_bytes"]["host"] for r in rounds)
        print(f"{name:8}{seconds:12.3f}{memory / 1e9:18.2f}")
    print(f"median speedup {speedup:.2f}")
    write_result(args, {"speedup_median": speedup, "rounds": rounds}, torch.device("cpu"))


if __name__ == "__main__":
    run(main)
