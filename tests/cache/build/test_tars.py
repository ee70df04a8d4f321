"""Caches in the format webdataset as stage 1 makes them: captions in the tars, growth, and training from both."""

from __future__ import annotations

import json

import pytest
import webdataset
from helpers.caches import builder
from helpers.runs import SMALL, numbers

from cache.build.outdated_tars import note_on_tars
from cache.maintain.compact import compact_cache
from cache.store.tar_folder import TarFolder
from distill.config import RunConfig
from distill.data.streams import open_stream
from distill.settings import with_settings
from distill.train.start import train

# webdataset leaves it to Python to close the files that it opened.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def build(photos, teacher_dir, tmp_path):
    """A function that caches ``photos`` as tars."""
    return builder(photos, teacher_dir, tmp_path, format="webdataset")


def samples_of(cache, split="train"):
    tars = sorted(map(str, (cache.path / "tars").glob(f"{split}-*.tar")))
    return list(webdataset.WebDataset(tars, shardshuffle=False))


def keys_of(cache, split="train"):
    folder = TarFolder.of(cache.path, cache.manifest, cache.journal)
    return [sample.key for sample in folder.split(split).all()]


def test_captions_lie_beside_their_pictures_and_are_learnt_from(build, photos, tmp_path):
    texts = {
        f"train/{path.parent.name}/{path.name}": f"the {path.stem} of {path.parent.name}"
        for path in (photos / "train").rglob("*.jpg")
    }
    lines = [json.dumps({"key": key, "caption": text}) for key, text in texts.items()]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    cache = build(captions=tmp_path / "captions.jsonl")
    for sample in samples_of(cache):
        assert sample["txt"].decode() == texts[f"train/{json.loads(sample['json'])['key']}"]
    assert {sample["txt"] for sample in samples_of(cache, "id_test")} == {b"a photo"}
    config = with_settings(RunConfig(), [*SMALL, "train.epochs=1"])
    train(config, cache_dir=cache.path, data_dir=None, out=tmp_path / "run")
    assert numbers(tmp_path / "run")[0]["loss_cap"] > 0


def note_on(cache):
    return note_on_tars(cache.path, cache.manifest, cache.journal)


def test_tars_of_other_captions_or_class_numbers_are_named_and_written_anew(
    build, photos, tmp_path, write_jpeg
):
    captions = tmp_path / "captions.jsonl"

    def captioned(word):
        keys = [f"{path.parent.name}/{path.name}" for path in (photos / "train").rglob("*.jpg")]
        captions.write_text("\n".join(json.dumps({"key": key, "caption": f"{word} {key}"}) for key in keys))
        return build(captions=captions)

    for texts in ("label2text.txt", "chatgpt.txt"):
        (photos / texts).unlink()
    assert note_on(captioned("a")) is None
    write_jpeg(photos / "train/aardvark/train_0.jpg", (9, 90, 9))
    assert f"repair {tmp_path}/cache --compact' writes them anew" in note_on(captioned("one"))
    compact_cache(tmp_path / "cache")
    cache = build(captions=captions)
    assert note_on(cache) is None
    for sample in samples_of(cache):
        table = json.loads(sample["json"])
        assert cache.class_names("train")[int(sample["cls"])] == table["labels"][0]
        assert sample["txt"].decode() == f"one {table['key']}"
    before = {path: path.stat().st_mtime_ns for path in (cache.path / "tars").iterdir()}
    compact_cache(cache.path)
    assert {path: path.stat().st_mtime_ns for path in (cache.path / "tars").iterdir()} == before
    write_jpeg(photos / "train/zebra/train_0.jpg", (90, 90, 9))
    assert note_on(captioned("one")) is None  # a last class changes no number


def test_captions_pass_over_a_row_group_of_which_no_row_is_left(build, photos, tmp_path, write_jpeg):
    build()
    write_jpeg(photos / "train/apple/new.jpg", (9, 9, 9))
    build()
    (photos / "train/apple/new.jpg").unlink()
    (tmp_path / "captions.jsonl").write_text('{"key": "apple/train_1.jpg", "caption": "red"}')
    cache = build(captions=tmp_path / "captions.jsonl")
    assert cache.split("train").caption_embeddings is not None


def test_a_cache_of_tars_grows_and_what_is_gone_is_not_streamed(build, photos, write_jpeg):
    build()
    write_jpeg(photos / "train/apple/new.jpg", (9, 9, 9))
    (photos / "train/banana/train_3.jpg").unlink()
    write_jpeg(photos / "train/cherry/train_2.jpg", (250, 250, 250))
    cache = build()
    rows = cache.split("train")
    folder = sorted(f"{path.parent.name}/{path.name}" for path in (photos / "train").rglob("*.jpg"))
    assert sorted(rows.keys) == keys_of(cache) == folder
    assert len(cache.journal.groups("train")) == 2
    fresh = build("fresh")
    assert rows.digests == fresh.split("train").digests
    stream = open_stream(with_settings(RunConfig(), ["data.workers=0"]), cache_dir=cache.path, data_dir=None)
    data = stream.data_of(stream.config, ["main"])
    steps = data.epoch(0, batch_size=3, repeats=1, seed=0)
    seen = [key for step, _ in enumerate(data.images(steps)) for key in data.keys_of(steps, step)]
    assert sorted(seen) == folder
