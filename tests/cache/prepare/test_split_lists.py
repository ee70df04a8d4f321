from __future__ import annotations

import csv
from pathlib import Path

import pytest
from helpers.folders import every_file, keys_in

from cache.prepare.split import split_images
from cache.runtime.errors import CacheMismatch, UserError
from cache.sources.splits import FOLDERS

# Class and file as the lists name them, and where the archive has them.
ARCHIVES = {
    "CaltechBirds": ("CUB_200_2011/images", "{cls}/{file}", ("001.Albatross", "063.Ivory_Gull")),
    "Flower102": ("jpg", "{file}", ("colt's_foot", "black-eyed_susan")),
    "Food101": ("images", "{cls}/{file}", ("apple_pie", "chicken_wings")),
    "SUN397": (".", "{scene}/{file}", ("bridge", "office_building_tall")),
    "StanfordCars": ("cars_train", "{file}", ("BMW_M3_Coupe_2012", "Bugatti_Veyron_16.4_Coupe_2009")),
    "tiered-ImageNet": ("tiered_imagenet/train", "{cls}/{file}", ("n01440764", "n01443537")),
}
ELSEWHERE = {
    "Food101": "food-101/images",
    "SUN397": "SUN397",
    "StanfordCars": "cars_train/cars_train",
    "tiered-ImageNet": "train",
}
SCENES = {"bridge": "b/bridge", "office_building_tall": "o/office_building/tall"}


@pytest.fixture
def archive(tmp_path, write_jpeg):
    """A function that makes a small archive in a data set's layout, and its lists: 3 + 2 images and 2 OOD."""

    def make(dataset: str, folder: str | None = None) -> tuple[Path, Path]:
        standard, pattern, (seen, unseen) = ARCHIVES[dataset]
        source, lists = tmp_path / "archive", tmp_path / "lists"
        root = source / (folder or standard)
        ending = "JPEG" if dataset == "tiered-ImageNet" else "jpg"
        lists.mkdir()
        number = 0
        for split, cls, count in (("train", seen, 3), ("val_on_train", seen, 2), ("val", unseen, 2)):
            lines = []
            for _ in range(count):
                number += 1
                file = f"{number:05}.{ending}"
                write_jpeg(root / pattern.format(cls=cls, file=file, scene=SCENES.get(cls)))
                lines.append(f"{split}/{cls}/{file}\n")
            # Some of the published lists end without a line's end.
            (lists / f"{split}_data.txt").write_text("".join(lines).rstrip())
        if dataset == "SUN397":
            (root / "ClassName.txt").write_text("".join(f"/{path}\n" for path in SCENES.values()))
        (lists / "label2text.txt").write_text(f"{seen} 1 {seen}\n{unseen} 2 {unseen}\n")
        (lists / "chatgpt.txt").write_text("One.\n\nTwo.\n")
        return source, lists

    return make


@pytest.mark.parametrize(("dataset", "folder"), [*((name, None) for name in ARCHIVES), *ELSEWHERE.items()])
def test_published_lists_split_every_layout(archive, tmp_path, dataset, folder):
    source, lists = archive(dataset, folder)
    summary = split_images(source, tmp_path / "data/list.csv", dataset=dataset, lists=lists)
    assert summary.images == {"train": 3, "id_test": 2, "ood_test": 2}
    assert summary.classes == {"train": 1, "id_test": 1, "ood_test": 1}
    assert summary.left_out == ()
    with open(tmp_path / "data/list.csv", newline="") as file:
        path_of = {row["key"]: tmp_path / "data" / row["path"] for row in csv.DictReader(file)}
    for split, keys in keys_in(tmp_path / "data/list.csv").items():
        lines = (lists / f"{FOLDERS[split]}_data.txt").read_text().split("\n")
        assert keys == {line.partition("/")[2] for line in lines}
        for key in keys:
            (original,) = source.rglob(key.rpartition("/")[2])
            assert path_of[key].samefile(original)
    for name in ("label2text.txt", "chatgpt.txt"):
        assert (tmp_path / "data" / name).read_bytes() == (lists / name).read_bytes()


def test_the_name_of_a_data_set_is_taken_in_any_case(archive, tmp_path):
    source, lists = archive("Flower102")
    split_images(source, tmp_path / "data/list.csv", dataset="flower102", lists=lists)
    with pytest.raises(UserError, match="did you mean 'Flower102'"):
        split_images(source, tmp_path / "data/list.csv", dataset="flowers102", lists=lists)


def test_missing_images_are_named_and_nothing_is_written(archive, tmp_path):
    source, lists = archive("Flower102")
    for i in (1, 4, 5, 6):
        (source / "jpg" / f"0000{i}.jpg").unlink()
    before = every_file(source)
    with pytest.raises(UserError, match=r"4 \(train/colt's_foot/00001.jpg.*--allow-missing") as caught:
        split_images(source, tmp_path / "data/list.csv", dataset="Flower102", lists=lists)
    assert "val/black-eyed_susan/00006.jpg" in caught.value.problem
    assert not (tmp_path / "data/list.csv").exists()
    assert every_file(source) == before
    summary = split_images(
        source, tmp_path / "data/list.csv", dataset="Flower102", lists=lists, allow_missing=True
    )
    assert summary.images == {"train": 2, "id_test": 0, "ood_test": 1}
    assert "left out: missing: 4 (train/colt's_foot/00001.jpg" in "\n".join(summary.lines())


