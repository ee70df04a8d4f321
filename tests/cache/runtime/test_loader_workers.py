"""What a loader's processes leave as it was in the one that starts them."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import torch

from cache.runtime.loader_workers import batches


def test_what_is_no_workers_end_is_told_by_whoever_told_it_before(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    for _ in range(2):
        assert [batch.tolist() for batch in batches(torch.arange(2), 1, batch_size=2)] == [[0, 1]]
    other = SimpleNamespace(exc_value=ValueError("of a finaliser"))
    for what in (SimpleNamespace(exc_value=RuntimeError("DataLoader worker exited")), other):
        sys.unraisablehook(what)
    assert told == [other]
