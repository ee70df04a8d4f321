"""The parts: what they are called, how long each may take, and what runs them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TOTAL_S = 470.0  # of eight minutes; the rest is the start, and the report


@dataclass(frozen=True, kw_only=True)
class Part:
    """``title`` is what a table has; ``run`` is MODULE:FUNCTION of this package; of ``limit`` seconds."""

    title: str
    run: str
    limit: float

    def load(self) -> Callable[[Any], None]:
        """Return the function, which takes a :class:`gpu.work.Work`."""
        module, _, name = self.run.partition(":")
        run: Callable[[Any], None] = getattr(importlib.import_module(f"gpu.{module}"), name)
        return run


# What matters most comes first: the last ones meet the end of the time.
PARTS = {
    "machine": Part(title="machine", run="machine:facts", limit=60),
    "tests": Part(title="tests", run="tests:marked_gpu", limit=60),
    "forward": Part(title="teacher", run="teacher:forward", limit=90),
    "stage1": Part(title="stage 1", run="teacher:stage_one", limit=150),
    "step": Part(title="step", run="training:step", limit=70),
    "options": Part(title="pool, views", run="training:options", limit=60),
    "images": Part(title="images", run="device:images", limit=50),
    "neighbours": Part(title="nearest texts", run="device:neighbours", limit=40),
    "determinism": Part(title="two runs", run="training:determinism", limit=50),
    "forward-compiled": Part(title="teacher, compiled", run="teacher:forward_compiled", limit=110),
    "step-compiled": Part(title="step, compiled", run="training:step_compiled", limit=110),
}
MULTI = {"several": Part(title="two processes", run="several:two_processes", limit=120)}
# With --multi it comes before the compiled ones.
BEFORE = "forward-compiled"


def chosen_parts(multi: bool) -> dict[str, Part]:
    """Return the parts in their order."""
    if not multi:
        return dict(PARTS)
    names = list(PARTS)
    place = names.index(BEFORE)
    return {name: (PARTS | MULTI)[name] for name in [*names[:place], *MULTI, *names[place:]]}
