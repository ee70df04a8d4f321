"""Pixels kept in the cache: what training reads, bit for bit, from files, memory or the cache."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import Counted
from helpers.runs import SMALL, numbers, weights

from cache import EmbeddingCache
from cache.build.from_folder import FeatureOptions, cache_features
from cache.maintain.verify import verify_cache
from cache.runtime.errors import UserError
from cache.sources.data import open_data
from cache.sources.decoding import load_rgb, squashed
from distill.config import FewShotConfig, RunConfig
from distill.data.augment import resize_size
from distill.data.pixels import Pixels, SquashedPhoto, StoredImages
from distill.fewshot.finetune import finetune_config
from distill.judge.open_run import evaluate_run
from distill.settings import with_settings
from distill.train.session import open_session
from distill.train.start import train as run

SIDE = resize_size(32)


@pytest.fixture
def keep(photos, teacher_dir, tmp_path):
    """A function that runs stage 1 with pixels and returns the cache's folder."""

    def build(**options):
        given = {"model": f"local-dir:{teacher_dir}", "device": "cpu", "workers": 0, "pixels": SIDE}
        cache_features(photos, tmp_path / "cache", FeatureOptions(**{**given, **options}))
        return tmp_path / "cache"

    return build


def files_of(cache, groups="*"):
    return sorted(cache.glob(f"rows/{groups}/pixels.h5"))


def config(*settings):
    return with_settings(RunConfig(), [*SMALL, "loss.cap=0", "data.decoder=pillow", *settings])


def test_raw_pixels_are_the_squashed_files(keep, photos):
    cache, folder = EmbeddingCache.open(keep(workers=2)), open_data([photos])
    for name, split in folder.splits.items():
        stored = cache.pixels(name, side=SIDE)
        rows = stored.find([image.key for image in split.all()])
        for image, pixels in zip(split.all(), stored.images(rows), strict=True):
            assert torch.equal(torch.from_numpy(pixels), squashed(load_rgb(Path(image.where)), SIDE))
    assert cache.pixels("train", side=SIDE + 1) is None
    (file,) = files_of(cache.path, "train-*")
    with h5py.File(file) as column_file:
        assert column_file["pixels"].chunks is None
        assert column_file["pixels"].id.get_offset() is not None


def test_jpeg_pixels_are_close_to_them_and_smaller_on_photos(keep, photos):
    cache = EmbeddingCache.open(keep(pixels_format="jpeg"))
    image = open_data([photos]).split("train").all()[3]
    stored = cache.pixels("train", side=SIDE)
    kept = stored.images(stored.find([image.key]))[0].astype(np.float32)
    assert kept.shape == (3, SIDE, SIDE)
    decoded = squashed(load_rgb(Path(image.where)), SIDE).float().numpy()
    assert np.abs(kept - decoded).mean() < 12  # these pictures are noise


def test_training_from_the_cache_equals_training_from_files(keep, photos, tmp_path):
    cache = keep()
    for name, settings in {
        "cache": ["data.memory_mb=0"],
        "files": ["data.pixels=files", "data.memory_mb=0"],
        "memory": ["data.pixels=files"],
        "device": ["data.device_images=on"],
    }.items():
        run(config(*settings), cache_dir=cache, data_dir=photos, out=tmp_path / f"run-{name}")
    expected = numbers(tmp_path / "run-files")
    assert all(numbers(tmp_path / f"run-{name}") == expected for name in ("cache", "memory", "device"))
    one, other = weights(tmp_path / "run-cache"), weights(tmp_path / "run-files")
    assert all(torch.equal(one[name], other[name]) for name in one)
    judged = evaluate_run(tmp_path / "run-cache", device="cpu")
    assert judged["ood_test"].accuracy == pytest.approx(expected[-1]["ood_test_accuracy"])


def test_jpeg_pixels_are_decoded_in_workers_alike(keep, photos, tmp_path):
    cache = keep(pixels_format="jpeg")
    for workers in (0, 2):
        settings = ["data.memory_mb=0", f"data.workers={workers}", "train.epochs=1"]
        run(config(*settings), cache_dir=cache, data_dir=photos, out=tmp_path / f"run-{workers}")
    assert numbers(tmp_path / "run-0") == numbers(tmp_path / "run-2")


def test_training_opens_no_picture_when_the_cache_keeps_them(keep, photos, tmp_path, monkeypatch):
    cache = keep()
    from PIL import Image

    def refuse(*given, **more):
        raise AssertionError("a picture was opened")

    monkeypatch.setattr(Image, "open", refuse)
    run(config("train.epochs=1"), cache_dir=cache, data_dir=photos, out=tmp_path / "run")


def test_a_student_of_another_size_decodes_files_and_is_told_so(keep, photos, tmp_path):
    progress = Counted()
    run(
        config("student.image_size=40", "train.epochs=1"),
        cache_dir=keep(),
        data_dir=photos,
        out=tmp_path / "run",
        progress=progress,
    )
    assert any("the cache keeps pixels of 37 px, this student takes 46" in line for line in progress.notes)


