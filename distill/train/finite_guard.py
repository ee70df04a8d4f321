"""A loss that is not finite stops a run before the step, without waiting for CUDA at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cache.runtime.errors import UserError
from distill.record.run_files import LAST
from distill.train.session import Position, Session

# How many steps CUDA may be ahead of the look at its losses.
STEPS_BETWEEN_LOOKS = 50


class FiniteGuard:
    """Remembers the first loss of an epoch that is not finite.

    It is looked at in every step. But CUDA would have to be waited for; so there the mark stays on the
    device, fused optimisers skip their steps while it stands (as a gradient scaler has them do), and it is
    looked at now and then, and always before anything is saved.
    """

    def __init__(self, session: Session, out: Path) -> None:
        """Begin with nothing bad; ``out`` is where the run is saved."""
        self.session, self.out, self.device = session, out, session.model.device
        self._bad = torch.zeros((), device=self.device)
        self._step = torch.zeros((), device=self.device)
        self._losses: dict[str, Tensor] = {}

    def add(self, losses: Mapping[str, Tensor], position: Position, batches: Sequence[Any]) -> None:
        """Note a step's losses, a scalar each; UserError as in :meth:`check` where it is time to look."""
        now = 1 - torch.isfinite(losses["total"].detach()).float()
        first = now > self._bad
        self._step = torch.where(first, float(position.step), self._step)
        self._losses = {
            name: torch.where(first, value.detach().float(), self._losses.get(name, now))
            for name, value in losses.items()
        }
        self._bad = torch.maximum(self._bad, now)
        if self.device.type != "cuda" or position.step % STEPS_BETWEEN_LOOKS == 0:
            self.check(position, batches)

    def skip_bad_steps(self) -> None:
        """Have a fused optimiser skip its steps while the mark stands, where no gradient scaler does."""
        if self.device.type == "cuda" and not self.session.scaler.is_enabled():
            self.session.optimizer.found_inf = self._bad  # type: ignore[attr-defined]

    def check(self, position: Position, batches: Sequence[Any]) -> None:
        """Wait for the device; UserError after a bad loss names its step, its losses, some images."""
        if not self._bad.item():
            return
        step = int(self._step.item())
        losses = ", ".join(f"{name} {value.item():g}" for name, value in self._losses.items())
        data: Any = self.session.data
        keys = data.keys_of(batches, step) if len(batches) else []
        raise UserError(
            f"the loss is not finite in epoch {position.epoch + 1}, step {step + 1} ({losses}; "
            f"images {', '.join(keys)}, ...)",
            fix=self._way_out(),
        )

    def check_weights(self, position: Position) -> None:
        """Refuse to save a student that the last step broke: no loss has seen it yet."""
        numbers = [t for t in self.session.model.student.state_dict().values() if t.is_floating_point()]
        if not torch.stack([t.isfinite().all() for t in numbers]).all():
            place = f"epoch {position.epoch + 1}, step {position.step}"
            raise UserError(f"the student's weights are not finite after {place}", fix=self._way_out())

    def _way_out(self) -> str:
        last = self.out / LAST
        before = f"; {last} holds the state before" if last.exists() else ""
        return f"lower optim.lr, or use train.precision=float32{before}."
