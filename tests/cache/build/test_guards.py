"""Numbers that are wrong though nothing is broken: they stop a command, or are said."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import make_cache
from helpers.caches import stage_1_words
from helpers.runs import ONE_EPOCH
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from safetensors.torch import load_file, save_file

from cache.build.from_folder import FeatureOptions, cache_features
from cache.build.zero_shot import ZeroShot, doubts
from cache.reader import EmbeddingCache
from cache.runtime.errors import UserError
from cache.sources.data import open_data
from cache.sources.open_set import check_apart, check_trained
from cache.teacher.sanity import SameForAll, check_texts, stored
from cli import main
from distill.checkpoint import read_checkpoint
from distill.judge.open_run import evaluate_run
from distill.settings import load_recipe, with_settings
from distill.train.start import train as run

WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture
def broken_teacher(tmp_path, teacher_dir):
    """A function that saves the small teacher with some weights changed."""

    def save(change) -> str:
        folder = tmp_path / "broken"
        shutil.copytree(teacher_dir, folder)
        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS)
        return f"local-dir:{folder}"

    return save


def stage_1(photos: Path, out: Path, model: str, **options: object) -> None:
    cache_features(photos, out, FeatureOptions(model=model, device="cpu", workers=0, **options))


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_teacher_that_says_the_same_of_all_images_stops_with_two_of_them(
    tmp_path, photos, broken_teacher, batch_size
):
    model = broken_teacher(lambda weights: weights["visual.conv1.weight"].zero_())
    with pytest.raises(UserError, match=r"the same of different images \(.*apple/train_0.jpg and .*\.jpg\)"):
        stage_1(photos, tmp_path / "cache", model, batch_size=batch_size)
    assert not list((tmp_path / "cache" / "images").glob("*"))


def test_a_teacher_that_says_nothing_stops_with_the_image(tmp_path, photos, broken_teacher):
    model = broken_teacher(lambda weights: weights["visual.proj"].zero_())
    with pytest.raises(UserError, match=r"16 equal numbers for .*apple/train_0.jpg"):
        stage_1(photos, tmp_path / "cache", model)


def test_a_teacher_that_is_not_finite_stops_with_the_image_or_the_text(tmp_path, photos, broken_teacher):
    model = broken_teacher(lambda weights: weights["visual.proj"].fill_(float("nan")))
    with pytest.raises(UserError, match=r"not finite for .*apple/train_0.jpg"):
        stage_1(photos, tmp_path / "cache", model)
    shutil.rmtree(tmp_path / "broken")
    model = broken_teacher(lambda weights: weights["text_projection"].fill_(float("nan")))
    with pytest.raises(UserError, match=r"not finite for the text 'a photo of apple'"):
        stage_1(photos, tmp_path / "other", model)


def test_a_teacher_that_says_the_same_of_all_texts_stops(tmp_path, photos, broken_teacher):
    def deaf(weights: dict[str, torch.Tensor]) -> None:
        weights["token_embedding.weight"].zero_()
        weights["positional_embedding"].zero_()

    with pytest.raises(UserError, match="the same of different texts"):
        stage_1(photos, tmp_path / "cache", broken_teacher(deaf))
    check_texts(torch.ones(2, 4), ["one text", "one text"])


def test_images_that_are_the_same_trip_nothing(tmp_path, photos, teacher_dir):
    black = tmp_path / "black.png"
    Image.new("RGB", (40, 40)).save(black)
    for path in photos.rglob("*.jpg"):
        shutil.copy(black, path.with_suffix(".png"))
        path.unlink()
    stage_1(photos, tmp_path / "cache", f"local-dir:{teacher_dir}", batch_size=3)


def test_a_teacher_that_varies_late_is_a_teacher():
    same = SameForAll()
    pixels, rows = torch.arange(12.0).view(3, 4), torch.ones(3, 2) * torch.tensor([1.0, 2.0])
    same.look(rows, same.differ(pixels), ["a", "b", "c"])
    same.look(rows[:1] + 1, same.differ(pixels[:1] + 50), ["d"])
    same.end()
    assert same.differ(pixels) is None


def test_images_in_two_splits_or_classes_are_said(tmp_path, photos, teacher_dir):
    shutil.copy(photos / "train" / "apple" / "train_1.jpg", photos / "val" / "plum" / "again.jpg")
    shutil.copy(photos / "train" / "apple" / "train_2.jpg", photos / "val_on_train" / "apple" / "again.jpg")
    shutil.copy(photos / "train" / "apple" / "train_3.jpg", photos / "train" / "cherry" / "again.jpg")
    shutil.copy(
        photos / "train" / "apple" / "train_4.jpg", photos / "train" / "apple" / "again.jpg"
    )  # harmless
    words = stage_1_words(photos, tmp_path / "cache", teacher_dir, "--device", "cpu", "--workers", "0")
    summary = json.loads(CliRunner().invoke(main, [*words, "--json"]).stdout)
    assert sorted(map(tuple, summary["duplicates"])) == [
        ("train/apple/train_1.jpg", "ood_test/plum/again.jpg"),
        ("train/apple/train_2.jpg", "id_test/apple/again.jpg"),
        ("train/apple/train_3.jpg", "train/cherry/again.jpg"),
    ]
    for again in (
        CliRunner().invoke(main, words),
        CliRunner().invoke(main, ["cache", "verify", str(tmp_path / "cache")]),
    ):
        assert again.exit_code == 0
        assert "3 images are in two splits or classes: " in again.stdout
        assert "train/apple/train_1.jpg is ood_test/plum/again.jpg" in again.stdout


@pytest.mark.parametrize("name", ["apple", "Apple"])
def test_a_class_on_both_sides_of_the_line_is_refused_unless_it_is_meant(tmp_path, photos, teacher_dir, name):
    cached = make_cache(tmp_path / "cache", photos).path
    (photos / "val" / "lemon").rename(photos / "val" / name)
    model, out = f"local-dir:{teacher_dir}", tmp_path / "new"
    (photos / "chatgpt.txt").unlink()
    with (photos / "label2text.txt").open("a") as file:
        file.write("" if name == "apple" else "Apple 6 red_fruit\n")
    with pytest.raises(UserError, match=rf"1 classes of .* \({name}\).*--shared-classes"):
        stage_1(photos, out, model)
    stage_1(photos, out, model, shared_classes=True)
    config = with_settings(load_recipe("smoke"), ONE_EPOCH)
    with pytest.raises(UserError, match=r"data\.shared_classes=true"):
        run(config, cache_dir=cached, data_dir=photos, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run(
        with_settings(config, ["data.shared_classes=true"]),
        cache_dir=out,
        data_dir=photos,
        out=tmp_path / "run",
    )


def test_two_folders_with_one_text_are_one_class(tmp_path, photos):
    folder = open_data([photos])
    check_apart(folder, fix="mean it.")
    with pytest.raises(UserError, match="lemon"):
        check_apart(folder, fix="mean it.", texts={"lemon": "big Apple", "apple": "big_apple"})


def test_a_loss_that_is_not_finite_stops_before_the_step_and_keeps_the_last_checkpoint(tmp_path, photos):
    cache = make_cache(tmp_path / "cache", photos).path
    config = with_settings(load_recipe("smoke"), [*ONE_EPOCH, "train.epochs=4", "train.checkpoint_steps=1"])
    out = tmp_path / "run"
    with pytest.raises(
        UserError,
        match=r"not finite in epoch \d, step \d \(.*cls .*total .*; images .*\.jpg, .*last.pt holds the state before",
    ):
        run(
            with_settings(config, ["optim.lr=1e8", "optim.schedule=onecycle", "loss.mse_raw=1"]),
            cache_dir=cache,
            data_dir=photos,
            out=out,
        )
    state = read_checkpoint(out / "last.pt")
    assert all(torch.isfinite(v).all() for v in state["student"].values() if v.is_floating_point())
    assert 0 < state["position"]["step"] < 3


def test_an_id_test_class_that_train_lacks_stops_both_stages(tmp_path, photos, teacher_dir):
    model, out = f"local-dir:{teacher_dir}", tmp_path / "cache"
    stage_1(photos, out, model)
    config = with_settings(load_recipe("smoke"), ONE_EPOCH)
    run(config, cache_dir=out, data_dir=photos, out=tmp_path / "run")
    (photos / "chatgpt.txt").unlink()
    (photos / "label2text.txt").unlink()
    (photos / "val_on_train" / "cherry").rename(photos / "val_on_train" / "cherrry")
    message = r"ID test \(val_on_train/\) but not in train: 'cherrry'. Fix: did you mean 'cherry'"
    with pytest.raises(UserError, match=message):
        stage_1(photos, tmp_path / "new", model)
    assert not (tmp_path / "new").exists()
    with pytest.raises(UserError, match=message):
        run(config, cache_dir=out, data_dir=photos, out=tmp_path / "other")
    with pytest.raises(UserError, match=message):
        evaluate_run(tmp_path / "run")
    shutil.rmtree(photos / "val_on_train")
    check_trained(photos, {"train": ("a",)})


def named(i: int) -> str:
    return f"row {i}"


def test_rows_are_kept_in_their_dtype_and_checked_one_by_one():
    rows = np.random.default_rng(0).normal(size=(5, 3, 8)).astype("float32")
    np.testing.assert_array_equal(stored(rows, "float16", named), rows.astype("float16"))
    np.testing.assert_array_equal(stored(rows[:0], "float16", named), rows[:0])
    np.testing.assert_array_equal(stored(rows * 1e-30, "float32", named), rows * np.float32(1e-30))
    for value, problem in (
        (np.nan, "not finite"),
        (np.inf, "not finite"),
        (0, "all zeros"),
        (1e6, "too large"),
    ):
        odd = rows.copy()
        odd[3, 1] = value
        with pytest.raises(UserError, match=rf"row 3 is {problem}"):
            stored(odd, "float16", named)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1e2, 1, 1e-2, 1e-3, 1e-4, 3e-5, 1e-5, 1e-6, 1e-8, 1e-12, 1e-30])
def test_a_row_that_loses_a_thousandth_in_float16_is_refused_and_one_that_does_not_is_kept(size, dtype):
    rows = (np.random.default_rng(1).normal(size=(40, 64)) * size).astype(dtype)
    lost = [
        math.sqrt(
            math.fsum((float(x) - float(np.float16(x))) ** 2 for x in row)
            / math.fsum(float(x) ** 2 for x in row)
        )
        for row in rows
    ]
    first = next((i for i, share in enumerate(lost) if share > 1e-3), None)
    if first is None:
        np.testing.assert_array_equal(stored(rows, "float16", named), rows.astype("float16"))
        return
    with pytest.raises(UserError, match=rf"row {first} is too small for float16.*--dtype float32"):
        stored(rows, "float16", named)
    stored(rows, "float32", named)


def test_rows_of_a_length_that_float32_loses_as_well_are_to_be_scaled():
    rows = np.random.default_rng(1).normal(size=(4, 64)) * 1e-43
    with pytest.raises(UserError, match=r"row 0 is too small for float32.*Fix: scale all rows alike") as told:
        stored(rows, "float32", named)
    assert "--dtype" not in str(told.value)


@pytest.mark.parametrize(
    ("accuracy", "images", "classes", "near"),
    [
        (2.4, 1303, 51, True),
        (3.5, 3774, 51, True),
        (10.0, 1303, 51, False),
        (97.0, 500, 50, False),
        (53.0, 10_000, 2, True),
        (80.0, 10_000, 2, False),
        (60.0, 10, 2, True),
        (100.0, 30, 1, False),
        (0.0, 30, 3, True),
    ],
)
def test_near_chance_is_hardly_better_than_guessing(accuracy, images, classes, near):
    one = ZeroShot(
        split="train", bank="labels", accuracy=accuracy, images=images, classes=classes, competing=classes
    )
    assert one.near_chance is near


def test_classes_that_the_teacher_cannot_tell_apart_are_said(tmp_path, photos, broken_teacher):
    def knows_no_words(weights: dict[str, torch.Tensor]) -> None:
        tokens = SimpleTokenizer().encode("plum lemon")
        weights["token_embedding.weight"][tokens] = 0

    stage_1(photos, tmp_path / "cache", broken_teacher(knows_no_words))
    cache = EmbeddingCache.open(tmp_path / "cache")
    message = "labels: the teacher gives 2 of 5 classes the same row as another ('lemon' and 'plum')"
    assert [line for line in doubts(cache, ["labels"], []) if line.startswith(message)]


@pytest.mark.parametrize(
    ("weights", "who"), [("visual.proj", r"the row of .*train_\d\.jpg"), ("text_projection", "the caption '")]
)
def test_a_teacher_whose_rows_float16_loses_is_told_to_keep_them_in_float32(
    photos, tmp_path, broken_teacher, weights, who
):
    def whispers(state: dict[str, torch.Tensor]) -> None:
        state[weights] *= 1e-6

    lines = [{"key": f"apple/train_{i}.jpg", "caption": f"apple number {i}"} for i in range(8)]
    (photos / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    teacher = broken_teacher(whispers)
    with pytest.raises(UserError, match=rf"{who}.* is too small for float16, .*use --dtype float32"):
        stage_1(photos, tmp_path / "cache", teacher)
    stage_1(photos, tmp_path / "wide", teacher, dtype="float32")
