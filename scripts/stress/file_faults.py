"""Faults in finished files: bytes that change, files that are cut, lost or exchanged, locks of the dead."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cache.maintain.repair import repair_cache
from cache.maintain.verify import verify_cache
from cache.runtime.errors import UserError
from cache.runtime.locks import only_writer
from cache.store.journal import FOLDER as JOURNAL
from cache.store.key_index import FOLDER as INDEX
from cache.store.manifest import NAME as MANIFEST
from distill.checkpoint import read_checkpoint
from stress.content import Datasets, as_read
from stress.faults import Fault, Outcome, Place, expect_one_line, expect_same

Corrupt = Callable[[Path, Path, random.Random], None]


def stale_lock(place: Place) -> Outcome:
    """A lock file of a process that is gone; and one that still holds it, which readers do not mind."""
    command, out, outcome = place.scene.commands["cache-features"], place.folder / "out", Outcome()
    place.scene.copy("cache-features", out)
    (out / ".lock").write_text('{"process": 1, "host": "gone", "command": "x", "since": "y"}')
    with only_writer(out):
        as_read(out, place.scene.read("cache-features")[1])
    (out / ".lock").write_text("nonsense")
    expect_same(place, command, out, outcome)
    return outcome


def one_file(cache: Path, rng: random.Random, *, derived: bool) -> Path:
    """Return a file of a cache; without ``derived`` none that is made anew whenever it is missing."""
    files = sorted(path for path in cache.rglob("*") if path.is_file())
    return rng.choice([path for path in files if derived or not is_derived(path)])


def is_derived(path: Path) -> bool:
    """Say whether a file of a cache says nothing that its other files do not say."""
    return path.parent.name == INDEX


def corrupted_cache(name: str, corrupt: Corrupt) -> Fault:
    """Wrong bytes in one file of a cache: verify finds them, no reader takes them for a number.

    Repair takes it out, and the command that made the cache redoes it.
    """

    def strike(place: Place) -> Outcome:
        expected, datasets = place.scene.read(name)
        outcome, cache = Outcome(), place.scene.copy(name, place.folder / "cache")
        wrong = one_file(cache, place.rng, derived=corrupt is not remove_file)
        corrupt(wrong, cache, place.rng)
        where = str(wrong.relative_to(cache))
        if not is_derived(wrong) and not problems_of(cache):
            outcome.wrong.append(f"verify does not see it: {where}")
        outcome.wrong += [
            f"{part} was read wrong: {where}" for part in read_wrong(cache, expected, datasets, outcome)
        ]
        mend(cache, place, name, outcome, where)
        return outcome

    return strike


def problems_of(cache: Path) -> list[str]:
    """Return the files that verify finds wrong."""
    try:
        return [check.file for check in verify_cache(cache) if check.problem]
    except UserError as error:
        return [str(error)]


def read_wrong(cache: Path, expected: dict[str, Any], datasets: Datasets, outcome: Outcome) -> list[str]:
    """Return what is read and is not what was written; a reader may refuse a file in one line."""
    try:
        read = as_read(cache, datasets)
    except UserError as error:
        if "\n" in str(error):
            outcome.unkind.append(str(error))
        return []
    return [part for part, numbers in expected.items() if not np.array_equal(read.get(part), numbers)]


def mend(cache: Path, place: Place, name: str, outcome: Outcome, where: str) -> None:
    """Repair a cache, let the command that made it redo what was taken out, and compare."""
    command = place.scene.commands[name]
    try:
        repair_cache(cache)
    except UserError as error:
        if where != MANIFEST:
            outcome.lost.append(f"{where} is not repaired: {error}")
            return
        # Nothing else says what a cache is of: a person brings it back, and until then nothing is written.
        expect_one_line(command.run(cache, place.folder / "refused.log"), 1, outcome)
        shutil.copyfile(place.scene.whole / name / MANIFEST, cache / MANIFEST)
    expect_same(place, command, cache, outcome)
    if problems := problems_of(cache):
        outcome.lost.append(f"{where}: mended, and still wrong: {problems[:3]}")


def broken_journal(place: Place) -> Outcome:
    """A journal whose last line is cut, or with a damaged one: that is seen, and nothing is read wrong."""
    expected, datasets = place.scene.read("cache-features")
    outcome, cache = Outcome(), place.scene.copy("cache-features", place.folder / "cache")
    path = cache / JOURNAL / "main.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    at = place.rng.choice([len(lines) - 1, place.rng.randrange(len(lines))])
    lines[at] = lines[at][: place.rng.randrange(1, len(lines[at]))] + (b"" if at == len(lines) - 1 else b"\n")
    path.write_bytes(b"".join(lines))
    where = f"line {at + 1} of {len(lines)} of the journal"
    if not problems_of(cache):
        outcome.wrong.append(f"verify does not see it: {where}")
    outcome.wrong += [
        f"{part} was read wrong: {where}" for part in read_wrong(cache, expected, datasets, outcome)
    ]
    mend(cache, place, "cache-features", outcome, where)
    return outcome


def broken_index(place: Place) -> Outcome:
    """An index that is gone, of an earlier time, or damaged: rows are read as they are, and it comes back."""
    expected, datasets = place.scene.read("grow")
    outcome, cache = Outcome(), place.scene.copy("grow", place.folder / "cache")
    path = place.rng.choice(sorted((cache / INDEX).iterdir()))
    earlier = place.scene.whole / "fewer photos" / INDEX / path.name
    ways = ["gone", "damaged", *(["earlier"] if earlier.exists() else [])]
    way = place.rng.choice(ways)
    if way == "gone":
        path.unlink()
    elif way == "earlier":
        shutil.copyfile(earlier, path)
    else:
        place.rng.choice([flip_bytes, cut_short, zero_block])(path, cache, place.rng)
    where = f"{path.name}, {way}"
    wrong = read_wrong(cache, expected, datasets, outcome)
    outcome.wrong += [f"{part} was read wrong: {where}" for part in wrong]
    expect_same(place, place.scene.commands["grow"], cache, outcome)
    if problems := problems_of(cache):
        outcome.lost.append(f"{where}: still wrong after the command: {problems[:3]}")
    return outcome


def flip_bytes(path: Path, cache: Path, rng: random.Random) -> None:
    """Change one to four bytes anywhere."""
    raw = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 4)):
        raw[rng.randrange(len(raw))] ^= rng.randrange(1, 256)
    path.write_bytes(raw)


def cut_short(path: Path, cache: Path, rng: random.Random) -> None:
    """Cut a file at a random place."""
    os.truncate(path, rng.randrange(path.stat().st_size))


def remove_file(path: Path, cache: Path, rng: random.Random) -> None:
    """Remove a file."""
    path.unlink()


def exchange(path: Path, cache: Path, rng: random.Random) -> None:
    """Put another file of the cache in its place, as a copy gone wrong does."""
    others = [
        p
        for p in sorted(cache.rglob("*"))
        if p.is_file() and p != path and p.read_bytes() != path.read_bytes()
    ]
    shutil.copyfile(rng.choice(others), path)


def zero_block(path: Path, cache: Path, rng: random.Random) -> None:
    """Write zeros over a block, as a disk that lost one does."""
    raw = bytearray(path.read_bytes())
    start = rng.randrange(len(raw))
    block = raw[start : start + 512]
    raw[start : start + 512] = bytes(len(block)) if any(block) else b"\xff" * len(block)
    path.write_bytes(raw)


def corrupted_checkpoint(place: Place) -> Outcome:
    """A flipped byte or a cut in a checkpoint: it is refused; with its copy back the run goes on."""
    outcome, run = Outcome(), place.scene.copy("train", place.folder / "out")
    path = run / "last.pt"
    sound = path.read_bytes()
    place.rng.choice([flip_bytes, cut_short, zero_block])(path, run, place.rng)
    try:
        read_checkpoint(path)
        outcome.wrong.append("a damaged checkpoint was read")
    except UserError as error:
        if "\n" in str(error):
            outcome.unkind.append(str(error))
    path.write_bytes(sound)
    expect_same(place, place.scene.commands["train"], run, outcome)
    return outcome
