"""What one epoch adds up for one student: losses, right answers, images, seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cache.runtime.devices import widest_float
from distill.judge.model import Model
from distill.metrics import ClassCounts
from distill.robotics.metrics import ObjectCounts
from distill.train.session import Position


@dataclass(kw_only=True)
class EpochSums:
    """One epoch's sums so far, on the device: read once an epoch."""

    counts: ClassCounts | ObjectCounts
    images: int = 0
    seconds: float = 0.0
    losses: dict[str, Tensor] = field(default_factory=dict)
    grad_norm: Tensor | float = 0.0
    moves: Tensor | float = 0.0

    @classmethod
    def at(cls, position: Position, model: Model) -> EpochSums:
        """Return the sums that a position in mid-epoch keeps, else new ones."""
        kept = position.sums if position.step else {}
        return cls(**{**kept, "counts": model.counts(kept.get("counts", {}))})

    def add(self, losses: dict[str, Tensor], scores: Tensor, labels: Tensor) -> None:
        """Add a batch's losses, and count its scores."""
        self.images += len(labels)
        for name, value in losses.items():
            wide = value.detach().to(widest_float(value.device))
            self.losses[name] = self.losses.get(name, 0) + wide * len(labels)
        self.counts.add(scores, labels)

    def add_gradient(self, norm: Tensor) -> None:
        """Count a step of the optimiser with its gradient's norm, a scalar; one not finite is skipped."""
        finite = norm.isfinite()
        self.grad_norm = self.grad_norm + torch.where(finite, norm, 0)
        self.moves = self.moves + finite

    def state(self) -> dict[str, Any]:
        """Return what goes into a checkpoint."""
        return {**vars(self), "counts": self.counts.state()}

    def metrics(self) -> dict[str, float]:
        """Return the epoch's mean losses, its gradients' mean norm before clipping, training metrics."""
        losses = {f"loss_{name}": float(value) / self.images for name, value in self.losses.items()}
        moves = float(self.moves)
        gradient = {"grad_norm": float(self.grad_norm) / moves} if moves else {}
        return {**losses, **gradient, **self.counts.metrics()}

    @property
    def images_per_s(self) -> float:
        """The epoch's speed."""
        return self.images / max(self.seconds, 1e-9)


@contextmanager
def clock(position: Position, sums: EpochSums, *, spent: float = 0.0) -> Iterator[None]:
    """Count the time of what is done for a student, and what was ``spent`` for it before, in seconds."""
    began = time.perf_counter() - spent
    try:
        yield
    finally:
        seconds = time.perf_counter() - began
        position.seconds += seconds
        sums.seconds += seconds
