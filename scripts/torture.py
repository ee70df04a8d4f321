"""Faults injected on purpose, and what they cost: ``python scripts/torture.py --faults 240``.

Every fault (torture_faults.py) strikes a real command in a real process (torture_parts.py), or a finished
cache or checkpoint. Afterwards the same command must go on to the very result of an uninterrupted run; what
is damaged must be found, must never be read as a number, and must be repaired to the same bytes. A fault is
counted as

    lost     the next run fails, or its result, a file, or a row is not that of an uninterrupted run
    wrong    numbers were read that are not right, and nobody said so
    unkind   an error was a traceback or more than one line, a status was not what it should be, or a
             temporary file or a lock was left

The script prints a table, writes JSON, and leaves with status 1 if anything was lost, wrong or unkind.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from bench_parts import whole, write_result

from torture_faults import KINDS, Outcome, Place, mounted
from torture_parts import Scene

MOUNTS = ("full disk", "read-only", "lost mount")


def can_mount(folder: Path) -> bool:
    """Say whether this user may mount a file system."""
    try:
        with mounted(folder / "try", "-t", "tmpfs", "none"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def torture(root: Path, *, faults: int, seed: int, only: str = "") -> dict[str, list[Outcome]]:
    """Inject faults of every kind in turn and return what each did, by kind."""
    scene = Scene(root)
    mounts = can_mount(root)
    kinds = {
        name: kind for name, kind in KINDS.items() if only in name and (mounts or not name.startswith(MOUNTS))
    }
    found: dict[str, list[Outcome]] = {name: [] for name in kinds}
    for number in range(faults):
        name = list(kinds)[number % len(kinds)]
        folder = root / f"fault-{number:04d}"
        folder.mkdir()
        outcome = kinds[name](Place(scene, folder, random.Random(f"{seed} {number}")))
        found[name].append(outcome)
        for what in ("lost", "wrong", "unkind"):
            for said in getattr(outcome, what):
                print(f"{what}: fault {number} ({name}): {said}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
    return found


def table(found: dict[str, list[Outcome]]) -> list[dict[str, object]]:
    """Return a line a kind: how many faults, how many struck, and how many cost something."""
    return [
        {
            "kind": name,
            "faults": len(outcomes),
            "struck": sum(outcome.struck for outcome in outcomes),
            **{what: sum(bool(getattr(o, what)) for o in outcomes) for what in ("lost", "wrong", "unkind")},
        }
        for name, outcomes in found.items()
    ]


def main() -> None:
    """Read the arguments, inject the faults, print and write what they cost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--faults", type=whole(1), default=len(KINDS), help="How many; one of each kind unless given."
    )
    parser.add_argument("--seed", type=int, default=0, help="Decides where and when they strike.")
    parser.add_argument("--only", default="", help="Kinds whose name holds this.")
    parser.add_argument("--out", type=Path, default=Path("artifacts") / "torture.json")
    given = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="torture-") as root:
        rows = table(torture(Path(root), faults=given.faults, seed=given.seed, only=given.only))
    print(f"{'kind':34}{'faults':>8}{'struck':>8}{'lost':>6}{'wrong':>7}{'unkind':>8}")
    total = {name: sum(int(str(row[name])) for row in rows) for name in list(rows[0])[1:]}
    for row in (*rows, {"kind": f"all, {len(rows)} kinds", **total}):
        print(
            f"{row['kind']:34}{row['faults']:8}{row['struck']:8}{row['lost']:6}{row['wrong']:7}{row['unkind']:8}"
        )
    found = {"seconds": time.perf_counter() - began, "rows": rows, "total": total}
    write_result(given, found, torch.device("cpu"))
    sys.exit(1 if total["lost"] or total["wrong"] or total["unkind"] else 0)


if __name__ == "__main__":
    main()