def test_images_that_no_list_names_are_counted_and_named(archive, write_jpeg, tmp_path):
    source, lists = archive("CaltechBirds")
    images = source / "CUB_200_2011" / "images"
    for name in ("063.Ivory_Gull/more.jpg", "002.New/a.jpg", ".hidden/a.jpg", "002.New/._a.jpg"):
        write_jpeg(images / name)
    (images / "002.New" / "notes.txt").write_text("no image")
    summary = split_images(source, tmp_path / "data/list.csv", dataset="CaltechBirds", lists=lists)
    assert summary.left_out == ("of no list: 2 (002.New/a.jpg, 063.Ivory_Gull/more.jpg)",)


@pytest.mark.parametrize("dataset", ARCHIVES)
def test_a_source_of_another_layout_is_told_the_folder_it_lacks(archive, tmp_path, dataset):
    _, lists = archive(dataset)
    (tmp_path / "other").mkdir()
    expected = "SUN397 with ClassName.txt" if dataset == "SUN397" else ARCHIVES[dataset][0]
    with pytest.raises(UserError, match=expected):
        split_images(tmp_path / "other", tmp_path / "data/list.csv", dataset=dataset, lists=lists)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val/colt's_foot/9.jpg", "line 2: .* is not train/CLASS/FILE"),
        ("train/9.jpg", "line 2: .* is not train/CLASS/FILE"),
        ("train/../9.jpg", "line 2: .* is not train/CLASS/FILE"),
        ("train//9.jpg", "line 2: .* is not train/CLASS/FILE"),
        ("train/colt's_foot/9.txt", "line 2: .* of an image"),
        ("train/colt's_foot/00001.jpg", "the image 00001.jpg twice"),
        ("train/colt's_foot/00006.jpg", "the image 00006.jpg twice"),
        ("train/black-eyed_susan/00009.jpg", r"in train and in ood_test: 1 \(black-eyed_susan\)"),
        ("train/rose/00009.jpg", "no line for the class folder 'rose'"),
    ],
)
def test_a_list_that_cannot_be_is_refused_before_anything_is_written(
    archive, write_jpeg, tmp_path, line, message
):
    source, lists = archive("Flower102")
    write_jpeg(source / "jpg" / "00009.jpg")
    write_jpeg(source / "jpg" / "00001.png")
    path = lists / "train_data.txt"
    path.write_text("\n".join([path.read_text().split("\n")[0], line]))
    with pytest.raises(UserError, match=message):
        split_images(source, tmp_path / "data/list.csv", dataset="Flower102", lists=lists)
    assert not (tmp_path / "data/list.csv").exists()


def test_lists_must_all_be_there_and_name_images(archive, tmp_path):
    source, lists = archive("Flower102")
    (lists / "val_data.txt").write_text("\n")
    with pytest.raises(UserError, match=r"val_data.txt names no image"):
        split_images(source, tmp_path / "data/list.csv", dataset="Flower102", lists=lists)
    (lists / "val_data.txt").unlink()
    with pytest.raises(UserError, match=r"has no val_data.txt"):
        split_images(source, tmp_path / "data/list.csv", dataset="Flower102", lists=lists)


def test_a_scene_that_classname_lacks_is_named(archive, tmp_path):
    source, lists = archive("SUN397")
    (source / "ClassName.txt").write_text("/b/bridge\n/o/office_building/low\n")
    with pytest.raises(UserError, match="did you mean 'office_building_low'"):
        split_images(source, tmp_path / "data/list.csv", dataset="SUN397", lists=lists)


def test_held_out_classes_that_nothing_was_trained_on_are_refused(archive, tmp_path):
    source, lists = archive("Flower102")
    for i in (1, 2, 3):
        (source / "jpg" / f"0000{i}.jpg").unlink()
    with pytest.raises(UserError, match="no image is left for train"):
        split_images(source, tmp_path / "data/list.csv", dataset="Flower102", lists=lists, allow_missing=True)
    lines = (lists / "val_on_train_data.txt").read_text().replace("colt's_foot", "rose")
    (lists / "val_on_train_data.txt").write_text(lines)
    (lists / "train_data.txt").write_text("train/colt's_foot/00007.jpg")
    (lists / "val_data.txt").write_text("val/black-eyed_susan/00006.jpg")
    with pytest.raises(UserError, match=r"in id_test but not in train: 1 \(rose\)"):
        split_images(source, tmp_path / "data/list.csv", dataset="Flower102", lists=lists)


def test_other_lists_are_not_written_over_a_list(archive, tmp_path):
    source, lists = archive("Flower102")
    split_images(source, tmp_path / "data/list.csv", dataset="Flower102", lists=lists)
    (lists / "train_data.txt").write_text("train/colt's_foot/00001.jpg\n")
    with pytest.raises(CacheMismatch, match="is not this split"):
        split_images(source, tmp_path / "data/list.csv", dataset="Flower102", lists=lists)


def test_lists_run_again_leave_a_split_untouched_and_may_allow_what_is_not_missing(archive, tmp_path):
    source, lists = archive("SUN397")
    split_images(source, tmp_path / "data/list.csv", dataset="SUN397", lists=lists)
    before = every_file(tmp_path / "data")
    split_images(source, tmp_path / "data/list.csv", dataset="SUN397", lists=lists, allow_missing=True)
    assert every_file(tmp_path / "data") == before
