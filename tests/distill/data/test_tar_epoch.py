"""The order of an epoch of tars: every row once, whoever reads it, and the same after a stop."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from distill.data.id_val import SetAside, shares_of
from distill.data.tar_epoch import TarEpoch

COUNTS = (7, 0, 23, 12, 5, 40, 1, 3)


def epoch_of(world=1, repeats=1, batch_size=6, epoch=0, seed=3, counts=COUNTS):
    return TarEpoch(
        counts=counts, batch_size=batch_size, repeats=repeats, seed=seed, epoch=epoch, world=world
    )


def lane_of(epoch, rank, lane, window=4):
    """The (tar, row) that a lane gives, in its order."""
    for piece in epoch.pieces(rank, lane):
        rows = ((piece.tar, row) for row in range(piece.start, piece.stop))
        yield from epoch.mixed(rows, piece, window)


def steps_of(epoch, rank):
    """The rows of every step of a process."""
    lanes = [lane_of(epoch, rank, lane) for lane in range(epoch.lanes)]
    return [
        list(islice(lanes[step % epoch.lanes], epoch.share(step, rank)))
        for step in range(epoch.first, epoch.steps)
    ]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("batch_size", [5, 6, 30])
def test_every_row_is_given_as_often_as_it_is_repeated_whoever_reads(world, repeats, batch_size):
    epoch = epoch_of(world, repeats, batch_size)
    of_ranks = [steps_of(epoch, rank) for rank in range(world)]
    assert {len(steps) for steps in of_ranks} == {len(epoch)}
    given = Counter(row for steps in of_ranks for step in steps for row in step)
    whole = sum(COUNTS) * repeats
    left_out = whole - sum(given.values())
    assert 0 <= left_out <= (epoch.least - 1) * repeats
    assert set(given.values()) <= set(range(1, repeats + 1))
    for step in range(len(epoch)):
        rows = [row for steps in of_ranks for row in steps[step]]
        assert len(set(rows)) == len(rows)  # no image meets its copy
        assert sum(len(steps[step]) for steps in of_ranks) == epoch.size(step) == len(epoch[step])


def test_epochs_differ_and_are_functions_of_seed_and_epoch():
    first = steps_of(epoch_of(), 0)
    assert first == steps_of(epoch_of(), 0)
    assert first != steps_of(epoch_of(epoch=1), 0)
    assert first != steps_of(epoch_of(seed=4), 0)


def test_a_lane_goes_on_from_any_step_without_what_it_gave_before():
    epoch = epoch_of(world=2)
    whole = steps_of(epoch, 1)
    for first in range(len(epoch)):
        lanes = {}
        for lane in range(epoch.lanes):
            lanes[lane] = islice(lane_of(epoch, 1, lane), epoch.rows(1, lane, before=first), None)
        rest = [
            list(islice(lanes[step % epoch.lanes], epoch.share(step, 1))) for step in range(first, len(epoch))
        ]
        assert rest == whole[first:]


def test_the_tars_that_are_done_are_those_whose_every_row_was_given():
    epoch = epoch_of(world=2, batch_size=7)  # of which no row is left out
    of_ranks = [steps_of(epoch, rank) for rank in range(2)]
    for step in range(len(epoch) + 1):
        given = Counter(tar for steps in of_ranks for rows in steps[:step] for tar, _ in rows)
        assert {int(epoch.order[turn]) for turn in epoch.done(step)} == {
            tar for tar, count in enumerate(COUNTS) if count and given[tar] == count
        }


def test_rest_of_an_epoch_is_its_steps_from_one_on():
    epoch = epoch_of()
    rest = epoch[4:]
    assert len(rest) == len(epoch) - 4
    assert rest[0] == epoch[4]
    assert list(rest) == list(epoch)[4:]


def test_a_window_of_one_keeps_the_order_and_a_large_one_does_not():
    epoch = epoch_of(counts=(50,))
    (piece,) = epoch.pieces(0, 0)
    assert list(epoch.mixed(range(48), piece, 1)) == list(range(48))
    mixed = list(epoch.mixed(range(48), piece, 1000))
    assert sorted(mixed) == list(range(48)) != mixed


def test_what_is_set_aside_is_a_share_whatever_the_groups_and_leaves_every_class_one():
    hashes = np.random.default_rng(0).integers(0, 2**64, 4000, dtype=np.uint64)
    labels = np.arange(4000) % 7
    whole = SetAside.drawn(0.25, 7, lambda: [(hashes, labels)])
    parts = SetAside.drawn(0.25, 7, lambda: [(hashes[:10], labels[:10]), (hashes[10:], labels[10:])])
    assert whole == parts == replace(whole, kept=())
    assert whole.of(hashes).mean() == pytest.approx(0.25, abs=0.03)
    for part in np.array_split(np.sort(hashes), 8):
        assert whole.of(part).mean() == pytest.approx(0.25, abs=0.08)
    every = np.append(labels[:-1], 7)
    lonely = SetAside.drawn(0.999, 8, lambda: [(hashes, every)])
    for label in range(8):
        assert not lonely.of(hashes)[every == label].all()
    halves = SetAside.drawn(0.999, 8, lambda: [(hashes[:9], every[:9]), (hashes[9:], every[9:])])
    assert halves == lonely
    assert ((shares_of(hashes) >= 0) & (shares_of(hashes) <= 1)).all()
