"""Faults of caches that several processes make, or that are changed as a whole: ranks, Ray, growth, locks."""

from __future__ import annotations

import signal
import time
from importlib.util import find_spec
from pathlib import Path

from stress.commands import leftovers
from stress.content import content_of
from stress.faults import Outcome, Place, expect_one_line, expect_same
from stress.load import family
from stress.processes import Running, Surroundings, ranks, without_locks
from stress.scene import RANKS

PATIENCE_S = 60.0


def lost_rank(place: Place) -> Outcome:
    """SIGKILL for one of two ranks; the other leaves, as torchrun asks it to; then both again, or one."""
    command, out, outcome = place.scene.commands["cache-features"], place.folder / "out", Outcome()
    both = ranks(command.words(out), place.log, 2)
    time.sleep(place.rng.uniform(0, place.scene.seconds[RANKS]))
    lost, other = place.rng.sample(both, 2)
    outcome.struck = lost.is_running()
    lost.signal(signal.SIGKILL)
    lost.wait()
    time.sleep(place.rng.choice([0, 1]))
    asked = time.perf_counter()
    if other.is_running():
        other.signal(signal.SIGTERM)
    ended = other.wait()
    if time.perf_counter() - asked > PATIENCE_S:
        outcome.unkind.append(f"the other rank took {time.perf_counter() - asked:.0f} s to leave")
    if ended.status not in (0, -signal.SIGTERM):
        expect_one_line(ended, 143 if ended.status == 143 else 1, outcome)
    if place.rng.random() < 0.5:
        for again in (rank.wait() for rank in ranks(command.words(out), place.log, 2)):
            if again.status:
                outcome.lost.append(f"two ranks do not go on: {again.status}: {again.output[-600:]}")
    expect_same(place, command, out, outcome)
    return outcome


def workers_of_ray(pid: int) -> list[int]:
    """Return the processes of a command's Ray that have, or had, a task."""
    workers = []
    for process in family(pid):
        try:
            name = Path(f"/proc/{process}/cmdline").read_bytes()
        except OSError:
            continue
        if name.startswith(b"ray::") and b"IDLE" not in name:
            workers.append(process)
    return workers


def lost_ray_worker(place: Place) -> Outcome:
    """SIGKILL for a process that has a task of Ray: the task is done elsewhere, and nothing is told."""
    command, out, outcome = (
        place.scene.commands["cache-features"],
        place.folder / "out",
        Outcome(struck=False),
    )
    words = [*command.words(out), "--engine", "ray", "--cpus", 1]
    running = Running(words, place.log)
    when = time.perf_counter() + place.rng.uniform(0, 5)
    while running.is_running() and not outcome.struck:
        workers = workers_of_ray(running.pid)
        if workers and time.perf_counter() > when:
            Running.kill(place.rng.choice(workers))
            outcome.struck = True
        time.sleep(0.05)
    ended = running.wait()
    if ended.status:
        outcome.lost.append(f"it left with {ended.status}: {ended.output[-600:]}")
    expect_same(place, command, out, outcome)
    return outcome


def has_ray() -> bool:
    """Say whether there is Ray."""
    return find_spec("ray") is not None


def killed_rebuild(place: Place) -> Outcome:
    """SIGKILL while a cache is made anew beside the old one: the rows are the old or the new; then again."""
    command, out, outcome = place.scene.commands["rebuild"], place.folder / "out", Outcome()
    running = command.start(out, place.log)
    time.sleep(place.rng.uniform(0.3, 1) * place.scene.seconds["rebuild"])
    outcome.struck = running.is_running()
    running.signal(signal.SIGKILL)
    running.wait()
    rows = content_of(out) if out.is_dir() else None
    if rows not in (place.scene.expected["cache-features"], place.scene.expected["rebuild"]):
        outcome.lost.append("the rows are neither the old ones nor the new ones")
    expect_same(place, command, out, outcome)
    outcome.unkind += [f"left behind: {path}" for path in place.folder.glob("out*") if path != out]
    return outcome


def no_locks(place: Place) -> Outcome:
    """A file system without flock: everything is written as elsewhere, and a line says what is lacking."""
    name = place.rng.choice(["cache-features", "grow", "import", "convert", "tars", "train"])
    command, out, outcome = place.scene.commands[name], place.folder / "out", Outcome()
    ended = command.start(out, place.log, Surroundings(first=without_locks)).wait()
    if ended.status:
        outcome.lost.append(f"{name} left with {ended.status}: {ended.output[-600:]}")
    elif command.result(out) != place.scene.expected[name]:
        outcome.lost.append(f"the result of {name} differs from that with locks")
    if "without a lock" not in ended.output:
        outcome.unkind.append(f"{name} does not say that there is no lock: {ended.output[-300:]}")
    outcome.unkind += [f"left behind: {path}" for path in leftovers(out)]
    return outcome
