"""Faults injected on purpose, and what they cost.

Every fault strikes a real command in a real process, or a finished cache or checkpoint. Afterwards the same
command must go on to the very result of an uninterrupted run; what is corrupt must be noticed, must never be
read as a number, and must be repaired to the same bytes. A fault is counted as

    lost     the next run fails, or its result, a file, or a row is not that of an uninterrupted run
    wrong    numbers were read that are not right, and nothing told of it
    unkind   an error was a traceback or more than one line, a status was not what it should be, or a
             temporary file or a lock was left

It prints a table, writes JSON, and leaves with status 1 if anything was lost, wrong or unkind.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.turns import Row, about
from cache.runtime.atomic_files import write_json
from stress.cluster_faults import has_ray, killed_rebuild, lost_rank, lost_ray_worker, no_locks
from stress.faults import Fault, Outcome, Place
from stress.file_faults import (
    broken_index,
    broken_journal,
    corrupted_cache,
    corrupted_checkpoint,
    cut_short,
    exchange,
    flip_bytes,
    remove_file,
    stale_lock,
    zero_block,
)
from stress.process_faults import (
    asked_to_stop,
    broken_teacher,
    exploding_loss,
    few_handles,
    full_disk,
    killed,
    lost_mount,
    mounted,
    read_only,
    small_files,
    two_writers,
)
from stress.scene import Scene

KILLED = (
    *("cache-features", "grow", "compact", "tars", "import", "convert"),
    *("train", "fewshot-finetune", "fewshot-retrieval", "sweep", "report"),
)
FAULTS: dict[str, Fault] = {
    **{f"SIGKILL {name}": killed(name) for name in KILLED},
    **{
        f"SIGTERM {name}": asked_to_stop(name, signal.SIGTERM, 143)
        for name in ("cache-features", "grow", "tars", "train", "convert")
    },
    **{f"Ctrl-C {name}": asked_to_stop(name, signal.SIGINT, 130) for name in ("cache-features", "sweep")},
    **{
        f"full disk, {name}": full_disk(name)
        for name in ("cache-features", "grow", "compact", "train", "convert")
    },
    "read-only folder": read_only,
    **{f"lost mount, {name}": lost_mount(name) for name in ("cache-features", "train")},
    "few file handles": few_handles,
    "limit of file sizes": small_files,
    "two writers": two_writers,
    "stale lock": stale_lock,
    "no locks": no_locks,
    "SIGKILL a rank of two": lost_rank,
    "SIGKILL a worker of Ray": lost_ray_worker,
    "SIGKILL rebuild": killed_rebuild,
    "broken journal": broken_journal,
    "broken index": broken_index,
    "flipped bytes, HDF5 cache": corrupted_cache("cache-features", flip_bytes),
    "flipped bytes, WebDataset cache": corrupted_cache("convert", flip_bytes),
    "zeroed block in a cache": corrupted_cache("cache-features", zero_block),
    "file of a cache cut short": corrupted_cache("cache-features", cut_short),
    "file of a cache removed": corrupted_cache("convert", remove_file),
    "files of a cache exchanged": corrupted_cache("cache-features", exchange),
    "corrupted checkpoint": corrupted_checkpoint,
    "broken teacher": broken_teacher,
    "exploding loss": exploding_loss,
}
MOUNTS = ("full disk", "read-only", "lost mount")
COSTS = ("lost", "wrong", "unkind")
# --only: those whose name holds this; the seed decides where and when they strike.
OPTIONS = {"faults": len(FAULTS), "seed": 0, "only": "", "json": Path("artifacts") / "torture.json"}


def can_mount(folder: Path) -> bool:
    """Return whether this user may mount a file system."""
    try:
        with mounted(folder / "try", "-t", "tmpfs", "none"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def torture(root: Path, *, faults: int, seed: int, only: str = "") -> dict[str, list[Outcome]]:
    """Inject the faults in turn and return what each did, by its name."""
    scene, mounts = Scene(root), can_mount(root)
    chosen = {
        name: strike
        for name, strike in FAULTS.items()
        if only in name and (mounts or not name.startswith(MOUNTS)) and (has_ray() or "Ray" not in name)
    }
    outcomes: dict[str, list[Outcome]] = {name: [] for name in chosen}
    for number in range(faults):
        name = list(chosen)[number % len(chosen)]
        folder = root / f"fault-{number:04d}"
        folder.mkdir()
        outcome = chosen[name](Place(scene, folder, random.Random(f"{seed} {number}")))
        outcomes[name].append(outcome)
        for cost in COSTS:
            for text in getattr(outcome, cost):
                print(f"{cost}: fault {number} ({name}): {text}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
    return outcomes


def table(outcomes: dict[str, list[Outcome]]) -> list[Row]:
    """Return a line a fault, and one for all: how many, how many struck, and how many cost something."""
    rows: list[Row] = [
        {
            "fault": name,
            "faults": len(own),
            "struck": sum(outcome.struck for outcome in own),
            **{cost: sum(bool(getattr(outcome, cost)) for outcome in own) for cost in COSTS},
        }
        for name, own in outcomes.items()
    ]
    numbers = [name for name in rows[0] if name != "fault"]
    return [*rows, {"fault": "all", **{name: sum(row[name] for row in rows) for name in numbers}}]


def run(args: argparse.Namespace) -> int:
    """Inject the faults, print and write what they cost; return the status to leave with."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="torture-") as root:
        rows = table(torture(Path(root), faults=args.faults, seed=args.seed, only=args.only))
    print(f"{'fault':34}" + "".join(f"{name:>8}" for name in list(rows[0])[1:]))
    for row in rows:
        print(f"{row['fault']:34}" + "".join(f"{value:8}" for value in list(row.values())[1:]))
    seconds = time.perf_counter() - began
    write_json(args.json, {**about(), "seconds": seconds, "rows": rows[:-1], "total": rows[-1]})
    return int(any(rows[-1][cost] for cost in COSTS))
