"""What of a student stands still: its trunk in the first epochs, its batch norms' statistics."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from distill.config import StudentConfig
from distill.student.parts import trunk_batch_norms, trunk_parameters


@dataclass(frozen=True, kw_only=True)
class Freezing:
    """The parts of a student that may stand still, and until when.

    ``parameters`` are those of the trunk that are trained after ``epochs`` epochs, ``norms`` its batch norms,
    which with ``always`` keep their statistics throughout: their scale and shift are trained all the same
    (batch statistics of small data cost a pretrained trunk dearly). Of a network without batch norms there is
    nothing to keep.
    """

    epochs: int
    always: bool
    parameters: tuple[nn.Parameter, ...]
    norms: tuple[nn.Module, ...]

    @classmethod
    def of(cls, student: nn.Module, config: StudentConfig) -> Freezing:
        """Return what a config freezes."""
        if not config.freeze_epochs and not config.freeze_batch_norm:
            return cls(epochs=0, always=False, parameters=(), norms=())
        return cls(
            epochs=config.freeze_epochs,
            always=config.freeze_batch_norm,
            parameters=tuple(own for own in trunk_parameters(student) if own.requires_grad),
            norms=tuple(trunk_batch_norms(student)),
        )

    def begin_epoch(self, epoch: int) -> None:
        """Let stand still what does in an epoch, of a student that is in training mode."""
        frozen = epoch < self.epochs
        if self.epochs:
            for parameter in self.parameters:
                parameter.requires_grad_(not frozen)
        if frozen or self.always:
            for norm in self.norms:
                norm.eval()
