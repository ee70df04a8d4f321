"""What a kind of run has to say of itself, so that the loop can train and judge it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Generator, Tensor

from distill.data.batch import Batch, Crops, Share
from distill.judge.outputs import RunOutputs
from distill.train.session import TrainingSession


class Counts(Protocol):
    """How well an epoch's training batches were classified so far, counted on the device."""

    def add(self, scores: Tensor, labels: Tensor) -> None:
        """Count one batch: scores [B, C] and its labels."""

    def state(self) -> dict[str, Tensor]:
        """Return what goes into a checkpoint."""
        ...

    def metrics(self) -> dict[str, float]:
        """Return the epoch's training metrics, in percent."""
        ...


class Task(Protocol):
    """What is trained and how it is judged."""

    @property
    def session(self) -> TrainingSession:
        """The parts of the run."""
        ...

    @property
    def curves(self) -> tuple[tuple[str, str], ...]:
        """(label, metric) of what is drawn and said of every epoch, in percent."""
        ...

    @property
    def measure(self) -> str:
        """What the curves are of."""
        ...

    @property
    def headline(self) -> str:
        """What the summary's numbers are."""
        ...

    def augmented(
        self, images: Tensor, generator: Generator, share: Share, crops: Crops | None = None
    ) -> Tensor:
        """Return decoded images as the student takes them; they are a ``share`` of a batch.

        ``crops`` are the whole batch's, to be replayed where the cache keeps views.
        """
        ...

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Return an augmented batch's losses with their ``total``, and its scores [B, C] without gradient."""
        ...

    def counts(self, state: dict[str, Tensor]) -> Counts:
        """Return counts that go on from ``state``, which may be empty."""
        ...

    def judge(self, *, late: bool) -> dict[str, float]:
        """Return the metrics of the splits; ``late`` in the last epochs, where every split is judged."""
        ...

    def chosen_by(self, metrics: dict[str, float]) -> float | None:
        """Return what the best epoch has most of, from ``id_val`` alone; None where there is none."""
        ...

    def summary(self, history: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return what the summary says beside the means of the metrics."""
        ...

    def outputs(self) -> RunOutputs | None:
        """Return what the trained student says of every image; None where nothing is kept of it."""
        ...
