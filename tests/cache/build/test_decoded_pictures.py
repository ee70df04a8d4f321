"""How pictures are decoded is one thing for the teacher and all students of its rows."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers.caches import builder, stage_1_words
from helpers.runs import SMALL
from PIL import Image

from cache import EmbeddingCache
from cache.runtime.errors import CacheMismatch
from cache.sources.decoding import Decoding
from cache.sources.source_options import SourceOptions
from cache.store.tar_folder import TarFolder
from cli import main
from distill.config import RunConfig
from distill.data.streams import open_stream
from distill.judge.open_run import open_trained
from distill.settings import with_settings
from distill.train.start import train

AS_STORED = SourceOptions(decoding=Decoding(exif=False))
PHONE, UPRIGHT = "apple/phone.png", "apple/upright.png"
STREAMED = ["loss.cap=0", "train.epochs=1", "data.decoder=pillow"]


@pytest.fixture
def build(photos, teacher_dir, tmp_path):
    """A function that caches photos, among them one of a phone, which lies on its side."""
    upright = Image.new("RGB", (60, 90), (20, 30, 40))
    upright.paste((250, 240, 30), (0, 0, 30, 30))
    upright.save(photos / "train" / UPRIGHT)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(photos / "train" / PHONE, exif=exif)
    return builder(photos, teacher_dir, tmp_path)


def row(cache, key):
    split = cache.split("train")
    return np.asarray(split.embeddings[np.array([split.position[key]])][0])


def pixels_of(config, cache, photos):
    """What a student sees of the two pictures."""
    stream = open_stream(config, cache_dir=cache.path, data_dir=photos)
    pixels = stream.pixels
    (_, images) = next(iter(pixels.batches([np.arange(len(pixels.samples))])))
    return {sample.key: image for sample, image in zip(pixels.samples, images, strict=True)}


def test_the_teacher_and_students_turn_pictures_as_exif_says(build, photos):
    cache, config = build(), with_settings(RunConfig(), [*SMALL, *STREAMED])
    np.testing.assert_array_equal(row(cache, PHONE), row(cache, UPRIGHT))
    seen = pixels_of(config, cache, photos)
    assert torch.equal(seen[PHONE], seen[UPRIGHT])


def test_without_exif_neither_turns_them_and_the_cache_is_another(build, photos):
    with_exif, cache = build("turned"), build(sources=AS_STORED)
    assert np.abs(row(cache, PHONE) - row(cache, UPRIGHT)).max() > 1e-3
    np.testing.assert_array_equal(row(cache, UPRIGHT), row(with_exif, UPRIGHT))
    seen = pixels_of(with_settings(RunConfig(), [*SMALL, *STREAMED]), cache, photos)
    assert not torch.equal(seen[PHONE], seen[UPRIGHT])
    assert torch.equal(seen[PHONE].rot90(-1, (1, 2)).float().round(), seen[UPRIGHT].float().round())
    assert cache.fingerprint != with_exif.fingerprint
    with pytest.raises(CacheMismatch, match="exif: False -> True"):
        build()
    with pytest.raises(CacheMismatch, match=r"exif: False -> True.*--no-exif"):
        build(teacher="other")


def test_what_has_too_many_pixels_is_told_apart_and_of_it_there_is_no_row(
    build, photos, tmp_path, teacher_dir
):
    (photos / "train" / "apple" / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    (photos / "train" / "apple" / "page.jpg").write_text("<html>not found</html>")
    words = stage_1_words(photos, tmp_path / "cache", teacher_dir, "--device", "cpu", "--workers", "0")
    ended = CliRunner().invoke(main, [*words, "--max-pixels", "5000"])
    assert ended.exit_code == 0, ended.output
    for line in (
        "skipped train/apple/phone.png: of too many pixels: 90 x 60, more than 5,000",
        "skipped train/apple/page.jpg: of no picture format: it begins with b'<html>not found<'",
    ):
        assert line in ended.output
    for reason, count in (("of too many pixels", 2), ("of no picture format", 1), ("unreadable", 1)):
        assert f"left out of train: {count} {reason}: " in ended.output
    again = CliRunner().invoke(main, words)
    assert again.exit_code == 1
    assert "max_pixels: 5000 -> 89478485" in again.output


def test_tars_hold_pictures_of_every_format_under_the_ending_of_their_content(build, photos):
    place = photos / "train" / "apple"
    with Image.open(place / "upright.png") as picture:
        for ending, format in ((".tif", "TIFF"), (".gif", "GIF"), (".ppm", "PPM"), (".jpe", "JPEG")):
            picture.save(place / f"other{ending[1:]}{ending}", format)
        picture.save(place / "named_wrongly.jpg", "GIF")
    cache = build(format="webdataset", sources=AS_STORED)
    endings = set()
    for path in sorted(cache.path.glob("tars/train-*.tar")):
        with tarfile.open(path) as tar:
            endings |= {
                name.rpartition(".")[2] for name in tar.getnames() if "other" in name or "wrongly" in name
            }
    assert endings - {"cls", "npy", "json", "txt"} == {"tif", "gif", "ppm", "jpg"}
    own = TarFolder.of(cache.path, cache.manifest, cache.journal).split("train")
    samples = {sample.key: sample for sample in own.all()}
    assert samples[PHONE].pictures()[0].size == (90, 60)
    assert samples["apple/named_wrongly.jpg"].pictures()[0].size == (60, 90)
    for decoder in ("pillow", "torchvision"):
        config = with_settings(RunConfig(), [*SMALL, *STREAMED, f"data.decoder={decoder}"])
        summary = train(config, cache_dir=cache.path, data_dir=None, out=cache.path.parent / decoder)
        assert summary["images"]["train"] == len(own)


def test_a_run_keeps_to_its_decoder(build, photos, tmp_path):
    cache = build()
    config = with_settings(RunConfig(), [*SMALL, "loss.cap=0", "train.epochs=2"])
    places = {"cache_dir": cache.path, "data_dir": photos}
    for decoder in ("pillow", "torchvision"):
        out = tmp_path / decoder
        given = with_settings(config, [f"data.decoder={decoder}"])
        summary = train(given, out=out, **places)
        assert summary["decoder"] == json.loads((out / "summary.json").read_text())["decoder"] == decoder
        trained = open_trained(out, device="cpu")
        assert trained.decoder == trained.model.augment.decode.decoder == decoder


def test_a_run_that_is_resumed_goes_on_with_its_decoder(build, photos, tmp_path):
    cache, out = build(), tmp_path / "run"
    places = {"cache_dir": cache.path, "data_dir": photos, "out": out}
    config = with_settings(RunConfig(), [*SMALL, "loss.cap=0", "train.epochs=1"])
    first = train(config, **places)
    again = train(config, resume_run=True, **places)
    assert again["decoder"] == first["decoder"]
    other = {"pillow": "torchvision", "torchvision": "pillow"}[first["decoder"]]
    with pytest.raises(CacheMismatch, match=r"data\.decoder"):
        train(with_settings(config, [f"data.decoder={other}"]), resume_run=True, **places)


def test_a_manifest_keeps_how_pictures_are_decoded(build):
    cache = build(sources=SourceOptions(decoding=Decoding(max_pixels=1_000_000, exif=False)))
    spec = EmbeddingCache.open(cache.path).spec
    assert (spec.decoding.exif, spec.decoding.max_pixels) == (False, 1_000_000)
