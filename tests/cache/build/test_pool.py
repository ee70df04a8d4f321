"""A pool: rows without labels are embedded, counted, kept and verified like any, and judged by nothing."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.pools import import_pool_cache

from cache import EmbeddingCache
from cache.build.options import Build, BuildOptions
from cache.build.pipeline import build_cache
from cache.build.zero_shot import zero_shot
from cache.maintain.compact import compact_cache
from cache.maintain.convert import convert_cache
from cache.maintain.info import describe_cache
from cache.maintain.verify import verify_cache
from cache.sources.class_texts import BankTexts
from cache.sources.samples import DataFolder, labels_of
from cache.sources.splits import FOLDERS, SPLITS, split_name
from cache.sources.synthetic import SyntheticSource
from cache.store.row_group import read_keys
from cache.teacher.load import load_teacher


def test_the_pool_comes_after_train_and_has_two_names_on_disk():
    assert SPLITS == ("train", "pool", "id_test", "ood_test")
    assert split_name("unlabelled") == split_name("pool") == FOLDERS["pool"] == "pool"


def test_samples_of_a_pool_have_no_label_and_the_number_of_none():
    source = SyntheticSource("pool", rows=5, classes=0, side=8)
    assert source.classes == ()
    assert [one.key for one in source.all()] == [f"{row:09d}" for row in range(5)]
    assert [one.labels for one in source.list("00000")] == [()] * 5
    assert [one.key for one in source.samples(["000000003"])] == ["000000003"]
    labelled = SyntheticSource("train", rows=2, classes=2, side=8).all()
    assert labels_of([*labelled, *source.all()], ("00000", "00001")).tolist() == [0, 1, *[-1] * 5]


@pytest.fixture(scope="module")
def built(tmp_path_factory, teacher_dir):
    """A function that builds a cache of two classes and a pool of some rows, and returns it."""
    root, teacher = tmp_path_factory.mktemp("pool"), load_teacher(f"local-dir:{teacher_dir}")

    def build(pool):
        sources = {"train": SyntheticSource("train", rows=6, classes=2, side=16)} if pool < 9 else {}
        sources["pool"] = SyntheticSource("pool", rows=pool, classes=0, side=16, seed=1)
        folder, names = DataFolder(path=root, splits=sources), ("00000", "00001")
        options = BuildOptions(model="", batch_size=4, workers=0, device="cpu", neighbours=2)
        banks = [BankTexts(name="labels", texts=("a cat", "a dog"), classes=names, templates=("{}",))]
        out = root / f"cache{pool >= 9}"
        made = Build(
            folder=folder, out=out, teacher=teacher, spec=options.spec(teacher), options=options,
            banks=banks if pool < 9 else (),
        )  # fmt: skip
        build_cache(made)
        return EmbeddingCache.open(out)

    return build


def test_stage_1_embeds_a_pool_and_goes_on_with_it(built):
    cache = built(5)
    before = np.asarray(cache.split("pool").embeddings)
    rows = cache.split("pool")
    assert cache.split_names == ("train", "pool")
    assert (rows.class_names, rows.labels.tolist()) == ((), [-1] * 5)
    grown = built(7).split("pool")
    at = grown.find(list(rows.keys))
    assert len(grown) == 7
    np.testing.assert_array_equal(grown.embeddings[at], before)
    assert {
        labels for group in grown.groups.groups for labels in read_keys(cache.path, group.keys).labels
    } == {()}
    assert cache.neighbours("pool", "labels", 2) is None
    assert cache.neighbours("train", "labels", 2) is not None
    assert [one.split for one in zero_shot(cache, ["labels"])] == ["train"]
    assert [check.problem for check in verify_cache(cache.path) if check.problem] == []


def test_a_cache_of_a_pool_alone_is_one(built):
    cache = built(9)
    assert (cache.split_names, len(cache.split("pool"))) == (("pool",), 9)
    assert [check.problem for check in verify_cache(cache.path) if check.problem] == []


def test_an_import_and_its_info_count_the_pool(tmp_path):
    cache = import_pool_cache(tmp_path / "cache")
    assert {one.split: (one.rows, one.classes) for one in describe_cache(cache.path).splits} == {
        "train": (6, 3),
        "pool": (5, 0),
        "id_test": (6, 3),
    }


def test_copies_of_a_cache_keep_its_pool(tmp_path):
    cache = import_pool_cache(tmp_path / "cache")
    convert_cache(cache.path, tmp_path / "tars", format="webdataset")
    convert_cache(tmp_path / "tars", tmp_path / "copy", format="hdf5")
    compact_cache(tmp_path / "copy")
    for copy in map(EmbeddingCache.open, (tmp_path / "tars", tmp_path / "copy")):
        assert copy.split("pool").digests == cache.split("pool").digests
        assert copy.split("pool").labels.tolist() == [-1] * 5
        np.testing.assert_array_equal(copy.split("pool").embeddings[:], cache.split("pool").embeddings[:])
