"""The kinds of faults of the torture script: each takes a place, strikes there, and says what it cost."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cache import EmbeddingCache
from cache.maintain.repair import repair_cache
from cache.maintain.verify import verify_cache
from cache.runtime.errors import UserError
from cache.runtime.locks import only_writer
from cache.teacher.text_tower import TextTower
from distill.checkpoint import read_checkpoint
from torture_parts import TEACHER, Command, Ended, Running, Scene, leftovers, tree

PATIENCE_S = 20.0


@dataclass
class Outcome:
    """What a fault did: whether it struck before the command had ended, what was lost, wrong or unkind."""

    struck: bool = True
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unkind: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """A scene, a folder for one fault, and the randomness that decides where and when it strikes."""

    scene: Scene
    folder: Path
    rng: random.Random

    @property
    def log(self) -> Path:
        """Where the commands' words go."""
        return self.folder / "log"


def expect_same(place: Place, command: Command, out: Path, outcome: Outcome) -> None:
    """Let the command go on, and compare with what an uninterrupted one made."""
    ended = command.run(out, place.log)
    if ended.status:
        outcome.lost.append(f"the next run left with {ended.status}: {ended.said[-600:]}")
        return
    if command.result(out) != place.scene.expected[command.name]:
        outcome.lost.append("the result differs from that of an uninterrupted run")
    outcome.unkind += [f"left behind: {path}" for path in leftovers(out)]


def expect_one_line(ended: Ended, status: int, outcome: Outcome) -> None:
    """Make sure that an error is one line with the right status."""
    if ended.status != status or not ended.one_line:
        outcome.unkind.append(f"status {ended.status}, expected {status}: {ended.said[-600:]}")


def killed(name: str) -> Callable[[Place], Outcome]:
    """SIGKILL at a random moment, sometimes twice; then the same command."""

    def strike(place: Place) -> Outcome:
        command, out, outcome = place.scene.commands[name], place.folder / "out", Outcome(struck=False)
        for _ in range(place.rng.choice([1, 1, 2])):
            running = Running(command.next_words(out), place.log)
            time.sleep(place.rng.uniform(0, place.scene.seconds[name]))
            outcome.struck |= running.is_running()
            running.signal(signal.SIGKILL)
            running.wait()
        expect_same(place, command, out, outcome)
        return outcome

    return strike


def asked_to_stop(name: str, number: int, status: int) -> Callable[[Place], Outcome]:
    """SIGTERM or Ctrl-C at a random moment: one line, the right status, soon; then the same command."""

    def strike(place: Place) -> Outcome:
        command, out = place.scene.commands[name], place.folder / "out"
        running = Running(command.words(out), place.log)
        # Not in its first moments, before Python has a handler.
        time.sleep(place.rng.uniform(0.1, place.scene.seconds[name]))
        outcome = Outcome(struck=running.is_running())
        running.signal(number)
        asked = time.perf_counter()
        ended = running.wait()
        if ended.status and ended.status != -number:
            expect_one_line(ended, status, outcome)
        if time.perf_counter() - asked > PATIENCE_S:
            outcome.unkind.append(f"it took {time.perf_counter() - asked:.0f} s to leave")
        outcome.unkind += [f"left behind: {path}" for path in leftovers(place.folder)]
        expect_same(place, command, out, outcome)
        return outcome

    return strike


@contextmanager
def mounted(where: Path, *how: str) -> Iterator[Path]:
    """Mount something; it is unmounted in the end."""
    where.mkdir(exist_ok=True)
    subprocess.run(["mount", *how, str(where)], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=False, capture_output=True)


def full_disk(name: str) -> Callable[[Place], Outcome]:
    """A file system that is full at a random point; then, with room, the same command."""

    def strike(place: Place) -> Outcome:
        command, outcome = place.scene.commands[name], Outcome()
        size = sum(map(len, tree(place.scene.whole / name).values()))
        share = int(size * place.rng.uniform(0.05, 0.95))
        with mounted(place.folder / "disk", "-t", "tmpfs", "-o", f"size={max(share, 4096)}", "none") as disk:
            ended = command.run(disk / "out", place.log)
            outcome.struck = bool(ended.status)
            if ended.status:
                expect_one_line(ended, 1, outcome)
            subprocess.run(["mount", "-o", f"remount,size={4 * size}", "none", str(disk)], check=True)
            outcome.unkind += [f"left behind: {path}" for path in leftovers(disk)]
            expect_same(place, command, disk / "out", outcome)
        return outcome

    return strike


def read_only(place: Place) -> Outcome:
    """A folder that cannot be written; then, when it can, the same command."""
    name = place.rng.choice(["cache-features", "train", "import", "convert", "report"])
    command, outcome = place.scene.commands[name], Outcome()
    with mounted(place.folder / "disk", "-t", "tmpfs", "-o", "ro", "none") as disk:
        expect_one_line(command.run(disk / "out", place.log), 1, outcome)
        subprocess.run(["mount", "-o", "remount,rw", "none", str(disk)], check=True)
        expect_same(place, command, disk / "out", outcome)
    return outcome


