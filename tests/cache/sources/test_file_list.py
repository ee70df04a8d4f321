"""Lists of pictures: what is taken, under which key, and what is said of all else."""

from __future__ import annotations

import json
import os
import pickle

import pytest
from helpers.picture_lists import jpeg, keys_of, labels_by_key, splits_of, write_pictures

from cache.prepare.split import split_images
from cache.runtime.errors import UserError
from cache.sources import list_lines
from cache.sources.data import open_data
from cache.sources.list_columns import Columns
from cache.sources.source_options import SourceOptions
from cache.sources.split_rules import SplitRule


@pytest.fixture
def photos(tmp_path):
    write_pictures(tmp_path, [f"{i}.jpg" for i in range(6)])
    return tmp_path


def listed(folder, text, *, name="list.csv", options=None, encoding="utf-8"):
    (folder / name).write_bytes(text.encode(encoding))
    return splits_of(folder / name, options or SourceOptions())


def refusal(folder, text, **more):
    with pytest.raises(UserError) as caught:
        listed(folder, text, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_columns_say_path_label_split_key_and_caption(photos):
    splits = listed(
        photos,
        "filepath,label,split,key,caption\n"
        "0.jpg,cat,train,k0,a cat\n1.jpg,dog,train,k1,\n2.jpg,cat,id_test,k2,\n3.jpg,owl,ood_test,k3,\n4.jpg,,pool,k4,\n",
    )
    assert {name: (keys_of(one), one.classes) for name, one in splits.items()} == {
        "train": (["k0", "k1"], ("cat", "dog")),
        "pool": (["k4"], ()),
        "id_test": (["k2"], ("cat",)),
        "ood_test": (["k3"], ("owl",)),
    }
    first, second = splits["train"].all()
    assert (first.caption, second.caption, first.content()) == ("a cat", None, jpeg(0))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "path,label\n0.jpg,a\n1.jpg,b\n"),
        ("list.csv", "path;label\n0.jpg;a\n1.jpg;b\n"),
        ("list.csv", "path\tlabel\n0.jpg\ta\n1.jpg\tb\n"),
        ("list.tsv", "path\tlabel\n0.jpg\ta\n1.jpg\tb\n"),
        ("list.csv", "\ufeffpath,label\r\n0.jpg,a\r\n\r\n1.jpg,b\r\n"),
        ("LIST.CSV", '"path","label"\n"0.jpg","a"\n"1.jpg","b"'),
        ("list.csv", "\n\nPath , Label\n 0.jpg , a \n./1.jpg,b\n"),
        ("list.jsonl", '{"path": "0.jpg", "label": "a"}\n\n{"label": ["b"], "path": "1.jpg", "more": {}}\n'),
    ],
)
def test_a_list_is_read_however_it_is_written(photos, name, text):
    assert labels_by_key(listed(photos, text, name=name)["train"]) == {"0.jpg": ("a",), "1.jpg": ("b",)}


def test_a_cell_may_hold_lines_quotes_and_separators(photos):
    text = 'path,label,caption\n0.jpg,a,"two\nlines, and ""quotes"""\n1.jpg,b,x\n'
    source = listed(photos, text)["train"]
    assert [one.caption for one in source.all()] == ['two\nlines, and "quotes"', "x"]


def test_the_first_line_of_a_jsonl_need_not_have_every_column(photos):
    splits = listed(photos, '{"path": "0.jpg"}\n{"path": "1.jpg", "label": "a"}\n', name="a.jsonl")
    assert {name: keys_of(one) for name, one in splits.items()} == {"pool": ["0.jpg"], "train": ["1.jpg"]}


def test_a_list_of_any_length_is_read_whole_in_blocks(photos, monkeypatch):
    monkeypatch.setattr(list_lines, "BLOCK", 4)
    lines = "".join(f'{i % 6}.jpg,{"ab"[i % 2]},{i},"c\nd"\n' for i in range(23))
    source = listed(photos, "path,label,key,caption\n" + lines)["train"]
    assert (len(source.chunks()), len(source), keys_of(source)) == (6, 23, [str(i) for i in range(23)])
    assert [one.key for one in source.samples(["17", "3"])] == ["17", "3"]


