"""Faults in finished files: bytes that change, files that are cut, lost or exchanged, locks of the dead."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cache import EmbeddingCache
from cache.maintain.repair import repair_cache
from cache.maintain.verify import verify_cache
from cache.runtime.errors import UserError
from cache.runtime.locks import only_writer
from cache.teacher.text_tower import TextTower
from distill.checkpoint import read_checkpoint
from stress.faults import Fault, Outcome, Place, expect_same
from stress.scene import tree

Corrupt = Callable[[Path, Path, random.Random], None]


def stale_lock(place: Place) -> Outcome:
    """A lock file of a process that is gone; and one that still holds it, which readers do not mind."""
    command, out, outcome = place.scene.commands["cache-features"], place.folder / "out", Outcome()
    place.scene.copy("cache-features", out)
    (out / ".lock").write_text('{"process": 1, "host": "gone", "command": "x", "since": "y"}')
    with only_writer(out):
        content_of(out)
    (out / ".lock").write_text("nonsense")
    expect_same(place, command, out, outcome)
    return outcome


def content_of(cache: Path) -> dict[str, np.ndarray]:
    """Read everything that a cache holds, as training and evaluation do."""
    opened = EmbeddingCache.open(cache)
    content: dict[str, np.ndarray] = {}
    for name in opened.split_names:
        rows = opened.split(name)
        content |= {f"{name} keys": np.array(rows.keys), f"{name} labels": rows.labels}
        content |= {f"{name} rows": np.asarray(rows.embeddings), f"{name} captions": np.array(rows.captions)}
        nearest, similarity = opened.neighbours(name, "labels", 256)
        content |= {f"{name} nearest": np.asarray(nearest), f"{name} similarity": np.asarray(similarity)}
    train = np.arange(len(opened.split("train").keys))
    pixels = opened.pixels("train", side=36)
    content |= {f"texts {name}": opened.text_bank(name).embeddings for name in opened.bank_names}
    content["views"] = opened.views("train").embeddings(train, train % 2)
    content["support"] = opened.support_views("train", opened.split("train").keys)
    content["pixels"] = pixels.images(train).numpy() if pixels is not None else np.empty(0)
    tower = TextTower.load(cache, files=opened.manifest.text_tower)
    content["tower"] = tower.embed(tower.tokens(["a fruit"])).detach().numpy()
    return content


def one_file(cache: Path, rng: random.Random, *, derived: bool) -> Path:
    """Return a file of a cache; without ``derived`` none that is computed anew whenever it is missing."""
    files = sorted(path for path in cache.rglob("*") if path.is_file())
    return rng.choice([path for path in files if derived or path.parent.name != "neighbours"])


def mend(cache: Path, place: Place, name: str) -> None:
    """Repair a cache, and let the command that made it redo what was taken out."""
    if repair_cache(cache).commands:
        ended = place.scene.commands[name].run(cache, place.folder / "again.log")
        if ended.status:
            raise UserError(f"the command that made it fails: {ended.output}", fix="read its log.")


def corrupted_cache(name: str, corrupt: Corrupt) -> Fault:
    """Wrong bytes in one file of a cache: verify finds them, no reader takes them for a number.

    Repair takes it out, and the command that made the cache redoes it.
    """

    def strike(place: Place) -> Outcome:
        # Read before it is copied: neighbours that nobody has asked for yet are computed and kept.
        expected = content_of(place.scene.whole / name)
        outcome, cache = Outcome(), place.scene.copy(name, place.folder / "cache")
        wrong = one_file(cache, place.rng, derived=corrupt is not remove_file)
        corrupt(wrong, cache, place.rng)
        try:
            problems = [check.file for check in verify_cache(cache) if check.problem]
        except UserError:
            problems = [wrong.name]
        if not problems:
            outcome.wrong.append(f"verify does not see it: {wrong.relative_to(cache)}")
        try:
            for part, numbers in content_of(cache).items():
                if not np.array_equal(numbers, expected[part]):
                    outcome.wrong.append(f"{part} was read wrong: {wrong.relative_to(cache)}")
        except UserError as error:
            if "\n" in str(error):
                outcome.unkind.append(str(error))
        try:
            mend(cache, place, name)
        except UserError as error:
            outcome.lost.append(f"{wrong.relative_to(cache)} is not repaired: {error}")
            return outcome
        if tree(cache) != tree(place.scene.whole / name):
            outcome.lost.append(f"repaired to other bytes: {wrong.relative_to(cache)}")
        return outcome

    return strike


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
