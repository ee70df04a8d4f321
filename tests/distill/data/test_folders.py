"""What a cache has rows of is opened again: where it was, where it is told to be, or as the pixels it keeps."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT
from helpers.picture_lists import splits_of

from cache.build.from_folder import FeatureOptions, cache_features
from cache.reader import EmbeddingCache
from cache.runtime.errors import UserError
from cache.sources.kept_sources import KeptSources
from cache.sources.list_columns import Columns
from cache.sources.source_options import SourceOptions
from cache.sources.split_rules import SplitRule
from cache.store.manifest import NAME, Manifest
from cli import main
from distill.data.folders import open_folder

SMALL = ["--recipe", "smoke", "--arch", "timm:test_resnet", "--device", "cpu", "--epochs", "1"]


@pytest.fixture
def moved(photos, tmp_path, teacher_dir):
    """A cache of photos, and where these are now."""

    def make(**options):
        there, here = tmp_path / "there", tmp_path / "here"
        shutil.copytree(photos, there)
        cache_features(
            there,
            tmp_path / "cache",
            FeatureOptions(model=f"local-dir:{teacher_dir}", device="cpu", workers=0, **options),
        )
        there.rename(here)
        return tmp_path / "cache", here

    return make


def opened(cache, data=None):
    return open_folder(
        EmbeddingCache.open(cache), data, shared_classes=False, complete=True, fix="share them."
    )


def given_to(cache):
    return json.loads((cache / NAME).read_text())["sources"]["given"]


def test_sources_are_kept_and_found_from_any_working_folder(photos, tmp_path, monkeypatch, teacher_dir):
    monkeypatch.chdir(photos.parent)
    cache_features(
        photos.name,
        tmp_path / "cache",
        FeatureOptions(model=f"local-dir:{teacher_dir}", device="cpu", workers=0),
    )
    monkeypatch.chdir(tmp_path)
    assert given_to(tmp_path / "cache") == [str(photos)]
    assert {name: len(source) for name, source in opened(tmp_path / "cache").splits.items()} == {
        name: len(EmbeddingCache.open(tmp_path / "cache").split(name))
        for name in ("train", "id_test", "ood_test")
    }


def test_every_option_of_sources_comes_back_out_of_a_manifest(tmp_path, moved):
    cache, _ = moved()
    rule = SplitRule(id_test=0.25, ood_test=0.5)
    columns = Columns(label="class")
    options = SourceOptions(rule=rule, class_depth=-1, columns=columns, names=("a", "b"))
    sources = KeptSources.of(["pool=s3://bucket/x", "y"], options)
    manifest = Manifest.load(cache)
    Manifest(**{**vars(manifest), "sources": sources}).save(cache)
    assert Manifest.load(cache).sources == sources
    assert sources.given == ("pool=s3://bucket/x", os.path.abspath("y"))


def test_a_place_that_is_gone_is_named_and_a_new_one_is_told_once(moved):
    cache, here = moved()
    with pytest.raises(UserError, match=r"there any more\. Fix: say once .* --data"):
        opened(cache)
    assert opened(cache, here).given == opened(cache).given == (str(here),)


def test_data_that_are_not_those_of_the_rows_are_not_remembered(moved):
    cache, here = moved()
    before = given_to(cache)
    picture = next((here / "train").rglob("*.png"), None) or next((here / "train").rglob("*.jpg"))
    picture.unlink()
    opened(cache, here)
    assert given_to(cache) == before


def test_a_cache_that_cannot_be_written_says_that_it_does_not_keep_a_new_place(moved, tmp_path):
    cache, here = moved()
    before = given_to(cache)
    hold = "import sys, pathlib, cache.runtime.locks as l\nwith l.only_writer(pathlib.Path(sys.argv[1])): print(flush=True), input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, cache],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        holder.stdout.readline()
        words = ["train", str(cache), "--out", str(tmp_path / "run"), "--data", str(here), *SMALL]
        done = CliRunner().invoke(main, [*words, "--batch-size", "4", "--set", "data.workers=0"])
        holder.communicate("\n")
    assert done.exit_code == 0, done.output
    told = [line for line in done.output.splitlines() if "does not keep where its images are now" in line]
    assert len(told) == 1
    assert "give --data again" in told[0]
    assert given_to(cache) == before


def test_kept_pixels_need_no_pictures(moved, tmp_path):
    cache, here = moved(pixels=64)
    shutil.rmtree(here)
    words = ["train", str(cache), "--out", str(tmp_path / "run"), *SMALL, "--batch-size", "4"]
    trained = CliRunner().invoke(main, [*words, "--image-size", "56", "--set", "data.workers=0"])
    assert trained.exit_code == 0, trained.output
    trained = CliRunner().invoke(main, ["evaluate", str(tmp_path / "run"), "--device", "cpu"])
    assert trained.exit_code == 0, trained.output
    other = ["train", str(cache), "--out", str(tmp_path / "other"), *SMALL, "--image-size", "32"]
    refused = CliRunner().invoke(main, [*other, "--batch-size", "4", "--set", "data.workers=0"])
    assert refused.exit_code == 1
    assert "at this size, and its source is gone" in refused.output


def test_imports_and_conversions_know_where_their_images_are(photos, tmp_path):
    def run(*words):
        done = CliRunner().invoke(main, ["cache", *map(str, words)])
        assert done.exit_code == 0, done.output
        return done.output

    keys = [f"train/{sample.key}" for sample in splits_of(photos)["train"].all()]
    (tmp_path / "keys.txt").write_text("\n".join(keys))
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(len(keys), 8)).astype("float32"))
    given = ["--images", tmp_path / "rows.npy", "--keys", tmp_path / "keys.txt", "--data", photos]
    run("import", "--out", tmp_path / "cache", *given, "--no-exif")
    assert "no pictures" not in run(
        "convert", tmp_path / "cache", "--to", "webdataset", "--out", tmp_path / "tar"
    )
    assert "--data" not in run("convert", tmp_path / "tar", "--to", "hdf5", "--out", tmp_path / "back")
    for name in ("cache", "back"):
        assert given_to(tmp_path / name) == [str(photos)]
        assert {*keys} <= {f"train/{sample.key}" for sample in opened(tmp_path / name).split("train").all()}
    assert len(opened(tmp_path / "tar").split("train").all()[0].content()) > 0


def test_episodes_are_opened_where_they_were(episode_cache, episodes):
    folder = open_folder(
        EmbeddingCache.open(episode_cache), None, shared_classes=True, complete=True, fix="no fix."
    )
    assert folder.given == (str(episodes),)


def test_data_that_are_gone_are_told_before_weights_are_looked_for(moved, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cache, here = moved()
    for given, told in ((["--data", f"{here}-gone"], "-gone does not exist"), ([], "any more")):
        done = CliRunner().invoke(main, ["train", str(cache), "--plan", "--device", "cpu", *given])
        assert told in done.output
        assert done.exit_code == 1
