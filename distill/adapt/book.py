"""What an adaptation keeps book of: what is asked for, what is done of it, and how much time is left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from cache.runtime.progress import Progress
from distill.adapt.options import AdaptOptions, in_words
from distill.adapt.state import State, asked, changes


class Once:
    """A progress that says each line once: much of what several runs of the same photos say is the same."""

    def __init__(self, progress: Progress) -> None:
        self.start, self.advance = progress.start, progress.advance
        self._progress, self._said = progress, set[str]()

    def note(self, message: str) -> None:
        """Say something worth a line, unless it was said."""
        if message not in self._said:
            self._said.add(message)
            self._progress.note(message)


@dataclass(kw_only=True)
class Book:
    """One adaptation: what is asked for, who is told, when it ``began``, and what is done of it."""

    options: AdaptOptions
    progress: Progress
    began: float
    state: State = field(default_factory=State)

    def open(self) -> None:
        """Read what was done before, and tell what is asked for otherwise; nothing is written yet."""
        self.state = State.load(self.options.work)
        if self.state.options:
            self.note(f"going on with what was begun in {self.options.work}")
            for line in changes(self.state.options, asked(self.options)):
                self.note(f"changed: {line}; what depends on that is made anew")

    def note(self, message: str) -> None:
        """Say something worth a line."""
        self.progress.note(message)

    def keep(self, **changed: Any) -> None:
        """Change fields of the state, and write it."""
        self.state = replace(self.state, **changed)
        self.state.save(self.options.work)

    @contextmanager
    def stage(self, what: str) -> Iterator[None]:
        """Add what a stage takes to the state, also where it is stopped; not of work that never began."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.state = self.state.took(what, time.perf_counter() - began)
            if self.state.options:
                self.state.save(self.options.work)

    @property
    def seconds(self) -> float:
        """How long this command is at work."""
        return time.perf_counter() - self.began

    @property
    def left(self) -> float:
        """The seconds of the budget that are left; without one there is no end to them."""
        budget = self.options.budget
        return float("inf") if budget is None else budget - self.seconds

    def tell_overrun(self) -> None:
        """Say by how much a budget was overrun, and what took longest of it."""
        budget = self.options.budget
        if budget is None or self.left >= 0:
            return
        longest = sorted(self.state.seconds.items(), key=lambda item: -item[1])[:2]
        took = ", ".join(f"{what} {in_words(seconds)}" for what, seconds in longest)
        self.note(
            f"the budget of {in_words(budget)} is overrun by {in_words(-self.left)}: what a model cannot be "
            f"without took that long ({took})"
        )