def test_lines_that_are_added_change_the_last_block_alone(photos, monkeypatch):
    monkeypatch.setattr(list_lines, "BLOCK", 4)
    text = "path,label,key\n" + "".join(f"0.jpg,a,{i}\n" for i in range(10))
    before = listed(photos, text)["train"].chunks()
    after = listed(photos, text + "1.jpg,a,new\n")["train"].chunks()
    assert [one in before for one in after] == [True, True, False]


def test_a_file_that_is_written_again_changes_its_block(photos, monkeypatch):
    monkeypatch.setattr(list_lines, "BLOCK", 2)
    text = "path,label\n0.jpg,a\n1.jpg,a\n2.jpg,a\n"
    before = listed(photos, text)["train"].chunks()
    (photos / "2.jpg").write_bytes(jpeg(200))
    os.utime(photos / "2.jpg", ns=(1, 1))
    after = listed(photos, text)["train"].chunks()
    assert [one in before for one in after] == [True, False]


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("0.jpg", "0.jpg"),
        ("./in//0.jpg", "in/0.jpg"),
        ("in/../0.jpg", "0.jpg"),
        ("../0.jpg", "_up_/0.jpg"),
        ("../../a/0.jpg", "_up_/_up_/a/0.jpg"),
        ("ABOVE/0.jpg", "ABOVE/0.jpg"),
        ("FOLDER/in/0.jpg", "in/0.jpg"),
        ("https://host/a//b.jpg?size=1", "host/a/b.jpg?size=1"),
        ("s3://bucket/x.jpg", "bucket/x.jpg"),
    ],
)
def test_a_key_is_the_path_and_leads_nowhere(tmp_path, path, key):
    folder = tmp_path / "lists" / "here"
    write_pictures(folder, ["0.jpg", "in/0.jpg"])
    write_pictures(tmp_path, ["0.jpg", "a/0.jpg", "lists/0.jpg"])
    path = path.replace("FOLDER", str(folder)).replace("ABOVE", str(tmp_path))
    key = key.replace("ABOVE", str(tmp_path).lstrip("/"))
    assert keys_of(listed(folder, f"path,label\n{path},a\n")["train"]) == [key]


def test_what_is_no_picture_is_counted_by_reason_and_named(photos):
    (photos / "folder.jpg").mkdir()
    os.mkfifo(photos / "pipe.jpg")
    text = (
        "path,label,split\n0.jpg,a,train\ngone.jpg,a,train\n,a,train\n1.jpg,,train\n0.jpg,b,train\n"
        "folder.jpg,a,train\npipe.jpg,a,train\n2.jpg,,\n3.jpg\n"
    )
    splits = listed(photos, text)
    assert {name: keys_of(one) for name, one in splits.items()} == {
        "train": ["0.jpg"],
        "pool": ["2.jpg", "3.jpg"],
    }
    assert splits["train"].account().in_words() == [
        "1 that are not there: gone.jpg",
        f"1 without a picture: {photos}/list.csv, line 4",
        "1 without a label: 1.jpg",
        "1 of a key that is taken: 0.jpg",
        "2 of no picture format: folder.jpg, pipe.jpg",
    ]
    assert splits["pool"].account().count == 0


def test_a_key_that_two_blocks_have_is_taken_once(photos, monkeypatch):
    monkeypatch.setattr(list_lines, "BLOCK", 2)
    text = "path,label,key\n" + "".join(f"{i}.jpg,a,{key}\n" for i, key in enumerate("abcaba"))
    source = listed(photos, text)["train"]
    assert keys_of(source) == ["a", "b", "c"]
    assert source.account().in_words() == ["3 of a key that is taken: 3.jpg, 4.jpg, 5.jpg"]
    assert [one.content() for one in source.all()] == [jpeg(0), jpeg(1), jpeg(2)]


