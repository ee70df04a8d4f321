"""A training step with and without glibc keeping the memory that tensors free (CPU, Linux).

    python scripts/bench_allocator.py --rounds 3 -- --arch resnet18 --batch-size 128 --precision bfloat16

What follows ``--`` goes to bench_train_step.py. The setting is a process's own, so each measurement is a
process: A (plain) B (kept) A B. Prints a table of medians, writes JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cache.files import write_json

HERE = Path(__file__).parent
STEP = "whole step"


def measured(arguments: list[str], *, kept: bool) -> dict[str, Any]:
    """Return what one process of bench_train_step.py wrote."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "step.json"
        own = [] if kept else ["--plain-allocator"]
        command = [sys.executable, str(HERE / "bench_train_step.py"), *arguments, *own, "--out", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found: dict[str, Any] = json.loads(out.read_text())
    return found


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("artifacts/bench_allocator.json"))
    parser.add_argument("rest", nargs="*", help="Arguments of bench_train_step.py, after --.")
    args = parser.parse_args()
    rounds = []
    for _ in range(args.rounds):
        plain, kept = (measured(args.rest, kept=kept) for kept in (False, True))
        ratio = plain[STEP]["seconds"] / kept[STEP]["seconds"]
        rounds.append({"plain": plain, "kept": kept, "speedup": ratio})
        print(
            f"plain {plain[STEP]['seconds']:.3f} s   kept {kept[STEP]['seconds']:.3f} s   speedup {ratio:.2f}"
        )
    result = {
        "arguments": args.rest,
        "speedup_median": statistics.median(r["speedup"] for r in rounds),
        "rounds": rounds,
    }
    print(f"median speedup {result['speedup_median']:.2f}")
    for name in ("plain", "kept"):
        memory = statistics.median(r[name]["peak_memory_bytes"]["host"] for r in rounds)
        print(f"peak memory, {name}: {memory / 1e9:.2f} GB")
    write_json(args.out, result)


if __name__ == "__main__":
    main()
