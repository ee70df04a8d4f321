"""Captions by very small models with random weights, saved to disk as transformers saves them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Before transformers, which reads it when it is imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from conftest import Counted

import cache.runtime.torchvision_compat  # noqa: F401  # isort: skip
from cache.prepare.caption import caption
from cache.prepare.captioner import Captioner, load_captioner
from cache.runtime.errors import UserError
from cache.sources.class_texts import MISSING_CAPTION, caption_of, read_captions
from cache.sources.data import open_data

pytest.importorskip("transformers")

from helpers.tiny_captioners import END, SAVE, SPECIAL, save_blip


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folders = {}
    for name, save in SAVE.items():
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp("captioner") / name
        folder.mkdir()
        save(folder)
        folders[name] = str(folder)
    return folders


@pytest.fixture
def model(models: dict[str, str]) -> str:
    return models["vit-gpt2"]


def rows_of(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def kill_after(monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """Let captioning stop as by Ctrl-C; the two grey images of loading count as a batch."""
    real, calls = Captioner.captions, []

    def captions(self: Captioner, pixels: torch.Tensor) -> list[str]:
        calls.append(len(pixels))
        if len(calls) > batches + 1:
            raise KeyboardInterrupt
        return real(self, pixels)

    monkeypatch.setattr(Captioner, "captions", captions)


@pytest.mark.parametrize("architecture", SAVE)
def test_every_image_gets_a_caption(photos: Path, models: dict[str, str], architecture: str):
    progress = Counted()
    summary = caption(photos, model=models[architecture], progress=progress)
    folder = open_data([photos])
    keys = [f"{name}/{image.key}" for name, split in folder.splits.items() for image in split.all()]
    assert [row["key"] for row in rows_of(photos / "captions.jsonl")] == keys
    captions = read_captions(photos / "captions.jsonl")
    for name, split in folder.splits.items():
        assert all(caption_of(captions, name, image.key) for image in split.all())
    words = {word for text in captions.values() for word in text.split()}
    assert words
    assert not words & {*SPECIAL}
    assert (summary.images, summary.captioned, summary.reused) == (len(keys), len(keys), 0)
    assert not summary.failed
    assert progress.totals == progress.done == [len(keys)]
    assert not (photos / "captions.jsonl.partial.jsonl").exists()


def test_the_batch_size_does_not_change_captions(photos: Path, model: str):
    outs = {
        caption(photos, model=model, out=photos / f"{size}.jsonl", batch_size=size, workers=workers).out
        for size, workers in ((1, 0), (7, 1), (64, 2))
    }
    assert len({out.read_text() for out in outs}) == 1
    captions = read_captions(outs.pop())
    assert len(set(captions.values())) > 1


def test_no_three_tokens_come_twice(model: str, monkeypatch: pytest.MonkeyPatch):
    captioner, made = load_captioner(model, torch.device("cpu")), []
    real = captioner.model.generate
    monkeypatch.setattr(captioner.model, "generate", lambda **kw: made.append(kw) or real(**kw))
    captioner.captions(torch.randn(4, 3, 32, 32))
    assert (made[0]["num_beams"], made[0]["max_new_tokens"], made[0]["no_repeat_ngram_size"]) == (5, 16, 3)
    for row in real(**made[0]).tolist():
        tokens = row[1 : row.index(END, 1) if END in row[1:] else None]
        assert 0 < len(tokens) <= 16
        triples = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
        assert len(set(triples)) == len(triples)


def test_splits(photos: Path, model: str):
    assert caption(photos, model=model, splits=("val", "id_test")).images == 15
    splits = [row["key"].split("/")[0] for row in rows_of(photos / "captions.jsonl")]
    assert list(dict.fromkeys(splits)) == ["id_test", "ood_test"]


def test_an_unreadable_image_is_a_photo(photos: Path, model: str, write_jpeg: Any):
    broken, small = photos / "train" / "apple" / "broken.jpg", photos / "train" / "apple" / "a.png"
    broken.write_bytes(b"no image")
    write_jpeg(small)
    progress = Counted()
    summary = caption(photos, model=model, batch_size=1, progress=progress)
    assert list(summary.failed) == ["train/apple/broken.jpg"]
    assert "cannot be read" in summary.failed["train/apple/broken.jpg"]
    assert summary.captioned == summary.images - 1
    assert any("broken.jpg" in line for line in progress.notes)
    captions = read_captions(photos / "captions.jsonl")
    assert captions["train/apple/broken.jpg"] == MISSING_CAPTION
    assert list(captions.values()).count(MISSING_CAPTION) == 1


def test_an_empty_caption_is_a_photo(photos: Path, model: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Captioner, "captions", lambda self, pixels: [""] * len(pixels))
    summary = caption(photos, model=model, workers=0)
    assert set(summary.failed.values()) == {"the model said nothing"}
    assert set(read_captions(summary.out).values()) == {MISSING_CAPTION}


def test_a_killed_run_goes_on(photos: Path, model: str, monkeypatch: pytest.MonkeyPatch):
    (photos / "train" / "apple" / "broken.jpg").write_bytes(b"no image")
    whole = caption(photos, model=model, out=photos / "whole.jsonl", batch_size=4, workers=0)
    with monkeypatch.context() as patch:
        kill_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            caption(photos, model=model, batch_size=4, workers=0)
    partial = photos / "captions.jsonl.partial.jsonl"
    assert not (photos / "captions.jsonl").exists()
    assert len(rows_of(partial)) == 1 + 12
    # What a kill in the middle of a line would leave.
    partial.write_bytes(partial.read_bytes()[:-9])
    summary = caption(photos, model=model, batch_size=4, workers=0)
    assert summary.out.read_text() == whole.out.read_text()
    # The last line was torn, and what failed is tried again.
    assert (summary.reused, summary.captioned) == (10, whole.images - 11)
    assert list(summary.failed) == ["train/apple/broken.jpg"]
    assert not partial.exists()


def test_another_model_starts_afresh(
    photos: Path, model: str, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        kill_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            caption(photos, model=models["git"], batch_size=4, workers=0)
    progress = Counted()
    assert caption(photos, model=model, workers=0, progress=progress).reused == 0
    assert any("are not used" in line for line in progress.notes)


def test_existing_captions_are_not_overwritten(photos: Path, model: str):
    (photos / "captions.jsonl").write_text("by hand\n")
    with pytest.raises(UserError, match=r"exists already.*--out"):
        caption(photos, model=model)
    assert (photos / "captions.jsonl").read_text() == "by hand\n"


def config_of(folder: Path, value: dict[str, Any]) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(value))
    return str(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "ofa"}, r"cannot load.*ofa.*that this transformers knows"),
        ({"model_type": "bert"}, r"is a bert, which does not make text from images"),
        ({"model_type": "blip"}, r"folder is not a whole model"),
        ({}, r"cannot load"),
        (None, r"model was not found: nobody/nothing.*Hugging Face"),
    ],
)
def test_a_model_that_cannot_caption(
    photos: Path,
    tmp_path: Path,
    config: dict[str, Any] | None,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    name = "nobody/nothing" if config is None else config_of(tmp_path / "model", config)
    with pytest.raises(UserError, match=message) as caught:
        caption(photos, model=name)
    assert "\n" not in str(caught.value)
    assert not list(photos.glob("captions*"))


def test_weights_of_a_part_are_refused(photos: Path, tmp_path: Path):
    (folder := tmp_path / "part").mkdir()
    save_blip(folder)
    from safetensors.torch import load_file, save_file

    weights = folder / "model.safetensors"
    kept = {key: value for key, value in load_file(weights).items() if "crossattention" not in key}
    save_file(kept, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lack \d+ parts of the model.*crossattention"):
        caption(photos, model=str(folder))


def test_a_model_that_fails_on_an_image(photos: Path, model: str, monkeypatch: pytest.MonkeyPatch):
    def captions(self: Captioner, pixels: torch.Tensor) -> Sequence[str]:
        raise ValueError("where is the prompt?\nmore")

    monkeypatch.setattr(Captioner, "captions", captions)
    with pytest.raises(UserError, match=r"without a question \(where is the prompt\?\)"):
        caption(photos, model=model)


def test_without_the_package(photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r'pip install "\.\[caption\]"'):
        caption(photos, model="anything")
