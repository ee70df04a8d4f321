"""Several sources as one split."""

from __future__ import annotations

import pickle

import pytest
from helpers.tars import photos, picture, write_tar

from cache.build.split_listing import list_split
from cache.runtime.errors import UserError
from cache.sources.data import open_data


@pytest.fixture
def places(tmp_path):
    """Two tars and a folder of pictures, of other keys each."""
    write_tar(tmp_path / "a" / "0.tar", photos(0, 3, "fig"))
    write_tar(tmp_path / "b" / "0.tar", photos(3, 3, "plum"))
    (tmp_path / "c" / "fig").mkdir(parents=True)
    for n in range(3):
        (tmp_path / "c" / "fig" / f"{n}.png").write_bytes(picture(n))
    return [tmp_path / name for name in "abc"]


def test_a_split_that_is_named_several_times_is_all_of_them(places):
    data = open_data([f"train={place}" for place in places])
    source = data.splits["train"]
    assert list(data.splits) == ["train"]
    assert source.classes == ("fig", "plum")
    keys = [one.key for chunk in source.chunks() for one in source.list(chunk.id)]
    assert len(keys) == len({*keys}) == len(source) == 9
    assert [one.key for one in source.all()] == sorted(keys)


def test_samples_of_any_order_are_asked_of_each_source_once(places, monkeypatch):
    source = pickle.loads(pickle.dumps(open_data([f"train={place}" for place in places]).splits["train"]))
    keys = ["fig/1.png", "000004", "000000", "fig/0.png", "000005", "000001"]
    asked = []
    for part in source.parts:
        samples = part.samples
        monkeypatch.setattr(part, "samples", lambda keys, of=samples: asked.append(len(keys)) or of(keys))
    assert [sample.key for sample in source.samples(keys)] == keys
    assert sorted(asked) == [2, 2, 2]
    with pytest.raises(KeyError, match="nothing"):
        source.samples([*keys, "nothing"])


def test_one_key_in_two_sources_is_an_error(places):
    source = open_data([f"train={places[0]}", f"train={places[1]}", f"train={places[0]}"]).splits["train"]
    with pytest.raises(UserError, match=r"00000\d"):
        list_split(source, source.chunks())


def test_one_place_may_be_several_splits(places):
    data = open_data([f"train={places[0]}", f"pool={places[0]}", f"pool={places[1]}"])
    assert {name: len(source) for name, source in data.splits.items()} == {"train": 3, "pool": 6}
    assert {one.labels for one in data.splits["pool"].all()} == {()}
