"""What every source keeps to, whatever it is of."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import pytest

from cache.sources.data import open_data
from cache.sources.episodes import EpisodeFolder
from cache.sources.synthetic import SyntheticSource


@pytest.fixture(params=["photos", "episodes", "synthetic"])
def source(request, monkeypatch):
    """A source of several chunks."""
    monkeypatch.setattr("cache.sources.key_chunks.MOST", 4)
    monkeypatch.setattr("cache.sources.synthetic.CHUNK_ROWS", 7)
    if request.param == "synthetic":
        return SyntheticSource("train", rows=30, classes=4, side=8, seed=5)
    data = request.getfixturevalue(request.param)
    folder = open_data([data]) if request.param == "photos" else EpisodeFolder.scan(data)
    return folder.split("train")


def test_chunks_hold_every_sample_once(source):
    chunks = source.chunks()
    listed = {chunk.id: [one.key for one in source.list(chunk.id)] for chunk in chunks}
    assert len(listed) == len(chunks) > 2
    keys = sorted(key for keys in listed.values() for key in keys)
    assert keys == [sample.key for sample in source.all()]
    assert len(set(keys)) == len(source)


def test_what_is_listed_is_what_the_sample_says_of_itself(source):
    for chunk in source.chunks():
        listed, samples = list(source.list(chunk.id)), list(source.read(chunk.id))
        assert [one.key for one in listed] == [sample.key for sample in samples]
        for one, sample in zip(listed, samples, strict=True):
            assert one.labels == sample.labels
            assert set(one.labels) <= set(source.classes)
            assert (one.bytes, one.mtime_ns) == sample.status() == sample.identity()[1:]


def test_a_sample_has_a_picture_a_view(source):
    sample = next(source.read(source.chunks()[0].id))
    assert sample.views[0] == "image"
    assert [picture.mode for picture in sample.pictures()] == ["RGB"] * len(sample.views)


def test_some_samples_of_a_chunk_come_in_the_order_of_its_list(source):
    chunk = max(source.chunks(), key=lambda chunk: len(list(source.list(chunk.id)))).id
    keys = [one.key for one in source.list(chunk)]
    some = {keys[-1], keys[0], "no/such"}
    assert [sample.key for sample in source.read(chunk, some)] == [keys[0], keys[-1]]


def test_samples_come_in_the_order_of_their_keys(source):
    keys = [sample.key for sample in source.all()][::-3]
    assert [sample.key for sample in source.samples(keys)] == keys
    assert list(source.samples(keys)) == [source.all()[::-1][3 * i] for i in range(len(keys))]


@pytest.mark.parametrize(
    "key", ["../val/apple/x.jpg", "apple/../x.jpg", "apple/.x.jpg", "apple", "pear/x.jpg", ""]
)
def test_a_key_that_cannot_be_in_a_source_gives_no_sample(source, key):
    with pytest.raises(KeyError):
        list(source.samples([key]))


def test_a_chunk_of_other_bounds_is_listed_as_well(photos, monkeypatch):
    # By a process that listed the folder when there was more or less in it.
    monkeypatch.setattr("cache.sources.key_chunks.MOST", 4)
    source = open_data([photos]).split("train")
    assert sorted(one.key for half in ("0*", "1*") for one in source.list(half)) == [
        s.key for s in source.all()
    ]
    assert [one.key for one in source.list("*")] == [sample.key for sample in source.all()]


def test_a_source_is_small_and_lists_the_same_in_another_process(source):
    wanted = listing(source)
    assert len(source.all()) == len(source)
    assert len(pickle.dumps(source)) < 2000
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        assert pool.submit(listing, source).result() == wanted


def listing(source):
    """Everything in a source, by key; another process may cut it into chunks of other bounds."""
    return sorted(
        (tuple(one), sample.identity())
        for chunk in source.chunks()
        for one, sample in zip(source.list(chunk.id), source.read(chunk.id), strict=True)
    )
