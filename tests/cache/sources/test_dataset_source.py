"""Datasets of (picture, label) as sources, in this process and its workers."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.picture_lists import keys_of, labels_by_key, write_pictures
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, random_split

from cache.runtime.errors import UserError
from cache.runtime.torchvision_compat import torchvision
from cache.sources.data import open_data
from cache.sources.decoding import UnreadableImage


class Pixels(Dataset):
    """Like torchvision's CIFAR10: pixels in memory, numbers, and the names of classes."""

    classes = ("cat", "dog")

    def __init__(self, count, targets=None):
        self.data = np.random.default_rng(count).integers(0, 255, (count, 8, 9, 3), dtype=np.uint8)
        self.targets = targets or [i % 2 for i in range(count)]

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return Image.fromarray(self.data[index]), self.targets[index]


class Pairs(Dataset):
    """A list of pairs."""

    def __init__(self, pairs):
        self.pairs = pairs

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        return self.pairs[index]


def one_split(dataset):
    (source,) = open_data([dataset]).splits.values()
    return source


def test_pictures_and_labels_are_those_of_the_dataset():
    dataset = Pixels(5)
    source = one_split(dataset)
    assert (source.split, source.classes) == ("train", ("cat", "dog"))
    assert labels_by_key(source) == {f"{i:08d}": (("cat",), ("dog",))[i % 2] for i in range(5)}
    for number, sample in enumerate(source.all()):
        assert np.array_equal(np.asarray(sample.pictures()[0]), dataset.data[number])


def test_several_datasets_are_the_splits_that_they_are_given_as():
    splits = open_data({"train": Pixels(4), "id_test": Pixels(3), "unlabelled": Pixels(2)}).splits
    assert {name: len(one) for name, one in splits.items()} == {"train": 4, "pool": 2, "id_test": 3}
    assert splits["pool"].classes == ()


def test_an_image_folder_has_the_keys_of_its_paths(tmp_path):
    write_pictures(tmp_path, [f"{name}/{i}.jpg" for name in ("ant", "bee") for i in range(3)])
    dataset = torchvision.datasets.ImageFolder(tmp_path)
    ours, folder = one_split(dataset), open_data([tmp_path]).splits["train"]
    assert labels_by_key(ours) == labels_by_key(folder)
    assert [one.identity() for one in ours.all()] == [one.identity() for one in folder.all()]


def test_a_share_of_a_dataset_is_one(tmp_path):
    write_pictures(tmp_path, [f"{name}/{i}.jpg" for name in ("ant", "bee") for i in range(4)])
    whole = torchvision.datasets.ImageFolder(tmp_path)
    train, test = random_split(whole, [5, 3], torch.Generator().manual_seed(0))
    splits = open_data({"train": train, "id_test": test}).splits
    assert sorted(keys_of(splits["train"]) + keys_of(splits["id_test"])) == sorted(keys_of(one_split(whole)))
    some = one_split(Subset(Subset(Pixels(9), [8, 7, 6, 5]), [1, 3]))
    assert [*labels_by_key(some).values()] == [("dog",), ("dog",)]


def test_datasets_one_after_the_other_keep_their_classes(tmp_path):
    write_pictures(tmp_path, ["1/ant/a.jpg", "1/bee/b.jpg", "2/bee/c.jpg", "2/cow/d.jpg"])
    first, second = (torchvision.datasets.ImageFolder(tmp_path / name) for name in "12")
    source = one_split(Subset(ConcatDataset([first, second]), [0, 2, 3]))
    labels = {"1/ant/a.jpg": ("ant",), "2/bee/c.jpg": ("bee",), "2/cow/d.jpg": ("cow",)}
    assert labels_by_key(source) == labels
    assert [one.where for one in source.all()] == [str(tmp_path / key) for key in labels]
    both = one_split(ConcatDataset([Pixels(2), Pixels(3)]))
    assert [*labels_by_key(both).values()] == [("cat",), ("dog",), ("cat",), ("dog",), ("cat",)]


@pytest.mark.parametrize("error", [OSError("cut"), SyntaxError("broken PNG file"), ValueError("odd")])
def test_an_item_that_cannot_be_decoded_is_unreadable(error):
    class Broken(Pixels):
        def __getitem__(self, index):
            if index:
                raise error
            return super().__getitem__(index)

    source = one_split(Broken(2))
    good, bad = source.all()
    assert good.pictures()
    with pytest.raises(UnreadableImage, match=str(error)):
        bad.pictures()


