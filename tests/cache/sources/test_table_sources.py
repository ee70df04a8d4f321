"""Parquet and saved datasets as sources: pictures by reference or as bytes, in groups of rows."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import pytest
from conftest import ROOT
from helpers.picture_lists import jpeg, keys_of, labels_by_key, splits_of, write_pictures

from cache.runtime.errors import UserError
from cache.sources import arrow_files, table_source
from cache.sources.list_columns import Columns
from cache.sources.source_options import SourceOptions

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def table_of(count, **more):
    return pa.table(
        {"image": [jpeg(i) for i in range(count)], "label": ["ab"[i % 2] for i in range(count)], **more}
    )


def hub_table(count, *, labels=None):
    """A table as the hub has it: an Image feature and a ClassLabel."""
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    table = pa.table(
        {
            "image": [{"bytes": jpeg(i), "path": "same.jpg"} for i in range(count)],
            "label": labels or [i % 2 for i in range(count)],
        }
    )
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def contents(source):
    return {one.key: one.content() for one in source.all()}


def test_a_table_of_paths_is_a_list(tmp_path):
    write_pictures(tmp_path, ["0.jpg", "1.jpg"])
    rows = {
        "path": ["0.jpg", "1.jpg", "gone.jpg"],
        "label": ["a", "b", "a"],
        "split": ["train", "pool", "train"],
    }
    pq.write_table(pa.table(rows), tmp_path / "list.parquet")
    splits = splits_of(tmp_path / "list.parquet")
    assert {name: contents(one) for name, one in splits.items()} == {
        "train": {"0.jpg": jpeg(0)},
        "pool": {"1.jpg": jpeg(1)},
    }
    assert splits["train"].account().in_words() == ["1 that are not there: gone.jpg"]


def test_a_file_beside_a_table_of_paths_that_is_written_again_is_noticed(tmp_path):
    write_pictures(tmp_path, ["0.jpg"])
    pq.write_table(pa.table({"path": ["0.jpg"], "label": ["a"]}), tmp_path / "list.parquet")
    before = splits_of(tmp_path / "list.parquet")["train"].chunks()
    (tmp_path / "0.jpg").write_bytes(jpeg(77) + b"more")
    assert splits_of(tmp_path / "list.parquet")["train"].chunks() != before


@pytest.mark.parametrize("most", [2**26, 0])
def test_pictures_in_a_table_are_read_with_their_group_or_some_rows_at_a_time(tmp_path, monkeypatch, most):
    monkeypatch.setattr(arrow_files, "GROUP_BYTES", most)
    monkeypatch.setattr(arrow_files, "WINDOW_ROWS", 2)
    pq.write_table(
        table_of(11, path=[f"x/{i:02d}.jpg" for i in range(11)]), tmp_path / "a.parquet", row_group_size=4
    )
    source = splits_of(tmp_path / "a.parquet")["train"]
    assert [chunk.id for chunk in source.chunks()] == ["a:0", "a:1", "a:2"]
    assert contents(source) == {f"x/{i:02d}.jpg": jpeg(i) for i in range(11)}
    backwards = [f"x/{i:02d}.jpg" for i in (10, 9, 3, 0, 7)]
    assert [one.content() for one in source.samples(backwards)] == [jpeg(i) for i in (10, 9, 3, 0, 7)]
    assert source.all()[5].pictures()[0].size == (24, 20)


def test_a_large_group_is_several_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(table_source, "CHUNK_ROWS", 3)
    pq.write_table(table_of(7), tmp_path / "a.parquet")
    source = splits_of(tmp_path / "a.parquet")["train"]
    assert [chunk.id for chunk in source.chunks()] == ["a:0:0", "a:0:3", "a:0:6"]
    assert contents(source) == {f"a/{i:07d}": jpeg(i) for i in range(7)}


def test_a_layout_of_the_hub_says_splits_and_names_of_classes(tmp_path):
    (tmp_path / "data").mkdir()
    pq.write_table(hub_table(3), tmp_path / "data" / "train-00000-of-00002.parquet")
    pq.write_table(hub_table(2), tmp_path / "data" / "train-00001-of-00002.parquet")
    pq.write_table(hub_table(2), tmp_path / "data" / "validation-00000-of-00001.parquet")
    pq.write_table(hub_table(1, labels=[-1]), tmp_path / "data" / "unlabelled-00000-of-00001.parquet")
    splits = splits_of(tmp_path)
    assert labels_by_key(splits["train"]) == {
        "train-00000-of-00002/0000000": ("cat",),
        "train-00000-of-00002/0000001": ("dog",),
        "train-00000-of-00002/0000002": ("cat",),
        "train-00001-of-00002/0000000": ("cat",),
        "train-00001-of-00002/0000001": ("dog",),
    }
    assert (len(splits["id_test"]), len(splits["pool"])) == (2, 1)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.parquet", "train"),
        ("train/0000.parquet", "train"),
        ("id_test-1.parquet", "id_test"),
        ("trainer.parquet", "train"),
    ],
)
def test_a_file_or_folder_called_as_a_split_is_it(tmp_path, name, split):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    pq.write_table(hub_table(2), tmp_path / name)
    assert [*splits_of(tmp_path / name)] == [split]


def test_a_pattern_is_several_files(tmp_path):
    for number in range(3):
        pq.write_table(hub_table(2), tmp_path / f"train-{number}.parquet")
    assert len(splits_of(f"{tmp_path}/train-*.parquet")["train"]) == 6
    assert len(splits_of(f"{tmp_path}/train-{{0..1}}.parquet")["train"]) == 4


def test_columns_of_keys_captions_and_several_labels(tmp_path):
    rows = {
        "image": [jpeg(0), jpeg(1)],
        "labels": [["a", "b"], ["b"]],
        "key": ["first", "second"],
        "caption": [["one", "two"], ["three"]],
    }
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    source = splits_of(tmp_path / "a.parquet")["train"]
    assert [(s.key, s.labels, s.caption) for s in source.all()] == [
        ("first", ("a", "b"), "one"),
        ("second", ("b",), "three"),
    ]
    assert source.multi_label


def test_a_field_of_a_picture_can_be_its_key(tmp_path):
    table = pa.table({"image": [{"bytes": jpeg(i), "path": f"{i}.jpg"} for i in range(2)]})
    pq.write_table(table, tmp_path / "a.parquet")
    options = SourceOptions(columns=Columns(key="image.path"))
    assert keys_of(splits_of(tmp_path / "a.parquet", options)["pool"]) == ["0.jpg", "1.jpg"]


def test_a_row_without_a_picture_is_counted_and_one_that_lies_elsewhere_is_read_there(tmp_path):
    write_pictures(tmp_path, ["out.jpg"])
    images = [
        {"bytes": jpeg(5), "path": None},
        {"bytes": None, "path": "out.jpg"},
        {"bytes": None, "path": None},
        None,
    ]
    pq.write_table(pa.table({"image": images, "label": [*"aaaa"]}), tmp_path / "a.parquet")
    source = splits_of(tmp_path / "a.parquet")["train"]
    assert contents(source) == {"a/0000000": jpeg(5), "a/0000001": jpeg(0)}
    assert source.account().in_words()[0].startswith("2 without a picture: a/0000002")


def test_a_table_without_pictures_is_one_line_with_its_columns(tmp_path):
    pq.write_table(pa.table({"text": ["a"], "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"no column of pictures or paths \(it has 'text', 'n'\)"):
        splits_of(tmp_path / "a.parquet")


def test_a_column_of_numbers_is_none_of_pictures(tmp_path):
    pq.write_table(table_of(2), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"no pictures in its column 'label' .*--image-column"):
        splits_of(tmp_path / "a.parquet", SourceOptions(columns=Columns(image="label")))


@pytest.mark.parametrize("column", ["photo", "bytes"])
def test_texts_are_no_pictures_whatever_their_column_is_called(tmp_path, column):
    pq.write_table(pa.table({column: ["a", "b"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"no column of pictures or paths .* pictures are bytes"):
        splits_of(tmp_path / "a.parquet")


@pytest.mark.parametrize("cut", [0, 3, 200, -10])
def test_a_file_that_is_cut_is_one_line(tmp_path, cut):
    pq.write_table(table_of(5), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[:cut])
    with pytest.raises(UserError, match=r"a\.parquet is cut, or damaged") as caught:
        splits_of(tmp_path / "a.parquet")
    assert "\n" not in str(caught.value)


def test_a_pattern_of_nothing_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"has no \.parquet files"):
        splits_of(f"{tmp_path}/*.parquet")
    with pytest.raises(UserError, match="does not exist"):
        splits_of(tmp_path / "a.parquet")


def test_a_table_crosses_to_a_process_small(tmp_path):
    pq.write_table(table_of(50), tmp_path / "a.parquet")
    source = splits_of(tmp_path / "a.parquet")["train"]
    assert contents(pickle.loads(pickle.dumps(source))) == contents(source)
    assert len(pickle.dumps(source.all()[0])) < 1024


def test_without_pyarrow_one_line_says_what_to_install(tmp_path):
    pq.write_table(table_of(2), tmp_path / "a.parquet")
    code = (
        "import sys; sys.modules['pyarrow'] = None\nfrom cache.sources.data import open_data\n"
        "from cache.runtime.errors import UserError\ntry: open_data([sys.argv[1]])\nexcept UserError as e: print(e)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.parquet"], capture_output=True, text=True, cwd=ROOT
    )
    assert ".[parquet]" in done.stdout, done.stderr


def test_a_saved_dataset_is_read_without_its_library(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    rows = {"image": [{"bytes": jpeg(i), "path": None} for i in range(7)], "label": [i % 2 for i in range(7)]}
    saved = datasets.Dataset.from_dict(rows, features=features)
    saved.save_to_disk(str(tmp_path / "one"), num_shards=2)
    datasets.DatasetDict({"train": saved, "test": saved}).save_to_disk(str(tmp_path / "several"))
    source = splits_of(tmp_path / "one")["train"]
    assert [*contents(source).values()] == [jpeg(i) for i in range(7)]
    assert [*labels_by_key(source).values()] == [("cat",), ("dog",)] * 3 + [("cat",)]
    splits = splits_of(tmp_path / "several")
    assert {name: len(one) for name, one in splits.items()} == {"train": 7, "id_test": 7}
    code = f"import sys\nfrom cache.sources.data import open_data\nd = open_data(['{tmp_path}/several'])\nd.splits['train'].all()[0].content()\nprint('datasets' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("{", "is damaged"),
        ('{"_data_files": [{"filename": "../secret.arrow"}]}', "is damaged"),
        ('{"_data_files": [{"filename": 3}]}', "names no files"),
        ("[]", "names no files"),
        ('{"_data_files": [{"filename": "gone.arrow"}]}', "does not exist"),
        ('{"_data_files": [{"filename": "odd.arrow"}]}', "is cut, or damaged"),
        ('{"_indices_data_files": [{"filename": "a"}]}', "flatten_indices"),
    ],
)
def test_a_saved_dataset_that_is_damaged_is_one_line(tmp_path, state, said):
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "state.json").write_text(state)
    (tmp_path / "odd.arrow").write_bytes(b"\xff\xff\xff\xff\x10\x00\x00\x00 no arrow at all")
    with pytest.raises(UserError, match=said):
        splits_of(tmp_path)


def test_a_split_of_a_saved_dataset_that_is_none_of_ours_says_how_to_name_it(tmp_path):
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "extra"]}')
    with pytest.raises(UserError, match=r"has a split 'extra'.*pool=.*/extra"):
        splits_of(tmp_path)
