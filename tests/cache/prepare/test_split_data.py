from __future__ import annotations

import csv
import io
import os
import sys

import pytest
from helpers.folders import every_file, keys_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.prepare.split import split_images
from cache.runtime.errors import CacheMismatch, UserError
from cache.runtime.progress import LineProgress
from cache.sources.data import open_data

NO_BYTES = pytest.mark.skipif(sys.platform == "darwin", reason="its file systems have UTF-8 names alone")
GOLDEN_OOD = {"cat", "dog", "fox"}
GOLDEN_ID_TEST = {"ant/3.jpg", "ant/4.jpg", "bee/3.jpg", "bee/4.jpg", "eel/1.jpg", "eel/4.jpg"}


@pytest.fixture
def source(tmp_path, write_jpeg):
    """SOURCE/CLASS/FILE: six classes of five images."""
    for name in ("ant", "bee", "cat", "dog", "eel", "fox"):
        for i in range(5):
            write_jpeg(tmp_path / "source" / name / f"{i}.jpg")
    return tmp_path / "source"


def test_a_ratio_keeps_classes_and_images_apart_and_loses_none(source, tmp_path):
    log = io.StringIO()
    progress = LineProgress("listing", patience=0, stream=log)
    summary = split_images(source, tmp_path / "data.csv", progress=progress)
    assert log.getvalue().startswith("listing: 30/30  ")
    assert summary.images == {"train": 9, "id_test": 6, "ood_test": 15}
    assert summary.classes == {"train": 3, "id_test": 3, "ood_test": 3}
    keys = keys_in(tmp_path / "data.csv")
    assert set.union(*keys.values()) == {f"{p.parent.name}/{p.name}" for p in source.rglob("*.jpg")}
    assert sum(map(len, keys.values())) == 30
    classes = {name: {key.split("/")[0] for key in split_keys} for name, split_keys in keys.items()}
    assert classes["train"] == classes["id_test"]
    assert not classes["train"] & classes["ood_test"]
    assert [path for path in tmp_path.iterdir() if path != source] == [tmp_path / "data.csv"]


def test_a_pool_beside_the_class_folders_stays_one(source, write_jpeg, tmp_path):
    split_images(source, tmp_path / "before.csv")
    write_jpeg(source / "Unlabelled" / "deep" / "1.jpg")
    summary = split_images(source, tmp_path / "after.csv")
    assert summary.lines()[3] == "pool: 1 images"
    assert keys_in(tmp_path / "after.csv") == {**keys_in(tmp_path / "before.csv"), "pool": {"deep/1.jpg"}}
    folder = open_data([tmp_path / "after.csv"])
    assert (len(folder.split("pool")), folder.classes["pool"]) == (1, ())
    assert [sample.identity()[1] > 0 for sample in folder.split("pool").all()] == [True]


@NO_BYTES
def test_names_that_a_list_cannot_hold_are_left_out_and_counted(source, tmp_path):
    os.rename(source / "ant" / "0.jpg", os.fsencode(source / "ant") + b"/caf\xe9.jpg")
    summary = split_images(source, tmp_path / "data.csv")
    assert summary.left_out == ("of a name that is not UTF-8, as a list is: 1 (ant/caf\udce9.jpg)",)
    assert sum(map(len, open_data([tmp_path / "data.csv"]).splits.values())) == 29


@pytest.mark.parametrize("name", ["data", "data.tsv", "data.parquet"])
def test_a_list_is_called_as_one(source, tmp_path, name):
    with pytest.raises(UserError, match=r"--out .* is not called as a list\. Fix: .*data\.csv"):
        split_images(source, tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_seed_is_a_split(source, tmp_path):
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        split_images(source, tmp_path / f"{out}.csv", seed=seed)
    assert keys_in(tmp_path / "a.csv") == keys_in(tmp_path / "b.csv") != keys_in(tmp_path / "c.csv")
    # Pinned: the same names and seed must give this split on every machine and with every numpy.
    keys = keys_in(tmp_path / "a.csv")
    assert {key.split("/")[0] for key in keys["ood_test"]} == GOLDEN_OOD
    assert keys["id_test"] == GOLDEN_ID_TEST


def test_more_images_of_one_class_leave_the_others_as_they_were(source, write_jpeg, tmp_path):
    split_images(source, tmp_path / "before.csv")
    for i in range(10, 20):
        write_jpeg(source / "bee" / f"{i}.jpg")
    split_images(source, tmp_path / "after.csv")
    before, after = keys_in(tmp_path / "before.csv"), keys_in(tmp_path / "after.csv")
    for split in before:
        assert {k for k in before[split] if k[:3] != "bee"} == {k for k in after[split] if k[:3] != "bee"}


@given(
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=6),
    ood=st.floats(0.3, 0.7),
    id_test=st.floats(0, 0.99),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_sizes_a_ratio_is_complete_and_disjoint(tmp_path_factory, sizes, ood, id_test, seed):
    tmp = tmp_path_factory.mktemp("ratio")
    for i, size in enumerate(sizes):
        (tmp / "source" / f"c{i}").mkdir(parents=True)
        for j in range(size):
            (tmp / "source" / f"c{i}" / f"{j}.jpg").write_bytes(b"no decoding here")
    split_images(tmp / "source", tmp / "data.csv", ood=ood, id_test=id_test, seed=seed)
    keys = keys_in(tmp / "data.csv")
    assert sum(map(len, keys.values())) == len(set.union(*keys.values())) == sum(sizes)
    trained = {key.split("/")[0] for key in keys["train"]}
    held_out = {key.split("/")[0] for key in keys.get("id_test", set())}
    assert not trained & {key.split("/")[0] for key in keys["ood_test"]}
    assert held_out == {name for name in trained if id_test > 0 and sizes[int(name[1:])] > 1}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ood": 0.01}, "makes 0 of 6 classes OOD"),
        ({"ood": 0.99}, "makes 6 of 6 classes OOD"),
        ({"ood": 1.0}, "the OOD share is 1.0"),
        ({"id_test": 1.0}, "the held-out share is 1.0"),
        ({"id_test": -0.1}, "the held-out share is -0.1"),
        ({"seed": -1}, "the seed is -1"),
    ],
)
def test_shares_that_leave_a_side_empty_are_refused(source, tmp_path, given, message):
    with pytest.raises(UserError, match=message):
        split_images(source, tmp_path / "data.csv", **given)
    assert not (tmp_path / "data.csv").exists()


