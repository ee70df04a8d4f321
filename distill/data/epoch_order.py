"""Which images each batch of an epoch has: functions of numbers, a seed and an epoch alone.

Every pass over the data is cut into batches by itself: an image that met its own copy in a batch would be a
wrong answer of im_cst that is as right as its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def epoch_batches(
    count: int,
    *,
    batch_size: int,
    repeats: int,
    seed: int,
    epoch: int,
    least: int = 2,
    labels: Indices | None = None,
) -> list[Indices]:
    """Return an epoch's batches of image indices: ``repeats`` passes, each of another permutation.

    A last batch of a pass of fewer than ``least`` images is left out: batch norm cannot train on one, and
    each of several processes needs one. With ``labels`` int64 [count] each class comes alike often, see
    :func:`balanced_order`.
    """
    rng = np.random.default_rng([seed, epoch])
    batches: list[Indices] = []
    for _ in range(repeats):
        order = rng.permutation(count) if labels is None else balanced_order(labels, rng)
        own = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        if labels is not None:
            own = [_each_once(batch) for batch in own]
        batches += [batch for batch in own if len(batch) >= least]
    return batches


def balanced_order(labels: Indices, rng: np.random.Generator) -> Indices:
    """Return as many images as there are, of which every class has alike many (up to one).

    ``labels`` int64 [N]. The images come in rounds of one of each class, in an order that is drawn. A class
    gives its images one after the other, over and over, in an order that is drawn: of as many places as it
    has images each is another.
    """
    present, class_of, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    mixed = rng.permutation(len(labels))
    by_class = mixed[np.argsort(class_of[mixed], kind="stable")]
    begins = np.cumsum(sizes) - sizes
    rounds = -(-len(labels) // max(1, len(present)))
    classes = rng.permuted(np.tile(np.arange(len(present)), (rounds, 1)), axis=1)
    places = begins[classes] + np.arange(rounds)[:, None] % sizes[classes]
    order: Indices = by_class[places.ravel()[: len(labels)]]
    return order


def _each_once(batch: Indices) -> Indices:
    """Return a batch without copies: a class with fewer images than its places in it has fewer there."""
    _, first = np.unique(batch, return_index=True)
    return batch[np.sort(first)]


def mixed_batches(
    drawn: list[Indices], count: int, more: int, *, places: int, seed: int, epoch: int, least: int = 1
) -> list[Indices]:
    """Return batches with images of a second kind among those that are drawn, in an order that is drawn.

    Images ``0 .. count - 1`` are in the batches ``drawn``. Of the ``more`` images after them ``places`` are
    in every batch, or all if they are fewer: none twice in a batch, and over an epoch each as often as any
    other (up to one). A batch that has fewer than ``least`` images even so is left out.
    """
    places = min(more, places)
    rng = np.random.default_rng([seed, epoch, more])
    queue: Indices = np.empty(0, dtype=np.int64)
    batches = []
    for batch in drawn:
        if len(batch) + places < least:
            continue
        chosen, queue = queue[:places], queue[places:]
        if len(chosen) < places:
            fresh = rng.permutation(more)
            new = ~np.isin(fresh, chosen)
            taken = np.flatnonzero(new)[: places - len(chosen)]
            queue = np.delete(fresh, taken)
            chosen = np.concatenate([chosen, fresh[taken]])
        batches.append(rng.permutation(np.concatenate([batch, count + chosen])))
    return batches
