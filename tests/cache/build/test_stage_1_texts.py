"""What stage 1 takes a data folder's words for: descriptions, captions and names, found by name, and said."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import COLOURS, ID_CLASSES, Counted

from cache import EmbeddingCache
from cache.build.from_folder import FeatureOptions, cache_features
from cache.runtime.errors import CacheMismatch, UserError
from distill.judge.teachers import evaluate_teacher


class Told(Counted):
    """A progress that keeps what it was told in words."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture
def build(teacher_dir, photos, tmp_path):
    """A function that runs stage 1 on ``photos`` and returns its summary."""

    def run(out="cache", progress=None, **options):
        given = {"model": f"local-dir:{teacher_dir}", "device": "cpu", "workers": 0, **options}
        return cache_features(photos, tmp_path / out, FeatureOptions(**given), progress=progress)

    return run


def test_captions_of_a_finished_cache_that_change_or_fit_no_image_are_told(build, photos, tmp_path):
    def write(text, folder="train"):
        lines = [
            {"key": f"{folder}/{c}/train_{i}.jpg", "caption": f"{text} {c} {i}"}
            for c in ID_CLASSES
            for i in range(8)
        ]
        lines.append({"key": "val/plum/val_0.jpg", "caption": text})
        (photos / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    write("red")
    first = build()
    assert first.sources["captions"] == (
        "captions.jsonl: train 24 of 24, id_test 0 of 9, ood_test 1 of 6 images have their own, the others 'a photo'"
    )
    write("blue")
    build(progress=(told := Told()))
    assert any("the captions of 30 images are replaced" in line for line in told.lines)
    write("blue", folder="old_train")
    summary = build(progress=(told := Told()))
    assert any("24 images had a caption of their own" in line for line in told.lines)
    assert "train 0 of 24" in summary.sources["captions"]
    assert "24 keys are no image's ('old_train/apple/train_0.jpg', ...)" in summary.sources["captions"]
    (photos / "captions.jsonl").unlink()
    assert "kept from before: train 0 of 24" in build().sources["captions"]
    write("blue", folder="old_train")
    (photos / "val" / "plum" / "val_0.jpg").rename(photos / "val" / "plum" / "val_9.jpg")
    with pytest.raises(UserError, match="none of its 25 keys is an image"):
        build()


def rename(photos, old, new):
    for split in photos.iterdir():
        if (split / old).is_dir():
            (split / old).rename(split / new)


def descriptions_in(cache):
    bank = EmbeddingCache.open(cache).text_bank("descriptions")
    return dict(zip(bank.class_folders, bank.texts, strict=True))


@pytest.mark.parametrize("rebuild", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_renamed_folder_does_not_move_descriptions_by_position(build, photos, tmp_path, rebuild, dtype):
    (photos / "label2text.txt").unlink()
    build()
    before = descriptions_in(tmp_path / "cache")
    rename(photos, "banana", "zebra_plantain")
    message = r"by position.*'cherry' would get 'A banana is a fruit\.', which 'banana' had.*FOLDER<TAB>TEXT"
    with pytest.raises(CacheMismatch, match=message):
        build(rebuild=rebuild, dtype=dtype)
    assert descriptions_in(tmp_path / "cache") == before
    names = ("apple", "cherry", "lemon", "plum")
    lines = [f"{name}\tA {name} is a fruit." for name in names]
    (photos / "chatgpt.txt").write_text("\n".join(["zebra_plantain\tA banana is a fruit.", *lines]))
    build(rebuild=True)
    after = descriptions_in(tmp_path / "cache")
    assert {name: after[name] for name in names} == {name: before[name] for name in names}
    assert after["zebra_plantain"] == "a photo of zebra plantain . A banana is a fruit."


def test_a_renamed_folder_keeps_its_place_in_label2text(build, photos, tmp_path):
    build()
    rename(photos, "banana", "zebra_plantain")
    labels = photos / "label2text.txt"
    labels.write_text(labels.read_text().replace("banana 2 banana", "zebra_plantain 2 banana"))
    build(rebuild=True)
    assert descriptions_in(tmp_path / "cache")["zebra_plantain"] == "a photo of banana . A banana is a fruit."
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join([lines[1], lines[0], *lines[2:]]))
    with pytest.raises(
        CacheMismatch, match=r"'apple' would get 'A banana is a fruit\.', which 'zebra_plantain' had"
    ):
        build(rebuild=True)


def test_a_second_teacher_gives_no_class_another_ones_description(build, photos):
    build()
    labels = photos / "label2text.txt"
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join([*lines[1:], lines[0]]))
    with pytest.raises(CacheMismatch, match="'banana' would get 'A apple is a fruit"):
        build(teacher="second")


