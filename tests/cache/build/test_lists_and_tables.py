"""Stage 1 from lists, tables and datasets: the same rows as from a folder, and only what is new is embedded."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Counted
from helpers.picture_lists import write_pictures
from PIL import Image

from cache import EmbeddingCache
from cache.build.from_folder import FeatureOptions, cache_features
from cache.runtime.errors import UserError
from cache.runtime.torchvision_compat import torchvision
from cache.sources.data import Given
from cache.sources.source_options import SourceOptions

CLASSES = ("red_square", "blue_star")


def build(data, out: Path, **more):
    options = FeatureOptions(
        model=f"local-dir:{ROOT}/distill/demo/teacher", **{"batch_size": 1, "workers": 0, **more}
    )
    progress = Counted()
    return cache_features(data, out, options, progress=progress), progress


def rows_of(cache: Path, split: str = "train") -> dict[str, bytes]:
    opened = EmbeddingCache.open(cache).split(split)
    return {key: row.tobytes() for key, row in zip(opened.keys, np.asarray(opened.embeddings), strict=True)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of classes, and the same as a list, as parquet by path and with bytes."""
    root = tmp_path_factory.mktemp("photos")
    keys = [f"{name}/{i}.jpg" for name in CLASSES for i in range(10)]
    write_pictures(root / "photos", keys)
    with open(root / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [("path", "label", "key"), *((f"photos/{key}", key.split("/")[0], key) for key in keys)]
        )
    return root


@pytest.fixture(scope="module")
def of_folder(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("caches") / "folder"
    build(photos / "photos", out)
    return rows_of(out)


def test_a_list_gives_the_rows_of_its_folder(photos, of_folder, tmp_path):
    build(photos / "list.csv", tmp_path / "cache")
    assert rows_of(tmp_path / "cache") == of_folder


@pytest.mark.parametrize("group", [7, 100])
def test_parquet_gives_the_rows_of_the_folder(photos, of_folder, tmp_path, group):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    keys = [*of_folder]
    table = {
        "picture": [(photos / "photos" / key).read_bytes() for key in keys],
        "label": [CLASSES.index(key.split("/")[0]) for key in keys],
        "key": keys,
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet", row_group_size=group)
    build(tmp_path / "a.parquet", tmp_path / "cache", sources=SourceOptions(names=CLASSES), workers=2)
    assert rows_of(tmp_path / "cache") == of_folder
    assert EmbeddingCache.open(tmp_path / "cache").split("train").class_names == tuple(sorted(CLASSES))


def test_a_dataset_gives_the_rows_of_the_folder(photos, of_folder, tmp_path):
    build(torchvision.datasets.ImageFolder(photos / "photos"), tmp_path / "cache", workers=1)
    assert rows_of(tmp_path / "cache") == of_folder


def test_lines_that_are_added_are_all_that_is_embedded(tmp_path):
    write_pictures(tmp_path, [f"{i}.jpg" for i in range(8)])
    lines = [f"{i}.jpg,{CLASSES[i % 2]}\n" for i in range(8)]
    table = tmp_path / "list.csv"
    table.write_text("path,label\n" + "".join(lines[:6]))
    first, _ = build(table, tmp_path / "cache")
    before = rows_of(tmp_path / "cache")
    again, _ = build(table, tmp_path / "cache")
    table.write_text("path,label\n" + "".join(lines))
    grown, _ = build(table, tmp_path / "cache")
    assert (first.new_rows, again.new_rows, grown.new_rows) == (6, 0, 2)
    assert before.items() < rows_of(tmp_path / "cache").items()


def test_captions_of_a_list_are_the_captions_column(tmp_path):
    write_pictures(tmp_path, ["0.jpg", "1.jpg"])
    (tmp_path / "list.csv").write_text(
        "path,label,caption\n0.jpg,red_square,a red square\n1.jpg,blue_star,\n"
    )
    summary, _ = build(tmp_path / "list.csv", tmp_path / "cache")
    assert "train 1 of 2 images have their own" in str(summary)


def test_several_labels_and_none_are_kept(tmp_path):
    write_pictures(tmp_path, [f"{i}.jpg" for i in range(4)])
    (tmp_path / "list.csv").write_text(
        "path,labels,split\n0.jpg,red_square;blue_star,train\n1.jpg,blue_star,train\n2.jpg,,train\n3.jpg,,\n"
    )
    build(tmp_path / "list.csv", tmp_path / "cache")
    cache = EmbeddingCache.open(tmp_path / "cache")
    train = cache.split("train")
    order = np.argsort(train.keys)
    assert train.class_names == ("blue_star", "red_square")
    assert np.asarray(train.labels)[order].tolist() == [[1, 1], [1, 0], [0, 0]]
    assert [*cache.split("pool").keys] == ["3.jpg"]


def test_what_is_left_out_is_said_and_kept(tmp_path):
    write_pictures(tmp_path, ["0.jpg", "1.jpg"])
    (tmp_path / "list.csv").write_text("path,label\n0.jpg,red_square\n1.jpg,blue_star\ngone.jpg,blue_star\n")
    summary, _ = build(tmp_path / "list.csv", tmp_path / "cache")
    assert summary.left_out["train"].in_words() == ["1 that are not there: gone.jpg"]


def test_a_wrong_list_is_said_before_the_teacher_is_loaded(tmp_path):
    (tmp_path / "list.csv").write_text("a,b\n1,2\n")
    options = FeatureOptions(model="local-dir:none at all", workers=0)
    with pytest.raises(UserError, match="no column of pictures"):
        cache_features(tmp_path / "list.csv", tmp_path / "cache", options)


def test_sentences_and_a_set_of_templates_are_banks(photos, tmp_path):
    (tmp_path / "photos").symlink_to(photos / "photos")
    (tmp_path / "descriptions.json").write_text(
        '{"red square": ["It is red.", "It is square."], "blue_star": "It is blue."}'
    )
    (tmp_path / "list.csv").write_text((photos / "list.csv").read_text())
    build(tmp_path / "list.csv", tmp_path / "cache", templates=("simple_imagenet",))
    cache = EmbeddingCache.open(tmp_path / "cache")
    assert {name: cache.listed_bank(name).texts for name in cache.bank_names} == {
        "labels": 2,
        "descriptions": 3,
        "templates": 14,
    }
    (tmp_path / "chatgpt.txt").write_text("red_square\tIt is red.\nblue_star\tIt is blue.\n")
    with pytest.raises(UserError, match=r"chatgpt\.txt and descriptions\.json are both descriptions"):
        build(tmp_path / "list.csv", tmp_path / "cache")


def test_a_dataset_that_no_machine_shares_is_refused_on_a_cluster(tmp_path):
    picture = Image.new("RGB", (4, 4))
    with pytest.raises(UserError, match="in this process alone"):
        Given.of([(picture, "a")]).anywhere()
