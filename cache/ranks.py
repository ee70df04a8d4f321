"""The processes that ``torchrun`` starts side by side: which this is, and how they wait for each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist

from cache.errors import UserError

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

    def from_first(self, value: T) -> T:
        """Return rank 0's value on every rank."""
        if self.world == 1:
            return value
        box = [value]
        with _lost_ranks():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Return when every rank has come here."""
        if self.world > 1:
            with _lost_ranks():
                dist.barrier()


@contextmanager
def ranks_of_torchrun() -> Iterator[Ranks]:
    """Join the processes that torchrun started, by its environment; without torchrun there is one."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks()
        return
    with _lost_ranks():
        dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Ranks(rank=dist.get_rank(), world=world)
    finally:
        dist.destroy_process_group()


@contextmanager
def _lost_ranks() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            f"another process of this torchrun was lost ({str(error).splitlines()[0]})",
            fix="read what it said; then run the same command again: what is finished is kept.",
        ) from error
