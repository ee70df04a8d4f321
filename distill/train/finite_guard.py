"""A loss that is not finite stops a run before the step, without waiting for a GPU at every step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from cache.runtime.errors import UserError
from distill.record.run_files import LAST
from distill.train.session import Position, Session

# How many steps a GPU may be ahead of the look at its losses.
STEPS_BETWEEN_LOOKS = 50


class FiniteGuard:
    """Remembers the first loss of an epoch that is not finite.

    On the CPU it is looked at in every step. A GPU would have to be waited for; so there the mark stays on
    the device, fused optimisers skip their steps while it stands (as a gradient scaler has them do), and it
    is looked at now and then, and always before anything is saved.
    """

    def __init__(self, device: torch.device) -> None:
        """Begin with nothing bad."""
        self._every = 1 if device.type == "cpu" else STEPS_BETWEEN_LOOKS
        self.bad = torch.zeros((), device=device)
        self._step = torch.zeros((), device=device)
        self._parts: dict[str, Tensor] = {}

    def add(self, parts: Mapping[str, Tensor], step: int) -> None:
        """Note a step's losses, a scalar each."""
        now = 1 - torch.isfinite(parts["total"].detach()).float()
        first = now > self.bad
        self._step = torch.where(first, float(step), self._step)
        self._parts = {
            name: torch.where(first, value.detach().float(), self._parts.get(name, now))
            for name, value in parts.items()
        }
        self.bad = torch.maximum(self.bad, now)

    def is_due(self, step: int) -> bool:
        """Say whether it is time to look after this step."""
        return step % self._every == 0

    def look(self) -> tuple[int, dict[str, float]] | None:
        """Wait for the device; return the first bad step and its losses, None when all were finite."""
        if not self.bad.item():
            return None
        return int(self._step.item()), {name: value.item() for name, value in self._parts.items()}

    def skip_bad_steps(self, optimizer: Optimizer) -> None:
        """Have a fused optimiser skip its steps while the mark stands, where no gradient scaler does."""
        optimizer.found_inf = self.bad  # type: ignore[attr-defined]


def check_losses(
    guard: FiniteGuard, session: Session, position: Position, batches: list[NDArray[np.int64]], out: Path
) -> None:
    """Refuse to go on after a loss that was not finite; UserError names its step, its losses, some images."""
    bad = guard.look()
    if bad is None:
        return
    step, parts = bad
    losses = ", ".join(f"{name} {value:g}" for name, value in parts.items())
    keys = [session.data.keys[i] for i in batches[step][:3]] if batches else []
    raise UserError(
        f"the loss is not finite in epoch {position.epoch}, step {step} ({losses}; "
        f"images {', '.join(keys)}, ...)",
        fix=_way_out(out),
    )


def check_weights(student: nn.Module, position: Position, out: Path) -> None:
    """Refuse to save a student that the last step broke: no loss has seen it yet."""
    if not weights_are_finite(student):
        raise UserError(
            f"the student's weights are not finite after epoch {position.epoch}, step {position.step - 1}",
            fix=_way_out(out),
        )


def _way_out(out: Path) -> str:
    before = f"; {out / LAST} holds the state before" if (out / LAST).exists() else ""
    return f"lower optim.lr, or use train.precision=float32{before}."


def weights_are_finite(module: nn.Module) -> bool:
    """Say whether every weight and every running statistic is a finite number; waits for the device."""
    numbers = [t for t in module.state_dict().values() if t.is_floating_point()]
    return bool(torch.stack([t.isfinite().all() for t in numbers]).all())
