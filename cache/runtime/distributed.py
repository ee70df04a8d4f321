"""The processes that ``torchrun`` starts side by side: which this is, and how they wait for each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from cache.runtime.errors import UserError, reason_of
from cache.runtime.signals import Terminated
from cache.runtime.torchrun import local_rank, world_size

T = TypeVar("T")
# Ranks wait for the slowest, whose share of the images may take hours longer; a lost one is noticed at once.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """One of ``world`` processes; ``rank`` 0 alone speaks. A process by itself is rank 0 of 1."""

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def from_first(self, make: Callable[[], T]) -> T:
        """Return what rank 0 makes, on every rank; the others make nothing."""
        box: list[Any] = [make() if self.is_first else None]
        if self.world > 1:
            with lost_ranks():
                dist.broadcast_object_list(box, src=0)
        made: T = box[0]
        return made

    def wait(self) -> None:
        """Return when every rank has come here."""
        if self.world > 1:
            with lost_ranks():
                dist.barrier()

    def largest(self, number: int) -> int:
        """Return the largest of what the ranks gave."""
        if self.world == 1:
            return number
        box = torch.tensor([number])
        with lost_ranks():
            dist.all_reduce(box, dist.ReduceOp.MAX)
        return int(box)


def in_every_process(action: Callable[[], T]) -> T | UserError:
    """Do something in every process; where one of them meets a UserError, it has failed in all.

    Without that the others would go on, and wait for ever for the one that stopped.
    """
    outcome: T | UserError
    try:
        outcome = action()
    except UserError as error:
        outcome = error
    ranks = current_ranks()
    if not ranks.largest(isinstance(outcome, UserError)):
        return outcome
    first = ranks.from_first(lambda: outcome)
    if isinstance(first, UserError):
        return first
    other = UserError("another process of this torchrun failed", fix="read what it said.")
    return outcome if isinstance(outcome, UserError) else other


def current_ranks() -> Ranks:
    """Return which process this is of those that :func:`ranks_of_torchrun` joined."""
    if not dist.is_available() or not dist.is_initialized():
        return Ranks()
    return Ranks(rank=dist.get_rank(), world=dist.get_world_size())


@contextmanager
def ranks_of_torchrun() -> Iterator[Ranks]:
    """Join the processes that torchrun started, by its environment; without torchrun there is one."""
    if world_size() == 1:
        yield Ranks()
        return
    if (local_rank() or 0) < torch.cuda.device_count():
        torch.cuda.set_device(local_rank() or 0)
    with lost_ranks():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE
        )
    try:
        yield current_ranks()
    finally:
        dist.destroy_process_group()


@contextmanager
def lost_ranks() -> Iterator[None]:
    """Turn the end of another process, which an exchange with it meets, into a UserError."""
    try:
        yield
    except (RuntimeError, Terminated) as error:
        # torchrun ends all processes when one is lost: its signal may come before this is told.
        lost = error.__context__ if isinstance(error, Terminated) else error
        if not isinstance(lost, RuntimeError):
            raise
        why = re.sub(r"^\[\S+\] ", "", reason_of(lost))  # without the line of whose code it is
        raise UserError(
            f"another process of this torchrun was lost ({why})",
            fix="read what it said; then run the same command again: what is finished is kept.",
        ) from lost
