"""What a fault is: it takes a place, strikes there, and returns what it cost."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stress.commands import Command, leftovers
from stress.content import unlisted
from stress.processes import Ended
from stress.scene import Scene


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
    """Let the command go on in a folder of its own, and compare with what an uninterrupted one made."""
    ended = command.run(out, place.log)
    if ended.status:
        outcome.lost.append(f"the next run left with {ended.status}: {ended.output[-600:]}")
        return
    if odd := _differences(command.result(out), place.scene.expected[command.name]):
        outcome.lost.append(f"the result differs from that of an uninterrupted run: {odd}")
    outcome.unkind += [f"left behind: {path}" for path in [*leftovers(out.parent), *unlisted(out)]]


def _differences(one: Any, other: Any) -> str:
    """Say where two results differ, '' where they do not."""
    if one == other:
        return ""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return "other numbers"
    odd = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
    return f"{len(odd)} of {len({*one, *other})}: {', '.join(odd[:8])}"


def expect_one_line(ended: Ended, status: int, outcome: Outcome) -> None:
    """Make sure that an error is one line with the right status."""
    if ended.status != status or not ended.one_line:
        outcome.unkind.append(f"status {ended.status}, expected {status}: {ended.output[-600:]}")


Fault = Callable[[Place], Outcome]
