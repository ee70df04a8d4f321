"""Faults that strike a running command: kills, stops, disks that fill or go, limits, a second writer."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distill.checkpoint import read_checkpoint
from stress.commands import TEACHER, leftovers, tree
from stress.faults import Fault, Outcome, Place, expect_one_line, expect_same
from stress.processes import Running, Surroundings

PATIENCE_S = 20.0
PAGE = 4096


def killed(name: str) -> Fault:
    """SIGKILL at a random moment, sometimes twice; then the same command."""

    def strike(place: Place) -> Outcome:
        command, out, outcome = place.scene.commands[name], place.folder / "out", Outcome(struck=False)
        for _ in range(place.rng.choice([1, 1, 2])):
            running = command.start(out, place.log)
            time.sleep(place.rng.uniform(0, place.scene.seconds[name]))
            outcome.struck |= running.is_running()
            running.signal(signal.SIGKILL)
            running.wait()
        expect_same(place, command, out, outcome)
        return outcome

    return strike


def asked_to_stop(name: str, number: int, status: int) -> Fault:
    """SIGTERM or Ctrl-C at a random moment: one line, the right status, soon; then the same command."""

    def strike(place: Place) -> Outcome:
        command, out = place.scene.commands[name], place.folder / "out"
        running = command.start(out, place.log)
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


def on_disk(folder: Path) -> int:
    """Return the bytes of the pages that a folder's files take."""
    return sum(-(-len(raw) // PAGE) * PAGE for raw in tree(folder).values())


def full_disk(name: str) -> Fault:
    """A file system that is full at a random point; then, with room, the same command."""

    def strike(place: Place) -> Outcome:
        command, outcome = place.scene.commands[name], Outcome()
        size = on_disk(place.scene.whole / name)
        begun = on_disk(command.begins_with) if command.begins_with else 0
        share = begun + int(size * place.rng.uniform(0.05, 0.95))
        with mounted(place.folder / "disk", "-t", "tmpfs", "-o", f"size={max(share, PAGE)}", "none") as disk:
            ended = command.run(disk / "out", place.log)
            outcome.struck = bool(ended.status)
            if ended.status:
                expect_one_line(ended, 1, outcome)
            subprocess.run(["mount", "-o", f"remount,size={begun + 4 * size}", "none", str(disk)], check=True)
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


def lost_mount(name: str) -> Fault:
    """A mount that goes in mid-run: nothing is written in its place; then, back again, the same command."""

    def strike(place: Place) -> Outcome:
        command, outcome = place.scene.commands[name], Outcome()
        behind, where = place.folder / "behind", place.folder / "mount"
        behind.mkdir()
        with mounted(where, "--bind", str(behind)):
            running = command.start(where / "out", place.log)
            while running.is_running() and not (where / "out").exists():
                time.sleep(0.01)  # a command that has not begun cannot know that there was a mount
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
    ended = command.start(out, place.log, Surroundings(limits={what: most})).wait()
    outcome.struck = bool(ended.status)
    if ended.status:
        expect_one_line(ended, 1, outcome)
    expect_same(place, command, out, outcome)
    return outcome


def two_writers(place: Place) -> Outcome:
    """The same command twice at once: one is refused by name, or comes later; the result is one run's."""
    name = place.rng.choice(["cache-features", "convert", "import", "sweep"])
    command, out, outcome = place.scene.commands[name], place.folder / "out", Outcome()
    first = command.start(out, place.log)
    time.sleep(place.rng.uniform(0, place.scene.seconds[name] / 2))
    second = command.start(out, place.folder / "second.log")
    for ended in (first.wait(), second.wait()):
        if ended.status:
            expect_one_line(ended, 1, outcome)
            if "is being written by process" not in ended.output:
                outcome.unkind.append(f"it does not say who holds it: {ended.output[-300:]}")
    expect_same(place, command, out, outcome)
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
    if ".png" not in ended.output:
        outcome.wrong.append(f"it does not name the image: {ended.output[-300:]}")
    if list((place.folder / "cache").glob("rows/*/*")):
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
