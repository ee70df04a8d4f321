"""Which images a batch has where every class comes alike often: laws, for any sizes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distill.data.epoch_order import balanced_order, epoch_batches


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8), seed=st.integers(0, 5))
def test_a_balanced_pass_has_as_many_images_as_there_are_and_of_each_class_alike_many(sizes, seed):
    labels = np.repeat(np.arange(len(sizes)) * 3, sizes)
    order = balanced_order(labels, np.random.default_rng(seed))
    assert len(order) == len(labels)
    of_class = np.bincount(labels[order], minlength=labels[-1] + 1)[::3]
    assert of_class.max() - of_class.min() <= 1
    # and each image of a class as often as any other
    for number in range(len(sizes)):
        own = np.bincount(order, minlength=len(labels))[labels == number * 3]
        assert own.max() - own.min() <= 1


def test_balanced_batches_have_every_class_and_no_image_twice():
    labels = np.repeat([0, 1, 2, 3], [1, 5, 30, 60])
    batches = epoch_batches(len(labels), batch_size=12, repeats=2, seed=0, epoch=0, labels=labels)
    for batch in batches:
        assert len(set(batch.tolist())) == len(batch)
        assert set(labels[batch]) == {0, 1, 2, 3}
    # Three places of twelve: a class of one image has one of them.
    assert [len(batch) for batch in batches] == [10] * 16
    again = epoch_batches(len(labels), batch_size=12, repeats=2, seed=0, epoch=0, labels=labels)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