def test_a_source_that_is_no_class_folders_is_refused(source, tmp_path):
    (source / "empty").mkdir()
    with pytest.raises(UserError, match="holds no picture"):
        split_images(source / "empty", tmp_path / "data.csv")
    with pytest.raises(UserError, match="does not exist"):
        split_images(source / "none", tmp_path / "data.csv")
    assert not (tmp_path / "data.csv").exists()


def test_images_lie_at_any_depth_and_those_outside_class_folders_are_counted(source, write_jpeg, tmp_path):
    write_jpeg(source / "loose.jpg")
    write_jpeg(source / "ant" / "deeper" / "a.jpg")
    (source / "empty").mkdir()
    summary = split_images(source, tmp_path / "data.csv")
    assert summary.left_out == ("1 without a label: loose.jpg", "1 class folders without a picture: empty/")
    assert "ant/deeper/a.jpg" in set.union(*keys_in(tmp_path / "data.csv").values())
    assert "left out: 1 without a label: loose.jpg" in summary.lines()


def test_a_list_of_classes_makes_just_those_ood(source, tmp_path):
    (tmp_path / "ood.txt").write_text("# unseen\n\nbee\n  fox \n")
    summary = split_images(source, tmp_path / "data.csv", ood_classes=tmp_path / "ood.txt")
    assert summary.images == {"train": 12, "id_test": 8, "ood_test": 10}
    assert {key.split("/")[0] for key in keys_in(tmp_path / "data.csv")["ood_test"]} == {"bee", "fox"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("bee\nfoxx\n", "names 'foxx', which is no class folder .*did you mean 'fox'"),
        ("# none\n", "names 0 of 6 classes"),
        ("ant\nbee\ncat\ndog\neel\nfox\n", "names 6 of 6 classes"),
    ],
)
def test_a_list_of_classes_that_cannot_be_is_refused(source, tmp_path, lines, message):
    (tmp_path / "ood.txt").write_text(lines)
    with pytest.raises(UserError, match=message):
        split_images(source, tmp_path / "data.csv", ood_classes=tmp_path / "ood.txt")
    assert not (tmp_path / "data.csv").exists()


def test_texts_beside_the_classes_are_taken_along(source, tmp_path):
    names = ("ant", "bee", "cat", "dog", "eel", "fox")
    (source / "label2text.txt").write_text("".join(f"{n} {i} big_{n}\n" for i, n in enumerate(names)))
    (source / "chatgpt.txt").write_text("It is an animal.\n" * 6)
    split_images(source, tmp_path / "data.csv")
    for name in ("label2text.txt", "chatgpt.txt"):
        assert (tmp_path / name).read_bytes() == (source / name).read_bytes()


def test_run_again_a_list_and_the_texts_beside_it_stay_untouched(source, tmp_path):
    (source / "label2text.txt").write_text("".join(f"{n} 1 {n}\n" for n in os.listdir(source)))
    first = split_images(source, tmp_path / "data.csv")
    own = (tmp_path / "label2text.txt").read_text().replace("1 cat", "1 big cat")
    (tmp_path / "label2text.txt").write_text(own)
    before = every_file(tmp_path)
    assert split_images(source, tmp_path / "data.csv") == first
    assert every_file(tmp_path) == before


@pytest.mark.parametrize("changed", [{"seed": 1}, {"ood": 0.4}, {"id_test": 0.2}])
def test_another_split_is_not_written_over_a_list(source, tmp_path, changed):
    split_images(source, tmp_path / "data.csv")
    before = every_file(tmp_path)
    with pytest.raises(CacheMismatch, match=r"data\.csv is there, and is not this split"):
        split_images(source, tmp_path / "data.csv", **changed)
    with pytest.raises(CacheMismatch, match="source is there"):
        split_images(source, source)
    assert every_file(tmp_path) == before


def test_a_folder_that_is_split_is_called_that(source, tmp_path):
    for name in ("train", "val"):
        (tmp_path / "made" / name).mkdir(parents=True)
        (tmp_path / "made" / name / "ant").symlink_to(source / "ant")
    with pytest.raises(UserError, match=r"made is split already \(train, val\)"):
        split_images(tmp_path / "made", tmp_path / "data.csv")


@pytest.mark.parametrize(("where", "begins"), [(".", "source/"), ("source", ""), ("lists/deep", "/")])
def test_paths_lead_from_the_list_to_the_images(source, tmp_path, where, begins):
    out = tmp_path / where / "data.csv"
    split_images(source, out)
    with open(out, newline="") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 30
    for row in rows:
        assert row["path"].startswith(begins or row["label"])
        assert (out.parent / row["path"]).samefile(source / row["key"])
        assert row["label"] == row["key"].partition("/")[0]
        assert row["split"] in ("train", "id_test", "ood_test")