def test_pixels_are_added_to_a_finished_cache_and_redone_where_damaged(keep, photos, write_jpeg):
    cache = keep(pixels=None)
    assert EmbeddingCache.open(cache).pixels("train", side=SIDE) is None
    keep()
    before = {file: file.stat().st_mtime_ns for file in files_of(cache)}
    assert len(before) == 3
    keep()
    assert before == {file: file.stat().st_mtime_ns for file in files_of(cache)}
    file = next(iter(before))
    file.write_bytes(file.read_bytes()[:-9])
    assert [check.file for check in verify_cache(cache) if check.problem] == [str(file.relative_to(cache))]
    keep()
    assert not [check for check in verify_cache(cache) if check.problem]
    write_jpeg(photos / "train" / "apple" / "zzz.jpg")
    keep()
    assert EmbeddingCache.open(cache).pixels("train", side=SIDE).find(["apple/zzz.jpg"])[0] >= 0
    keep(pixels=24)
    assert EmbeddingCache.open(cache).column_settings("pixels")["side"] == 24
    assert EmbeddingCache.open(cache).pixels("train", side=SIDE) is None
    assert len(files_of(cache)) == len(list(cache.glob("rows/*/keys.h5")))


def test_few_shot_images_come_from_the_cache_too(keep, photos, write_jpeg, tmp_path):
    cache = keep()
    run(config("train.epochs=1"), cache_dir=cache, data_dir=photos, out=tmp_path / "run")
    before = evaluate_run(tmp_path / "run", device="cpu")["ood_test"]
    few = finetune_config(config(), start=tmp_path / "run" / "last.pt", support=FewShotConfig(shots=1))
    session = open_session(few, cache_dir=cache, data_dir=photos)
    assert session.data.pixels.stored is not None
    chosen = np.array([0, 1, 5, 2])
    chosen[1::2] = len(session.data.joined.images) - chosen[1::2]
    _, images = next(iter(session.data.pixels.batches([chosen])))
    for i, pixels in zip(chosen, images, strict=True):
        assert torch.equal(pixels, squashed(load_rgb(Path(session.data.joined.images[i].where)), SIDE))
    # Of a picture that is another now the file is judged, not what the cache keeps of the old one.
    write_jpeg(photos / "val" / "plum" / "val_0.jpg", (255, 0, 255))
    after = evaluate_run(tmp_path / "run", device="cpu")["ood_test"]
    assert (before.other_data, after.other_data) == ("", "other images under the same names")
    assert after.loss != before.loss


def test_pixels_of_a_picture_that_was_changed_are_dropped_with_its_rows(keep, photos, write_jpeg):
    keep()
    write_jpeg(photos / "train" / "banana" / "train_0.jpg", (255, 0, 255))
    cache = EmbeddingCache.open(keep(pixels=None))
    assert cache.pixels("train", side=SIDE) is None
    assert cache.pixels("ood_test", side=SIDE) is not None
    stored = EmbeddingCache.open(keep()).pixels("train", side=SIDE)
    (pixels,) = stored.images(stored.find(["banana/train_0.jpg"]))
    changed = photos / "train" / "banana" / "train_0.jpg"
    assert torch.equal(torch.from_numpy(pixels), squashed(load_rgb(changed), SIDE))


def test_images_that_the_cache_does_not_keep_are_not_found(keep, photos):
    cache = EmbeddingCache.open(keep())
    train = open_data([photos]).split("train").all()
    assert StoredImages.find(cache, [("train", train)], SIDE) is not None
    stranger = replace(train[0], key="apple/nobody.jpg")
    assert StoredImages.find(cache, [("train", [*train, stranger])], SIDE) is None


def test_a_wrong_setting_is_refused():
    for setting in ("data.pixels=maybe", "data.device_images=gpu"):
        with pytest.raises(UserError, match=setting.partition("=")[0]):
            config(setting)


class CountedDecode(SquashedPhoto):
    """Counts what it decodes, by key."""

    def __call__(self, sample):
        self.counts[sample.key] += 1
        return super().__call__(sample)


@pytest.mark.parametrize("device", [None, torch.device("cpu")])
def test_kept_images_are_decoded_once_and_only_when_asked_for(photos, device):
    images = open_data([photos]).split("train").all()
    Path(images[5].where).write_bytes(b"no image")
    CountedDecode.counts = Counter()
    memory = 10**9 if device is None else 0
    pixels = Pixels(images, CountedDecode(SIDE), memory=memory, workers=0, strict=False, device=device)
    assert not CountedDecode.counts
    batches = [np.array([3, 5, 1]), np.array([1, 3, 3]), np.array([0, 5])]
    decoded = list(pixels.batches(batches))
    assert [indices.tolist() for indices, _ in decoded] == [[3, 1], [1, 3, 3], [0]]
    for indices, tensors in decoded:
        for index, tensor in zip(indices, tensors, strict=True):
            assert torch.equal(tensor, squashed(load_rgb(Path(images[index].where)), SIDE))
    assert list(pixels.unreadable) == [images[5].key]
    list(pixels.batches([np.arange(6)]))
    assert CountedDecode.counts == Counter({image.key: 1 for image in images[:6]})
