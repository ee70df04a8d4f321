"""What is damaged is taken out, and the same command redoes it and nothing else."""

from __future__ import annotations

import json
import random
import shutil

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import make_cache
from helpers.whole_caches import files_of, flip, options_of

import cli
from cache import EmbeddingCache
from cache.build.from_folder import cache_features
from cache.maintain.convert import convert_cache
from cache.maintain.repair import repair_cache
from cache.maintain.verify import verify_cache
from cache.runtime.errors import UserError


@pytest.mark.parametrize("format", ["hdf5", "tar"])
def test_what_repair_takes_out_the_same_command_redoes_and_nothing_else(whole, tmp_path, teacher_dir, format):
    rng = random.Random(0)
    cache = tmp_path / "cache"
    shutil.copytree(whole / format, cache)
    clean = files_of(cache)
    when = {file: (cache / file).stat().st_mtime_ns for file in clean}
    ending = "h5" if format == "hdf5" else "tar"
    lost = [
        f"images/train-00001.{ending}",
        f"images/ood_test-00000.{ending}",
        "texts/labels.h5",
        "crop_views/train-00000.h5",
        "support_views/train-00000.h5",
        "pixels/train-00000.h5",
        "text_tower/text.safetensors",
    ]
    neighbours = "neighbours/train--labels.h5"
    for file in (*lost, neighbours):
        flip(cache / file, len(clean[file]) // 2, rng)
    lost.append(f"images/id_test-00000.{ending}")
    (cache / lost[-1]).unlink()
    repair = repair_cache(cache)
    assert sorted(check.file for check in repair.removed) == sorted([*lost, neighbours])
    stored_as = "hdf5" if format == "hdf5" else "webdataset"
    pixels = "raw" if format == "hdf5" else "jpeg"
    assert repair.commands == (
        f"distill cache-features DATA --out {cache} --model MODEL --pretrained WEIGHTS --precision float32 "
        f"--dtype float16 --format {stored_as} --pixels 36 --pixels-format {pixels} --views 2 "
        "--views-scale 0.08 --support-views 2 --keep-text-tower",
    )
    with pytest.raises(UserError, match="is not finished"):
        EmbeddingCache.open(cache)
    again = repair_cache(cache)
    # Neighbours are of the rows that were there before.
    lacking = [check.file for check in again.removed if not check.file.startswith("neighbours/")]
    assert lacking == ["texts/labels.h5", "text_tower/text.safetensors"]
    assert again.commands == repair.commands
    cache_features(whole / "photos", cache, options_of(format, teacher_dir))
    assert not any(check.problem for check in verify_cache(cache))
    after = files_of(cache)
    assert after == clean
    # The tower's two files are written together.
    touched = (*lost, "neighbours", "manifest", "text_tower")
    sound = [file for file in clean if not file.startswith(touched)]
    assert [file for file in sound if (cache / file).stat().st_mtime_ns != when[file]] == []


def test_a_cache_without_its_neighbours_is_whole_and_a_reader_redoes_them(whole, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(whole / "hdf5", cache)
    clean = files_of(cache)
    file = "neighbours/train--labels.h5"
    flip(cache / file, len(clean[file]) // 2, random.Random(0))
    (cache / "neighbours" / "train--nothing.h5").write_bytes(b"of no bank")
    repair = repair_cache(cache)
    assert {check.file for check in repair.removed} == {file, "neighbours/train--nothing.h5"}
    assert repair.commands == ()
    EmbeddingCache.open(cache).neighbours("train", "labels", 256)
    assert files_of(cache) == clean


def test_an_imported_and_a_converted_cache_are_mended_by_the_commands_that_made_them(tmp_path, photos):
    from cache.maintain.import_files import ImportOptions, import_files
    from cache.sources.image_folder import ImageFolder

    keys = [f"train/{image.key}" for image in ImageFolder.scan(photos).split("train").all()]
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(len(keys), 8)).astype("float32"))
    np.save(tmp_path / "texts.npy", np.eye(3, 8, dtype="float32"))
    (tmp_path / "keys.txt").write_text("\n".join(keys))
    (tmp_path / "classes.txt").write_text("apple\nbanana\ncherry\n")
    given = {name: str(tmp_path / f"{name}.txt") for name in ("keys", "classes")}
    given |= {"images": str(tmp_path / "rows.npy"), "texts": str(tmp_path / "texts.npy")}
    again = {
        "cache": lambda: import_files(tmp_path / "cache", ImportOptions(**given)),
        "tar": lambda: convert_cache(tmp_path / "cache", tmp_path / "tar", format="webdataset"),
    }
    for make in again.values():
        make()
    for name, command in (("tar", "cache convert CACHE --to webdataset"), ("cache", "cache import")):
        cache = tmp_path / name
        clean = files_of(cache)
        for file in clean:
            if file.startswith(("images", "texts")):
                flip(cache / file, len(clean[file]) // 2, random.Random(1))
        repair = repair_cache(cache)
        assert len(repair.removed) == 2
        assert repair.commands[0].startswith(f"distill {command}")
        again[name]()
        assert not any(check.problem for check in verify_cache(cache))
        assert files_of(cache) == clean


def test_repair_without_a_sound_manifest_says_so(tmp_path, photos):
    cache = make_cache(tmp_path / "cache", photos).path
    (cache / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        repair_cache(cache)


def test_the_commands_verify_and_repair_say_it_and_leave_with_a_status(whole, tmp_path, teacher_dir):
    cache = tmp_path / "cache"
    shutil.copytree(whole / "hdf5", cache)
    with h5py.File(cache / "pixels" / "train-00000.h5") as shard:
        pixels = shard["pixels"]
        at = pixels.id.get_offset() + 7 * pixels.nbytes // len(pixels)
    flip(cache / "pixels" / "train-00000.h5", at, random.Random(0))

    def distill(*words: str) -> Result:
        return CliRunner().invoke(cli.main, ["cache", *words])

    verified = distill("verify", str(cache))
    assert verified.exit_code == 1
    assert "1 of 24 rows are damaged: 7 (apple/train_7.jpg)" in verified.stdout
    assert f"run 'distill cache repair {cache}'" in verified.stderr
    as_json = json.loads(distill("verify", str(cache), "--json").stdout)
    assert [len(check["damaged_rows"]) for check in as_json if check["problem"]] == [1]
    mended = distill("repair", str(cache))
    assert mended.exit_code == 1
    assert "taken out: pixels/train-00000.h5" in mended.stdout
    assert (
        f"Fix: run the command again that made it, with all that it was given: distill cache-features DATA --out {cache}"
        in mended.stderr
    )
    cache_features(whole / "photos", cache, options_of("hdf5", teacher_dir))
    assert distill("verify", str(cache)).exit_code == 0
    as_json = distill("repair", str(cache), "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)) == (
        0,
        {"removed": [], "commands": []},
    )
    absent = distill("repair", str(tmp_path / "nothing"))
    assert absent.exit_code == 2