def test_a_name_with_a_zero_byte_or_half_a_character_is_counted(photos):
    lines = [
        {"path": "a\0b.jpg", "label": "a"},
        {"path": "\ud800.jpg", "label": "a"},
        {"path": "0.jpg", "label": "a"},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    source = listed(photos, text, name="a.jsonl")["train"]
    assert (keys_of(source), source.account().count) == (["0.jpg"], 2)


def test_a_file_whose_name_is_not_utf8_is_taken(photos):
    name = os.fsdecode(b"caf\xe9.jpg")
    (photos / name).write_bytes(jpeg(1))
    source = listed(photos, json.dumps({"path": name, "label": "a"}) + "\n", name="a.jsonl")["train"]
    assert [one.content() for one in source.all()] == [jpeg(1)]


def test_numbers_are_classes_of_given_names(photos):
    options = SourceOptions(names=("cat", "dog"))
    source = listed(photos, "path,label\n0.jpg,1\n1.jpg,0.0\n2.jpg,-1\n", options=options)
    assert labels_by_key(source["train"]) == {"0.jpg": ("dog",), "1.jpg": ("cat",)}
    assert keys_of(source["pool"]) == ["2.jpg"]
    said = refusal(photos, "path,label\n0.jpg,2\n", options=options)
    assert "line 2 is of class 2, and 2 names are given" in said
    assert "--names" in said


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "path,labels,split\n0.jpg,cat;dog,train\n1.jpg,dog,train\n2.jpg,,train\n3.jpg,,\n"),
        (
            "a.jsonl",
            '{"path": "0.jpg", "label": ["cat", "dog"], "split": "train"}\n{"path": "1.jpg", "label": "dog", '
            '"split": "train"}\n{"path": "2.jpg", "label": [], "split": "train"}\n{"path": "3.jpg"}\n',
        ),
    ],
)
def test_a_row_may_have_several_labels_or_none(photos, name, text):
    splits = listed(photos, text, name=name)
    assert labels_by_key(splits["train"]) == {"0.jpg": ("cat", "dog"), "1.jpg": ("dog",), "2.jpg": ()}
    assert (splits["train"].multi_label, splits["train"].classes) == (True, ("cat", "dog"))
    assert keys_of(splits["pool"]) == ["3.jpg"]


def test_a_column_called_labels_of_one_each_is_of_one_each(photos):
    assert not listed(photos, "path,labels\n0.jpg,a\n1.jpg,b\n")["train"].multi_label


@pytest.mark.parametrize(
    ("written", "split"),
    [
        ("Train", "train"),
        ("training", "train"),
        ("val_on_train", "id_test"),
        ("unlabelled", "pool"),
        ("ood_test", "ood_test"),
    ],
)
def test_a_split_is_known_by_any_of_its_names(photos, written, split):
    splits = listed(photos, f"path,label,split\n0.jpg,a,train\n1.jpg,b,{written}\n")
    assert "1.jpg" in keys_of(splits[split])


@pytest.mark.parametrize("written", ["val", "validation", "test", "dev"])
@pytest.mark.parametrize(("label", "split"), [("a", "id_test"), ("b", "ood_test")])
def test_what_is_held_out_is_the_test_that_its_classes_make_it(photos, written, label, split):
    splits = listed(photos, f"path,label,split\n0.jpg,a,train\n1.jpg,{label},{written}\n")
    assert keys_of(splits[split]) == ["1.jpg"]


def test_labels_without_splits_are_train_and_a_list_without_labels_is_pool(photos):
    assert [*listed(photos, "path,label\n0.jpg,a\n")] == ["train"]
    assert [*listed(photos, "path\n0.jpg\n")] == ["pool"]


def test_a_split_that_is_given_is_that_of_all_rows(photos):
    (photos / "list.csv").write_text("path,label,split\n0.jpg,a,ood_test\n1.jpg,b,train\n")
    (only,) = open_data([f"pool={photos}/list.csv"]).splits.values()
    assert (only.split, labels_by_key(only)) == ("pool", {"0.jpg": (), "1.jpg": ()})


