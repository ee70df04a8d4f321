"""Which few-shot images are drawn, and how they are mixed into batches: laws, for any sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.given_samples import Given
from hypothesis import given
from hypothesis import strategies as st

from cache.runtime.errors import UserError
from cache.sources.folder_listing import FolderRoot
from cache.sources.image_folder import ImageSample
from cache.sources.samples import DataFolder
from distill.data.epoch_order import epoch_batches, mixed_batches
from distill.data.stream import splits_to_judge
from distill.data.support import pick_episodes, pick_support
from distill.fewshot.retrieval import support_bank

NAMES = st.text("abcxyz_ é1", min_size=1, max_size=6)
CLASSES = st.dictionaries(NAMES, st.sets(NAMES, min_size=4, max_size=12), min_size=1, max_size=5)


def keyed(classes):
    return {name: [f"{name}/{file}" for file in files] for name, files in classes.items()}


@given(classes=CLASSES, shots=st.integers(1, 3), seed=st.integers(-1, 5), rng=st.randoms())
def test_a_support_is_as_many_distinct_images_of_every_class_whatever_order_they_come_in(
    classes, shots, seed, rng
):
    by_class = keyed(classes)
    support = pick_support(by_class, shots=shots, seed=seed)
    assert len(support) == len(set(support)) == shots * len(by_class)
    for i, name in enumerate(sorted(by_class)):
        assert set(support[i * shots : (i + 1) * shots]) <= set(by_class[name])
    shuffled = {
        name: rng.sample(keys, len(keys))
        for name, keys in rng.sample(sorted(by_class.items()), len(by_class))
    }
    assert pick_support(shuffled, shots=shots, seed=seed) == support


@given(classes=CLASSES, shots=st.integers(1, 3))
def test_without_a_seed_the_support_is_the_first_images_sorted_by_key(classes, shots):
    by_class = keyed(classes)
    expected = [key for name in sorted(by_class) for key in sorted(by_class[name])[:shots]]
    assert pick_support(by_class, shots=shots) == expected


@given(classes=CLASSES, seed=st.integers(0, 5))
def test_what_is_drawn_of_a_class_does_not_depend_on_the_other_classes(classes, seed):
    by_class = keyed(classes)
    support = pick_support(by_class, shots=2, seed=seed)
    for i, name in enumerate(sorted(by_class)):
        assert pick_support({name: by_class[name]}, shots=2, seed=seed) == support[2 * i : 2 * i + 2]


def test_other_seeds_draw_other_images():
    by_class = {"a": [f"a/{i:02}" for i in range(40)]}
    assert len({tuple(pick_support(by_class, shots=5, seed=seed)) for seed in range(8)}) == 8


def test_a_class_without_an_image_left_to_test_on_is_named():
    with pytest.raises(UserError, match="'plum' has 2 images, so 2 shots would leave none"):
        pick_support({"lemon": ["l/1", "l/2", "l/3"], "plum": ["p/1", "p/2"]}, shots=2)


@given(classes=CLASSES, shots=st.integers(1, 3), seed=st.integers(-1, 3))
def test_the_query_is_all_images_less_the_support(classes, shots, seed):
    by_class = keyed(classes)
    images = tuple(
        ImageSample(key=key, of=FolderRoot(root=""))
        for name in sorted(by_class)
        for key in sorted(by_class[name])
    )
    support = pick_support(by_class, shots=shots, seed=seed)
    folder = DataFolder(path=Path("photos"), splits={"ood_test": Given(tuple(sorted(by_class)), images)})
    ((name, left, _),) = splits_to_judge(folder, support)
    assert name == "ood_query"
    query = {image.key for image in left}
    assert query.isdisjoint(support)
    assert query | set(support) == {image.key for image in images}


@given(
    count=st.integers(1, 40),
    support=st.integers(1, 30),
    batch_size=st.integers(2, 16),
    repeats=st.integers(1, 3),
    seed=st.integers(0, 3),
    epoch=st.integers(0, 3),
)
def test_few_shot_images_fill_half_of_every_batch_and_each_comes_as_often_as_the_others(
    count, support, batch_size, repeats, seed, epoch
):
    def draw():
        places, at = min(support, batch_size // 2), {"seed": seed, "epoch": epoch}
        drawn = epoch_batches(count, batch_size=batch_size - places, repeats=repeats, least=1, **at)
        return places, mixed_batches(drawn, count, support, places=places, **at)

    places, batches = draw()
    for batch in batches:
        assert len(batch) == len(set(batch.tolist()))
        few = batch[batch >= count]
        assert len(few) == len(set(few.tolist())) == places
        assert len(batch) <= batch_size
    every = np.bincount(np.concatenate(batches), minlength=count + support)
    assert (every[:count] == repeats).all()
    assert every[count:].max() - every[count:].min() <= 1
    _, again = draw()
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


def test_a_mixed_batch_of_fewer_images_than_processes_is_left_out():
    drawn = [np.arange(6), np.arange(6, 7)]
    batches = mixed_batches(drawn, 7, 2, places=2, seed=0, epoch=0, least=4)
    assert [len(batch) for batch in batches] == [8]


def test_the_order_of_batches_is_another_in_every_epoch():
    one, other = (
        mixed_batches([np.arange(5), np.arange(5, 10)], 10, 6, places=4, seed=0, epoch=epoch)
        for epoch in (0, 1)
    )
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_support_bank_has_unit_rows_by_class_and_averages_an_images_views():
    views = torch.randn(6, 3, 5, generator=torch.Generator().manual_seed(0)).double()
    kept = support_bank(views, 3, average=False)
    assert kept.shape == (3, 6, 5)
    for n in range(6):
        for v in range(3):
            row = views[n, v] / views[n, v].norm()
            torch.testing.assert_close(kept[n // 2, (n % 2) * 3 + v].double(), row, rtol=1e-5, atol=1e-6)
    mean = sum(views[2, v] / views[2, v].norm() for v in range(3)) / 3
    averaged = support_bank(views, 3, average=True)
    assert averaged.shape == (3, 2, 5)
    torch.testing.assert_close(averaged[1, 0].double(), mean / mean.norm(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", [-1, 0, 7])
def test_as_many_episodes_are_drawn_as_shots_and_each_once(seed):
    keys = [f"episode_{i}" for i in range(9)]
    for shots in (1, 4, 8):
        drawn = pick_episodes(keys, shots=shots, seed=seed)
        assert len(drawn) == len(set(drawn)) == shots
        assert drawn == [key for key in keys if key in drawn]
    with pytest.raises(UserError, match="leave none"):
        pick_episodes(keys, shots=9, seed=seed)
