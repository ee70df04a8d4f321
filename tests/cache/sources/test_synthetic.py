from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from cache.sources.synthetic import CHUNK_ROWS, SyntheticSource


def pictures(source):
    return [np.asarray(sample.pictures()[0]) for sample in source.all()]


def test_equal_seeds_draw_equal_pictures_and_others_others():
    one, same, other = (
        SyntheticSource("train", rows=12, classes=3, side=16, seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(pictures(one), pictures(same))
    assert np.asarray(pictures(one)).shape == (12, 16, 16, 3)
    drawn = {picture.tobytes() for picture in (*pictures(one), *pictures(other))}
    assert len(drawn) == 24
    hashes = {sample.identity()[0] for source in (one, other) for sample in source.all()}
    assert len(hashes) == 24
    assert one.chunks() == same.chunks() != other.chunks()


def test_classes_take_turns():
    source = SyntheticSource("train", rows=10, classes=4)
    assert len(source.classes) == 4
    counts = [sum(sample.labels == (name,) for sample in source.all()) for name in source.classes]
    assert counts == [3, 3, 2, 2]


def test_more_rows_leave_those_that_were_there():
    few, more = (
        SyntheticSource("train", rows=rows, classes=7) for rows in (2 * CHUNK_ROWS + 3, 3 * CHUNK_ROWS + 1)
    )
    same = [a.identity == b.identity for a, b in zip(few.chunks(), more.chunks(), strict=False)]
    assert same == [True, True, False]
    assert [one.key for one in few.list("00002")] == [
        one.key for one in more.list("00002") if int(one.key.partition("/")[2]) < len(few)
    ]


def test_ten_million_rows_cost_nothing_until_they_are_listed():
    source = SyntheticSource("train", rows=10**7, classes=1000)
    chunks = source.chunks()
    assert (len(chunks), len(source)) == (153, 10**7)
    listed = list(islice(source.list(chunks[-1].id), 3))
    assert [one.key for one in listed] == sorted(one.key for one in listed)
    assert [sample.key for sample in source.samples([one.key for one in listed])] == [
        one.key for one in listed
    ]


def test_a_key_of_another_class_or_beyond_the_rows_is_none_of_it():
    source = SyntheticSource("train", rows=10, classes=4)
    for key in ("00000/000000001", "00002/000000010", "00000/-00000004", "00000/4", "00000/000000004/x"):
        with pytest.raises(KeyError):
            list(source.samples([key]))


@pytest.mark.parametrize("wrong", [{"rows": -1}, {"classes": 0}, {"side": 0}, {"seed": -1}, {"rows": 10**9}])
def test_a_source_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="no source of"):
        SyntheticSource("train", **{"rows": 1, "classes": 1, **wrong})