def test_grey_of_16_bits_is_as_bright_as_a_file_of_it():
    grey = Image.fromarray(np.array([[0, 0x8000, 0xFFFF]], dtype=np.uint16))
    source = one_split(Pairs([(grey, "a")]))
    (sample,) = source.all()
    assert [sample.pictures()[0].getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]


@pytest.mark.parametrize(
    "picture",
    [
        np.full((6, 7, 3), 9, np.uint8),
        torch.full((3, 6, 7), 9, dtype=torch.uint8),
        torch.full((1, 6, 7), 9, dtype=torch.uint8),
        np.full((6, 7), 9, np.uint8),
        Image.new("L", (7, 6), 9),
        Image.new("RGBA", (7, 6), (9, 9, 9, 0)),
    ],
)
def test_a_picture_is_an_image_tensor_or_array(picture):
    source = one_split(Pairs([(picture, "a")]))
    (sample,) = source.all()
    taken = sample.pictures()[0]
    assert (taken.mode, taken.size, taken.getpixel((0, 0))) == ("RGB", (7, 6), (9, 9, 9))


@pytest.mark.parametrize(
    ("label", "labels"),
    [
        (3, ("3",)),
        ("ant", ("ant",)),
        (torch.tensor(3), ("3",)),
        (np.int64(3), ("3",)),
        (["ant", "bee"], ("ant", "bee")),
    ],
)
def test_a_label_is_a_number_a_name_or_several(label, labels):
    assert [one.labels for one in one_split(Pairs([(Image.new("RGB", (4, 4)), label)])).all()] == [labels]


def test_items_without_a_label_are_pool():
    pairs = Pairs([(Image.new("RGB", (4, 4)), label) for label in ("a", None, "b", -1)])
    splits = open_data([pairs]).splits
    assert {name: keys_of(one) for name, one in splits.items()} == {
        "train": ["00000000", "00000002"],
        "pool": ["00000001", "00000003"],
    }
    left = open_data({"train": pairs}).splits["train"].account()
    assert left.in_words() == ["2 without a label: 00000001, 00000003"]


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([], "is empty"),
        ([Image.new("RGB", (4, 4))], r"no \(picture, label\)"),
        ([(Image.new("RGB", (4, 4)), 1), None], r"Pairs\[1\] is no \(picture, label\)"),
        ([(torch.zeros(3, 4, 4), 1)], "cannot be taken: Tensor of float32.*transforms"),
        ([(np.zeros((5, 4, 4), np.uint8), 1)], "cannot be taken"),
        ([(Image.new("RGB", (4, 4)), 0.5)], "has the label 0.5"),
        ([(Image.new("RGB", (4, 4)), "a/b")], "no name of a class"),
    ],
)
def test_a_dataset_of_something_else_is_one_line(pairs, said):
    with pytest.raises(UserError, match=said):
        open_data([Pairs(pairs)])


def test_a_number_beyond_the_classes_is_one_line():
    with pytest.raises(UserError, match=r"Pixels\[1\] is of class 7, and 2 names are given"):
        open_data([Pixels(2, targets=[0, 7])])


def test_what_is_no_dataset_is_one_line():
    with pytest.raises(UserError, match="a int is no source of images"):
        open_data([3])


def _sum(samples):
    return [int(np.asarray(one.pictures()[0], dtype=np.int64).sum()) for one in samples]


def test_a_forked_worker_reads_it_and_nothing_of_it_crosses():
    dataset = Pixels(40)
    source = one_split(dataset)
    loader = DataLoader(
        source.all(), batch_size=8, num_workers=1, collate_fn=_sum, multiprocessing_context="fork"
    )
    assert [one for batch in loader for one in batch] == [
        int(one.astype(np.int64).sum()) for one in dataset.data
    ]
    assert len(pickle.dumps(source)) < 4096
    assert len(pickle.dumps(source.all()[0])) < 1024


def test_a_process_that_has_it_not_says_so():
    sample = replace(one_split(Pixels(2)).all()[0], token="of another process")
    with pytest.raises(UserError, match="workers=0"):
        sample.pictures()