def lost_mount(name: str) -> Callable[[Place], Outcome]:
    """A mount that goes in mid-run: nothing is written in its place; then, back again, the same command."""

    def strike(place: Place) -> Outcome:
        command, outcome = place.scene.commands[name], Outcome()
        behind, where = place.folder / "behind", place.folder / "mount"
        behind.mkdir()
        with mounted(where, "--bind", str(behind)):
            running = Running(command.words(where / "out"), place.log)
            time.sleep(place.rng.uniform(0.3, place.scene.seconds[name]))
            outcome.struck = running.is_running()
            subprocess.run(["umount", "-l", str(where)], check=True)
            ended = running.wait()
            if ended.status:
                expect_one_line(ended, 1, outcome)
            if any(where.rglob("*.*")):
                outcome.wrong.append(f"written where the mount was: {sorted(where.rglob('*'))[:3]}")
            shutil.rmtree(where / "out", ignore_errors=True)
            subprocess.run(["mount", "--bind", str(behind), str(where)], check=True)
            expect_same(place, command, where / "out", outcome)
        return outcome

    return strike


def few_handles(place: Place) -> Outcome:
    """Too few file handles; then, with enough, the same command."""
    return _limited(place, resource.RLIMIT_NOFILE, place.rng.randint(12, 60))


def small_files(place: Place) -> Outcome:
    """Files that may not grow; then, where they may, the same command."""
    return _limited(place, resource.RLIMIT_FSIZE, place.rng.randint(2_000, 400_000))


def _limited(place: Place, what: int, most: int) -> Outcome:
    name = place.rng.choice(["cache-features", "train", "sweep"])
    command, out, outcome = place.scene.commands[name], place.folder / "out", Outcome()
    ended = Running(command.words(out), place.log, {what: most}).wait()
    outcome.struck = bool(ended.status)
    if ended.status:
        expect_one_line(ended, 1, outcome)
    expect_same(place, command, out, outcome)
    return outcome


def two_writers(place: Place) -> Outcome:
    """The same command twice at once: one is refused by name, or comes later; the result is one run's."""
    name = place.rng.choice(["cache-features", "convert", "import", "sweep"])
    command, out, outcome = place.scene.commands[name], place.folder / "out", Outcome()
    first = Running(command.words(out), place.log)
    time.sleep(place.rng.uniform(0, place.scene.seconds[name] / 2))
    second = Running(command.words(out), place.folder / "second.log")
    for ended in (first.wait(), second.wait()):
        if ended.status:
            expect_one_line(ended, 1, outcome)
            if "is being written by process" not in ended.said:
                outcome.unkind.append(f"it does not say who holds it: {ended.said[-300:]}")
    expect_same(place, command, out, outcome)
    return outcome


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
    found = {}
    for name in opened.split_names:
        rows = opened.split(name)
        found |= {f"{name} keys": np.array(rows.keys), f"{name} labels": rows.labels}
        found |= {f"{name} rows": np.asarray(rows.embeddings), f"{name} captions": np.array(rows.captions)}
        nearest, similarity = opened.neighbours(name, "labels", 256)
        found |= {f"{name} nearest": np.asarray(nearest), f"{name} similarity": np.asarray(similarity)}
    train = np.arange(len(opened.split("train").keys))
    pixels = opened.pixels("train", side=36)
    found |= {f"texts {name}": opened.text_bank(name).embeddings for name in opened.bank_names}
    found["views"] = opened.crop_views("train").embeddings(train, train % 2)
    found["support"] = opened.support_views("train", opened.split("train").keys)
    found["pixels"] = pixels.images(train).numpy() if pixels is not None else np.empty(0)
    tower = TextTower.load(cache, files=opened.manifest.text_tower)
    found["tower"] = tower.embed(tower.tokens(["a fruit"])).detach().numpy()
    return found


def one_file(cache: Path, rng: random.Random, *, derived: bool) -> Path:
    """Return a file of a cache; without ``derived`` none that is computed anew whenever it is missing."""
    files = sorted(path for path in cache.rglob("*") if path.is_file())
    return rng.choice([path for path in files if derived or path.parent.name != "neighbours"])


def mend(cache: Path, place: Place, name: str) -> None:
    """Repair a cache, and let the command that made it redo what was taken out."""
    if repair_cache(cache).commands:
        ended = place.scene.commands[name].run(cache, place.folder / "again.log")
        if ended.status:
            raise UserError(f"the command that made it fails: {ended.said}", fix="read its log.")