def test_positions_are_told_where_no_cache_knows_them(build, photos):
    build(progress=(told := Told()))
    assert told.lines[0] == (
        "descriptions: chatgpt.txt, by position: apple -> 'A apple is a fruit.', banana -> 'A banana is a fruit.', ..."
    )
    (photos / "chatgpt.txt").write_text("".join(f"{n}\tA {n} is a fruit.\n" for n in sorted(COLOURS)))
    summary = build(progress=(told := Told()))
    assert told.lines == []
    assert summary.sources["texts descriptions"] == "5, chatgpt.txt, by name"
    assert summary.sources["texts labels"] == "5, label2text.txt, by name"


@pytest.mark.parametrize(("one", "other"), [("apple", "banana"), ("lemon", "plum"), ("apple", "plum")])
def test_two_classes_with_one_name_stop_stage_1(build, photos, tmp_path, one, other):
    labels = photos / "label2text.txt"
    labels.write_text(labels.read_text().replace(f"{other}\n", "Fruit\n").replace(f"{one}\n", "fruit\n"))
    with pytest.raises(UserError) as error:
        build()
    assert one in str(error.value)
    assert other in str(error.value)
    assert "fruit" in str(error.value).casefold()
    assert not (tmp_path / "cache" / "images").exists()


def test_descriptions_that_the_context_cuts_to_one_text_stop_stage_1(build, photos):
    labels = photos / "label2text.txt"
    long = "_".join(["a_very_ripe"] * 7)
    labels.write_text(
        labels.read_text().replace("apple\n", f"{long}_apple\n").replace("banana\n", f"{long}_banana\n")
    )
    with pytest.raises(UserError, match=r"'apple' and 'banana' have the same text .*tokenizer"):
        build()


def test_the_zero_shot_accuracy_at_the_end_is_that_of_evaluate(build, tmp_path):
    summary = build()
    for bank in ("labels", "descriptions"):
        accuracies = {one.split: one.accuracy for one in summary.zero_shot if one.bank == bank}
        expected = evaluate_teacher(tmp_path / "cache", text=bank)
        assert accuracies == {split: pytest.approx(result.accuracy) for split, result in expected.items()}


def test_texts_that_changed_are_embedded_anew_and_said_in_one_line(build, photos, tmp_path):
    build()

    def rows_of_banks():
        cache = EmbeddingCache.open(tmp_path / "cache")
        return [cache.text_bank(name).class_texts(sorted(COLOURS)) for name in ("labels", "descriptions")]

    before = rows_of_banks()
    labels = photos / "label2text.txt"
    labels.write_text(labels.read_text().replace("plum\n", "blue_plum\n"))
    summary = build(progress=(told := Told()))
    assert summary.new_rows == 0
    assert [line for line in told.lines if "texts changed" in line] == [
        "photos changed: texts changed: labels (1 of 5 classes), descriptions (1 of 5 classes); "
        "0 of 39 rows are to be embedded"
    ]
    assert EmbeddingCache.open(tmp_path / "cache").text_bank("labels").texts[-1] == "a photo of blue plum"
    for one, other in zip(before, rows_of_banks(), strict=True):
        np.testing.assert_allclose(one[:4], other[:4], rtol=1e-4, atol=1e-5)
        assert not np.allclose(one[4], other[4], atol=1e-3)
    build(progress=(told := Told()))
    assert [line for line in told.lines if "texts changed" in line] == []


def test_a_bank_that_is_damaged_or_gone_is_made_again_by_the_same_command(build, tmp_path):
    build()
    file = tmp_path / "cache" / "texts" / "labels.h5"
    before = EmbeddingCache.open(tmp_path / "cache").text_bank("labels")
    for spoil in (lambda: file.write_bytes(b"damaged"), file.unlink):
        spoil()
        build(progress=(told := Told()))
        assert not [line for line in told.lines if "texts changed" in line]
        after = EmbeddingCache.open(tmp_path / "cache").text_bank("labels")
        np.testing.assert_array_equal(after.embeddings, before.embeddings)
