"""Workers hand over what they were given, and their end is noticed and told once."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import torch

from cache.runtime.loader_workers import batches


def test_tensors_of_workers_come_as_they_were_sent():
    given = [
        torch.arange(6, dtype=torch.uint8).view(2, 3).T,
        torch.ones(3, dtype=torch.bfloat16),
        torch.empty(0, 4),
        torch.tensor(7),
    ]
    for number, got in enumerate(batches(given, 2, batch_size=None, shuffle=False)):
        assert got.dtype == given[number].dtype
        assert got.shape == given[number].shape
        assert torch.equal(got, given[number])


def test_what_nobody_can_raise_is_told_by_the_hook_that_was_there_but_not_a_workers_end(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: told.append(str(what.exc_value)))
    for _ in range(2):  # the second finds it installed
        assert list(batches([1, 2], 1, batch_size=None)) == [1, 2]
    for words in ("another's", "DataLoader worker (pid 7) is killed by signal: Killed."):
        sys.unraisablehook(SimpleNamespace(exc_value=RuntimeError(words)))
    assert told == ["another's"]
