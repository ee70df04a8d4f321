"""Numbers that are wrong though nothing is broken: they stop a command, or are said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import make_cache
from keep_schema import SETTINGS
from PIL import Image
from safetensors.torch import load_file, save_file

from cache.errors import UserError
from cache.features import FeatureOptions, cache_features
from cache.images import ImageFolder
from cache.open_set import check_apart
from cache.teacher_checks import SameForAll, check_texts
from cli import main
from distill.checkpoint import read_checkpoint
from distill.settings import load_recipe, with_settings
from distill.train import run

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
    words = [
        "cache-features",
        str(photos),
        "--out",
        str(tmp_path / "cache"),
        "--model",
        f"local-dir:{teacher_dir}",
    ]
    words += ["--device", "cpu", "--workers", "0"]
    found = json.loads(CliRunner().invoke(main, [*words, "--json"]).stdout)
    assert sorted(map(tuple, found["duplicates"])) == [
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
    config = with_settings(load_recipe("smoke"), SETTINGS)
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
    folder = ImageFolder.scan(photos)
    check_apart(folder, fix="mean it.")
    with pytest.raises(UserError, match="lemon"):
        check_apart(folder, fix="mean it.", texts={"lemon": "big Apple", "apple": "big_apple"})


def test_a_loss_that_is_not_finite_stops_before_the_step_and_keeps_the_last_checkpoint(tmp_path, photos):
    cache = make_cache(tmp_path / "cache", photos).path
    config = with_settings(load_recipe("smoke"), [*SETTINGS, "train.epochs=4", "train.checkpoint_steps=1"])
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