def damaged_cache(name: str, harm: Callable[[Path, Path, random.Random], None]) -> Callable[[Place], Outcome]:
    """WrongRows in one file of a cache: verify finds it, no reader takes it for a number.

    Repair takes it out, and the command that made the cache redoes it.
    """

    def strike(place: Place) -> Outcome:
        # Read before it is copied: neighbours that nobody has asked for yet are computed and kept.
        expected = content_of(place.scene.whole / name)
        outcome, cache = Outcome(), place.scene.copy(name, place.folder / "cache")
        harmed = one_file(cache, place.rng, derived=harm is not remove_file)
        harm(harmed, cache, place.rng)
        try:
            problems = [check.file for check in verify_cache(cache) if check.problem]
        except UserError:
            problems = [harmed.name]
        if not problems:
            outcome.wrong.append(f"verify does not see it: {harmed.relative_to(cache)}")
        try:
            for part, numbers in content_of(cache).items():
                if not np.array_equal(numbers, expected[part]):
                    outcome.wrong.append(f"{part} was read wrong: {harmed.relative_to(cache)}")
        except UserError as error:
            if "\n" in str(error):
                outcome.unkind.append(str(error))
        try:
            mend(cache, place, name)
        except UserError as error:
            outcome.lost.append(f"{harmed.relative_to(cache)} is not repaired: {error}")
            return outcome
        if tree(cache) != tree(place.scene.whole / name):
            outcome.lost.append(f"repaired to other bytes: {harmed.relative_to(cache)}")
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


def damaged_checkpoint(place: Place) -> Outcome:
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


def broken_teacher(place: Place) -> Outcome:
    """A teacher whose weights are not finite, or deaf to its pictures: stage 1 stops with the image's key."""
    from safetensors.torch import load_file, save_file

    outcome, teacher = Outcome(), place.folder / "teacher"
    shutil.copytree(TEACHER, teacher)
    file = teacher / "open_clip_model.safetensors"
    weights = load_file(file)
    weight = weights[place.rng.choice(["visual.conv1.weight", "visual.attnpool.c_proj.weight"])]
    weight.fill_(place.rng.choice([float("nan"), float("inf"), 0.0]))
    save_file(weights, file)
    words = ["cache-features", place.scene.photos, "--out", place.folder / "cache", "--device", "cpu"]
    ended = Running([*words, "--model", f"local-dir:{teacher}", "--workers", 0], place.log).wait()
    expect_one_line(ended, 1, outcome)
    if ".png" not in ended.said:
        outcome.wrong.append(f"it does not name the image: {ended.said[-300:]}")
    if list((place.folder / "cache").glob("images/*")):
        outcome.wrong.append("rows of a broken teacher were kept")
    return outcome


def exploding_loss(place: Place) -> Outcome:
    """A learning rate that breaks the student: training stops, and the last checkpoint is sound."""
    outcome, out = Outcome(), place.folder / "out"
    words = [*place.scene.commands["train"].words(out), "--lr", 10 ** place.rng.uniform(7, 12)]
    ended = Running(
        [*words, "--set", "loss.mse_raw=1", "--set", "train.checkpoint_steps=1"], place.log
    ).wait()
    expect_one_line(ended, 1, outcome)
    if (out / "last.pt").exists():
        student = read_checkpoint(out / "last.pt")["student"]
        if not all(value.isfinite().all() for value in student.values() if value.is_floating_point()):
            outcome.wrong.append("a checkpoint that is not finite was kept")
    return outcome


KINDS: dict[str, Callable[[Place], Outcome]] = {
    "SIGKILL cache-features": killed("cache-features"),
    "SIGKILL import": killed("import"),
    "SIGKILL convert": killed("convert"),
    "SIGKILL train": killed("train"),
    "SIGKILL fewshot, finetune": killed("fewshot-finetune"),
    "SIGKILL fewshot, retrieval": killed("fewshot-retrieval"),
    "SIGKILL sweep": killed("sweep"),
    "SIGKILL report": killed("report"),
    "SIGTERM cache-features": asked_to_stop("cache-features", signal.SIGTERM, 143),
    "Ctrl-C cache-features": asked_to_stop("cache-features", signal.SIGINT, 130),
    "SIGTERM train": asked_to_stop("train", signal.SIGTERM, 143),
    "Ctrl-C sweep": asked_to_stop("sweep", signal.SIGINT, 130),
    "SIGTERM convert": asked_to_stop("convert", signal.SIGTERM, 143),
    "full disk, cache-features": full_disk("cache-features"),
    "full disk, train": full_disk("train"),
    "full disk, convert": full_disk("convert"),
    "read-only folder": read_only,
    "lost mount, cache-features": lost_mount("cache-features"),
    "lost mount, train": lost_mount("train"),
    "few file handles": few_handles,
    "limit of file sizes": small_files,
    "two writers": two_writers,
    "stale lock": stale_lock,
    "flipped bytes, HDF5 cache": damaged_cache("cache-features", flip_bytes),
    "flipped bytes, WebDataset cache": damaged_cache("convert", flip_bytes),
    "zeroed block in a cache": damaged_cache("cache-features", zero_block),
    "file of a cache cut short": damaged_cache("cache-features", cut_short),
    "file of a cache removed": damaged_cache("convert", remove_file),
    "files of a cache exchanged": damaged_cache("cache-features", exchange),
    "damaged checkpoint": damaged_checkpoint,
    "broken teacher": broken_teacher,
    "exploding loss": exploding_loss,
}
