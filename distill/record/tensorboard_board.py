"""A run's numbers as TensorBoard events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.record.board import numbers_of, space_metrics


class TensorBoard:
    """The same numbers as TensorBoard events; a resumed run takes back what it will write again."""

    def __init__(self, folder: Path, *, first_epoch: int) -> None:
        """Open an event file; events after ``first_epoch``, the last that is written, are purged."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=first_epoch + 1 if first_epoch else None)

    def write(self, line: Mapping[str, Any]) -> None:
        """Write one epoch."""
        for name, value in numbers_of(line).items():
            if name != "epoch":
                self._writer.add_scalar(name, value, line["epoch"])
        self._writer.flush()

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the space metrics of every split at the last epoch; the rest are no curves."""
        for name, value in space_metrics(summary).items():
            self._writer.add_scalar(name, value, summary["epochs"])

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()