def test_a_rule_splits_a_list(photos):
    text = "path,label\n" + "".join(f"{i}.jpg,{'abcd'[i % 4]}\n" for i in range(6))
    splits = listed(photos, text, options=SourceOptions(rule=SplitRule.parse("ood_test=0.5 of classes")))
    assert sorted(keys_of(splits["train"]) + keys_of(splits["ood_test"])) == [f"{i}.jpg" for i in range(6)]


def test_a_source_that_crosses_to_a_process_reads_the_same(photos):
    source = listed(photos, "path,label\n0.jpg,a\n1.jpg,b\n")["train"]
    again = pickle.loads(pickle.dumps(source))
    assert [one.content() for one in again.all()] == [one.content() for one in source.all()]
    assert len(pickle.dumps(source)) < 4096


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("path,label\n", "names no picture"),
        ("a,b\n1,2\n", "has no column of pictures or paths (it has 'a', 'b')"),
        ("path,label\n0.jpg,a,b\n", "line 2 has 3 cells for 2 columns"),
        ("path,label,split\n\n0.jpg,a,trian\n", "line 3: 'trian' is not a split"),
        ('path,label\n0.jpg,"a\n1.jpg,b\n', "the row that begins on line 2"),
        ("path,label\n0.jpg,a/b\n", "line 2: 'a/b' is no name of a class"),
        ("path,label\n0.jpg,..\n", "line 2: '..' is no name of a class"),
        ("path,caption\n0.jpg," + "x" * 140_000 + "\n", "the row that begins on line 2: field larger than"),
    ],
)
def test_a_list_that_cannot_be_meant_is_one_line(photos, text, said):
    assert said in refusal(photos, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no json\n", "line 1: no JSON"),
        ("[1]\n", "line 1 is no object"),
        ('{"path": "0.jpg"}\n{"path": {"a": 1}}\n', "line 2: {'a': 1} is neither a text nor a number"),
        ("[" * 100_000 + "\n", "line 1: no JSON"),
    ],
)
def test_a_jsonl_that_cannot_be_meant_is_one_line(photos, text, said):
    assert said in refusal(photos, text, name="a.jsonl")


def test_a_list_in_another_encoding_names_the_line(photos):
    assert "line 2 is not UTF-8" in refusal(photos, "path,label\n0.jpg,caf\xe9\n", encoding="latin-1")


def test_a_column_that_is_not_there_names_those_that_are(photos):
    options = SourceOptions(columns=Columns(label="lable"))
    said = refusal(photos, "path,label\n0.jpg,a\n", options=options)
    assert "has no column 'lable' (it has 'path', 'label')" in said
    assert "did you mean 'label'? give --label-column" in said


def test_two_columns_of_one_name_are_refused(photos):
    assert "has two columns 'label'" in refusal(photos, "path,label,label\n0.jpg,a,b\n")


def test_columns_of_other_names_are_taken_as_told(photos):
    options = SourceOptions(columns=Columns(path="where", label="what"))
    assert labels_by_key(listed(photos, "where,what\n0.jpg,a\n", options=options)["train"]) == {
        "0.jpg": ("a",)
    }


def test_a_list_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv does not exist"):
        splits_of(tmp_path / "none.csv")


def test_the_list_that_split_writes_is_read_back(tmp_path):
    write_pictures(tmp_path / "all", [f"{c}/{i}.jpg" for c in "abcd" for i in range(4)])
    split_images(tmp_path / "all", tmp_path / "lists" / "list.csv", ood=0.5, id_test=0.25)
    splits = splits_of(tmp_path / "lists" / "list.csv")
    assert {*splits} == {"train", "id_test", "ood_test"}
    every = [one for source in splits.values() for one in source.all()]
    assert {one.key: one.content() for one in every} == {
        f"{c}/{i}.jpg": (tmp_path / "all" / c / f"{i}.jpg").read_bytes() for c in "abcd" for i in range(4)
    }
