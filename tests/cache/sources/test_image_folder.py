"""Folders of pictures of any layout: which split and class each picture is of, and what is left out."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import pytest
from PIL import Image

from cache.runtime.errors import UserError
from cache.sources.accounts import NAMED, Reason
from cache.sources.data import open_data
from cache.sources.open_set import check_apart, check_trained
from cache.sources.source_options import SourceOptions

NO_BYTES = pytest.mark.skipif(sys.platform == "darwin", reason="its file systems have UTF-8 names alone")


@pytest.fixture
def picture(tmp_path):
    """Writes small pictures below ``tmp_path / "data"``."""

    def write(*names, kind="JPEG"):
        for name in names:
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(path, kind)
        return tmp_path / "data"

    return write


def keys_of(folder):
    return {name: sorted(sample.key for sample in split.all()) for name, split in folder.splits.items()}


def labels_of(folder, split="train"):
    return {sample.key: sample.labels for sample in folder.split(split).all()}


def left_out(folder, split="train"):
    account = folder.split(split).account()
    return {reason: (one.count, one.names) for reason, one in account.left_out.items()}


def test_folders_called_as_splits_hold_them_at_any_depth(picture):
    data = picture(
        "train/a/1.jpg", "train/b/s1/x/2.jpg", "val_on_train/a/3.jpg", "val/c/4.jpg", "pool/z/5.jpg"
    )
    folder = open_data([data])
    assert keys_of(folder) == {
        "train": ["a/1.jpg", "b/s1/x/2.jpg"],
        "pool": ["z/5.jpg"],
        "id_test": ["a/3.jpg"],
        "ood_test": ["c/4.jpg"],
    }
    assert labels_of(folder) == {"a/1.jpg": ("a",), "b/s1/x/2.jpg": ("b",)}
    assert folder.classes == {"train": ("a", "b"), "pool": (), "id_test": ("a",), "ood_test": ("c",)}
    assert labels_of(folder, "pool") == {"z/5.jpg": ()}
    assert folder.notes == ()


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("Train", "VAL"), {"train", "ood_test"}),
        (("train", "id_test", "ood_test"), {"train", "id_test", "ood_test"}),
        (("train", "unlabelled"), {"train", "pool"}),
        (("train", "unlabeled"), {"train", "pool"}),
        (("pool",), {"pool"}),
    ],
)
def test_splits_have_several_names_in_any_case(picture, names, splits):
    data = picture(
        *(f"{name}/{'a' if name in ('train', 'Train', 'id_test') else 'c'}/1.jpg" for name in names)
    )
    assert open_data([data]).splits.keys() == splits


def test_val_of_trained_classes_alone_is_the_id_test_and_that_is_said(picture):
    folder = open_data([picture("train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg")])
    assert keys_of(folder) == {"train": ["a/1.jpg", "b/1.jpg"], "id_test": ["a/2.jpg"]}
    assert folder.split("id_test").split == "id_test"
    assert folder.notes == ("val has no other classes than train: it is the ID test",)


def test_val_beside_an_id_test_stays_the_ood_test(picture):
    folder = open_data([picture("train/a/1.jpg", "val_on_train/a/2.jpg", "val/a/3.jpg")])
    assert folder.splits.keys() == {"train", "id_test", "ood_test"}


@pytest.mark.parametrize("name", ["test", "Valid", "validation", "dev", "testing", "eval"])
def test_what_the_field_calls_held_out_is_as_val_beside_train(picture, name):
    folder = open_data([picture("train/a/1.jpg", f"{name}/a/2.jpg")])
    assert keys_of(folder) == {"train": ["a/1.jpg"], "id_test": ["a/2.jpg"]}


def test_splits_in_a_lone_folder_are_an_error_that_names_it(picture):
    data = picture("set/train/a/1.jpg", "set/val/a/2.jpg")
    with pytest.raises(UserError, match=rf"set/train/.*Fix: give {data}/set;"):
        open_data([data])
    picture("other/1.jpg")
    assert open_data([data]).classes == {"train": ("other", "set")}


def test_without_a_folder_of_train_such_names_are_classes(picture):
    assert open_data([picture("test/x/1.jpg", "dev/2.jpg")]).classes == {"train": ("dev", "test")}


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (("val/a/2.jpg", "test/a/3.jpg"), "test is not taken: val is"),
        (("test/3.jpg",), "test is not taken: it has no class folders"),
    ],
)
def test_of_several_that_are_held_out_val_is_taken_and_that_is_said(picture, names, note):
    folder = open_data([picture("train/a/1.jpg", *names)])
    assert note in folder.notes[0]
    assert left_out(folder) == {Reason.SPLIT: (1, ("test/",))}


def test_val_as_the_name_of_a_source_is_decided_by_its_classes(picture):
    data = picture("a/fig/1.jpg", "b/fig/2.jpg", "c/plum/3.jpg")
    assert open_data([f"train={data}/a", f"val={data}/b"]).classes["id_test"] == ("fig",)
    assert open_data([f"Train={data}/a", f"test={data}/c"]).classes["ood_test"] == ("plum",)


def test_a_source_with_a_name_that_is_no_split_is_an_error_that_says_the_nearest(picture):
    with pytest.raises(UserError, match=r"'trian' is not a split\. Fix: did you mean 'train'"):
        open_data([f"trian={picture('a/1.jpg')}"])


def test_a_split_named_twice_is_an_error_that_names_both(picture):
    with pytest.raises(UserError, match="two folders of the split id_test: id_test and val_on_train"):
        open_data([picture("train/a/1.jpg", "val_on_train/a/2.jpg", "id_test/a/3.jpg")])


def test_val_and_ood_test_together_are_an_error(picture):
    with pytest.raises(UserError, match="there is val and there is ood_test"):
        open_data([picture("train/a/1.jpg", "val/c/2.jpg", "ood_test/c/3.jpg")])


def test_class_folders_without_splits_are_train_and_how_to_make_tests_is_said(picture):
    folder = open_data([picture("a/1.jpg", "b/deep/er/2.jpg")])
    assert labels_of(folder) == {"a/1.jpg": ("a",), "b/deep/er/2.jpg": ("b",)}
    (note,) = folder.notes
    assert "--split 'id_test=0.2,ood_test=0.3 of classes'" in note
    assert f"pool={folder.path}" in note


def test_pool_may_lie_beside_class_folders(picture):
    folder = open_data([picture("a/1.jpg", "b/2.jpg", "unlabelled/x/3.jpg", "unlabelled/4.jpg")])
    assert keys_of(folder) == {"train": ["a/1.jpg", "b/2.jpg"], "pool": ["4.jpg", "x/3.jpg"]}
    assert left_out(folder) == {}


def test_a_class_may_be_called_as_a_split(picture):
    folder = open_data([picture("train/1.jpg", "truck/2.jpg", "val/3.jpg")])
    assert folder.classes == {"train": ("train", "truck", "val")}


def test_pictures_at_the_top_make_all_of_a_folder_the_pool(picture):
    folder = open_data([picture("1.jpg", "holiday/2.jpg", "holiday/day 1/3.jpg")])
    assert keys_of(folder) == {"pool": ["1.jpg", "holiday/2.jpg", "holiday/day 1/3.jpg"]}
    assert "all of it is pool" in folder.notes[0]


def test_a_named_split_is_all_of_a_folder(picture):
    data = picture("2023/06/1.jpg", "2024/2.jpg")
    assert keys_of(open_data([f"pool={data}"])) == {"pool": ["2023/06/1.jpg", "2024/2.jpg"]}
    assert open_data([f"train={data}"]).classes == {"train": ("2023", "2024")}
    assert open_data([f"val={data}"]).classes == {"ood_test": ("2023", "2024")}


def test_a_named_split_of_a_folder_with_splits_is_an_error(picture):
    data = picture("train/a/1.jpg", "val/c/1.jpg")
    with pytest.raises(UserError, match=r"train=.* holds folders that are called as splits \(train/, val/\)"):
        open_data([f"train={data}"])


@pytest.mark.parametrize(("depth", "classes"), [(1, ("x", "y")), (2, ("a", "b")), (-1, ("a", "deep"))])
def test_class_depth_says_which_folder_is_the_class(picture, depth, classes):
    data = picture("train/x/a/1.jpg", "train/y/b/deep/2.jpg", "train/y/a/3.jpg")
    folder = open_data([data], SourceOptions(class_depth=depth))
    assert folder.classes["train"] == classes
    assert {label for (label,) in labels_of(folder).values()} == {*classes}


def test_pictures_above_the_class_folders_are_counted(picture):
    data = picture("train/x/a/1.jpg", "train/x/2.jpg", "train/3.jpg")
    folder = open_data([data], SourceOptions(class_depth=2))
    assert keys_of(folder) == {"train": ["x/a/1.jpg"]}
    assert left_out(folder) == {Reason.NO_LABEL: (2, ("3.jpg", "x/2.jpg"))}


def test_a_split_without_class_folders_is_an_error_that_offers_the_pool(picture):
    with pytest.raises(UserError, match=r"class folder \(2 without a label: 1.jpg, 2.jpg\).*pool="):
        open_data([picture("train/1.jpg", "train/2.jpg")])


def test_one_stem_with_two_endings_is_two_samples(picture):
    assert keys_of(open_data([picture("a/1.jpg", "a/1.png")])) == {"train": ["a/1.jpg", "a/1.png"]}


def test_all_that_is_left_out_is_counted_by_reason_with_three_names(picture, tmp_path):
    data = picture("train/a/1.jpg", "train/.thumbs/2.jpg", "raw/3.jpg", "4.jpg")
    picture("odd/jpeg_without_ending", kind="JPEG")
    (data / "odd" / "jpeg_without_ending").rename(data / "train/a/jpeg_without_ending")
    (data / "odd").rmdir()
    for name in ("n1.txt", "n2.doc", "n3.xyz", "n4.txt", "n5"):
        (data / "train/a" / name).write_text("no picture")
    (data / "train/a/.hidden.jpg").write_text("x")
    (data / "train/none").mkdir()
    (data / "train/a/gone.jpg").symlink_to("nowhere.jpg")
    (data / "train/a/up").symlink_to(data / "train")
    (data / "train/a/self").symlink_to("self")
    os.mkfifo(data / "train/a/fifo.jpg")
    folder = open_data([data])
    assert keys_of(folder) == {"train": ["a/1.jpg", "a/jpeg_without_ending"]}
    assert left_out(folder) == {
        Reason.SPLIT: (2, ("raw/", "4.jpg")),
        Reason.HIDDEN: (2, (".thumbs/", "a/.hidden.jpg")),
        Reason.FORMAT: (6, ("a/fifo.jpg", "a/n1.txt", "a/n2.doc")),
        Reason.DANGLING: (2, ("a/gone.jpg", "a/self")),
        Reason.LOOP: (1, ("a/up/",)),
        Reason.EMPTY: (1, ("none/",)),
    }
    assert NAMED == 3
    assert (
        "6 of no picture format: a/fifo.jpg, a/n1.txt, a/n2.doc and 3 more"
        in folder.split("train").account().in_words()
    )


def test_links_to_folders_and_files_elsewhere_are_followed(picture, tmp_path):
    data = picture("a/1.jpg")
    (tmp_path / "disk2/b").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "disk2/b/2.jpg")
    (data / "b").symlink_to(tmp_path / "disk2/b")
    (data / "a/3.jpg").symlink_to(tmp_path / "disk2/b/2.jpg")
    assert keys_of(open_data([data])) == {"train": ["a/1.jpg", "a/3.jpg", "b/2.jpg"]}


def test_a_text_file_beside_a_picture_is_its_caption(picture):
    data = picture("a/1.jpg", "a/2.jpg", "a/3.jpg")
    (data / "a/1.txt").write_text(" a red\nflower ")
    (data / "a/3.txt").write_bytes(b"\xff \n")
    (data / "a/4.txt").write_text("of no picture")
    folder = open_data([data])
    assert [sample.caption for sample in folder.split("train").all()] == ["a red flower", None, None]
    assert left_out(folder) == {Reason.FORMAT: (1, ("a/4.txt",))}


@NO_BYTES
def test_names_that_are_not_utf8_are_taken_and_said_and_such_classes_are_counted(picture):
    data = picture("a/1.jpg", "b/2.jpg")
    os.rename(os.fsencode(data / "a/1.jpg"), os.fsencode(data / "a") + b"/caf\xe9.jpg")
    os.mkdir(os.fsencode(data) + b"/na\xefve")
    os.rename(os.fsencode(data / "b/2.jpg"), os.fsencode(data) + b"/na\xefve/2.jpg")
    folder = open_data([data])
    assert keys_of(folder) == {"train": [os.fsdecode(b"a/caf\xe9.jpg")]}
    assert left_out(folder) == {
        Reason.NAME: (1, (os.fsdecode(b"na\xefve/2.jpg"),)),
        Reason.EMPTY: (1, ("b/",)),
    }
    assert "1 pictures of a name or a class that cannot be kept are left out" in folder.notes[1]
    assert "1 names are not UTF-8" in folder.notes[0]
    assert keys_of(open_data([f"pool={data}"])) == {
        "pool": [os.fsdecode(b"a/caf\xe9.jpg"), os.fsdecode(b"na\xefve/2.jpg")]
    }


def test_a_folder_that_is_not_there_or_holds_no_picture_is_one_line(picture, tmp_path):
    with pytest.raises(UserError, match="nothing does not exist"):
        open_data([tmp_path / "nothing"])
    with pytest.raises(UserError, match=r"1\.jpg is a file of a kind that is no source"):
        open_data([picture("1.jpg") / "1.jpg"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.doc").write_text("no picture")
    with pytest.raises(UserError, match=r"empty holds no picture \(1 of no picture format: x.doc\)"):
        open_data([tmp_path / "empty"])


@pytest.mark.long
def test_a_million_names_take_some_40_bytes_each(tmp_path):
    """Of files that are listed alone: names are what counts."""
    import tracemalloc

    from cache.sources.folder_listing import FolderListing, FolderRoot

    for number in range(40):
        folder = tmp_path / f"class{number:02}"
        folder.mkdir()
        for image in range(2_500):
            (folder / f"{image:09}.jpg").touch()
    tracemalloc.start()
    listing = FolderListing(FolderRoot(root=str(tmp_path)))
    assert len(listing.key_chunks.ids()) > 1
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(listing) == 100_000
    assert kept / len(listing) < 45


def test_a_val_of_some_trained_classes_is_an_error_that_says_what_it_could_be(picture):
    data = picture(*(f"train/{name}/1.jpg" for name in ("apple", "pear", "plum", "kiwi")))
    picture("val/apple/2.jpg", "val/pear/2.jpg", "val/plumm/2.jpg")
    with pytest.raises(
        UserError, match=r"2 classes of.*\('plumm'\): did you mean 'plum'\? call them as train"
    ):
        check_apart(open_data([data]), fix="add --shared-classes.")
    picture("val/cherry/2.jpg", "val/fig/2.jpg", "val/date/1.jpg")
    with pytest.raises(UserError, match=r"2 classes of.*Fix: take them out of one of the two, or"):
        check_apart(open_data([data]), fix="add --shared-classes.")


def test_classes_that_differ_by_how_an_accent_is_written_are_told_apart(picture):
    folder = open_data([picture("train/caf\u00e9/1.jpg", "train/b/2.jpg", "id_test/cafe\u0301/3.jpg")])
    with pytest.raises(UserError) as error:
        check_trained(folder.path, folder.classes)
    assert "'cafe\\u0301'" in str(error.value)
    assert "is the same name with its accents written otherwise" in str(error.value)
    folder = open_data([picture("train/caf\u00e9/1.jpg"), f"ood_test={folder.path}/id_test"])
    with pytest.raises(UserError, match="in train and in the OOD test as well"):
        check_apart(
            replace(folder, splits={k: v for k, v in folder.splits.items() if k != "id_test"}), fix="x"
        )


def test_a_class_of_the_id_test_that_is_not_trained_is_an_error_that_names_both(picture):
    folder = open_data([picture("train/red_square/1.jpg", "id_test/red_sqare/2.jpg")])
    with pytest.raises(UserError, match=r"not in train: 'red_sqare'.*did you mean 'red_square'"):
        check_trained(folder.path, folder.classes)
