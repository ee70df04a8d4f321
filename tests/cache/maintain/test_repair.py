"""What is damaged is taken out, and the same command redoes it and nothing else."""

from __future__ import annotations

import json
import random
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import make_cache
from helpers.row_groups import make_rows
from helpers.whole_caches import files_of, flip, options_of

import cli
from cache import EmbeddingCache
from cache.build.from_folder import cache_features
from cache.maintain.convert import convert_cache
from cache.maintain.info import describe_cache
from cache.maintain.repair import repair_cache
from cache.maintain.verify import verify_cache
from cache.runtime.errors import UserError
from cache.store.journal import Journal
from cache.store.manifest import Manifest


def numbers(cache):
    """What readers get of the rows, by key."""
    opened = EmbeddingCache.open(cache, check=True)
    held = {}
    for name in opened.split_names:
        rows = opened.split(name)
        for i, key in enumerate(rows.keys):
            held[name, key] = (rows.embeddings[i].tobytes(), rows.labels[i], rows.captions[i])
        held[name] = rows.digests
    train = opened.split("train")
    at = np.arange(len(train))
    held["views"] = opened.crop_views("train").embeddings(at, at % 2).tobytes()
    held["pixels"] = np.asarray(opened.pixels("train", side=36).images(at)).tobytes()
    held["support"] = opened.support_views("train", list(train.keys)).tobytes()
    return held


@pytest.mark.parametrize("format", ["hdf5", "tar"])
def test_what_repair_takes_out_the_same_command_redoes_and_nothing_else(whole, tmp_path, teacher_dir, format):
    rng = random.Random(0)
    cache = tmp_path / "cache"
    shutil.copytree(whole / format, cache)
    before, clean = numbers(cache), files_of(cache)
    groups = Journal.load(cache).groups("train")
    rows = "image_embedding" if format == "hdf5" else "samples"
    lost = [
        groups[0].lines["crop_views"].file,
        groups[0].lines["support_views"].file,
        groups[1].lines["pixels"].file,
        groups[1].lines[rows].file,
        "texts/labels.h5",
        "text_tower/text.safetensors",
    ]
    for file in lost:
        flip(cache / file, len(clean[file]) // 2, rng)
    lost.append(Journal.load(cache).groups("id_test")[0].keys.file)
    (cache / lost[-1]).unlink()
    repair = repair_cache(cache)
    assert sorted(check.file for check in repair.removed) == sorted(lost)
    stored_as, pixels = ("hdf5", "raw") if format == "hdf5" else ("webdataset", "jpeg")
    assert repair.commands == (
        f"distill cache-features DATA --out {cache} --model MODEL --pretrained WEIGHTS --precision float32 "
        f"--dtype float16 --format {stored_as} --pixels 36 --pixels-format {pixels} --views 2 "
        "--views-scale 0.3 --view-policy crop_flip --support-views 2 --neighbours 3 --keep-text-tower",
    )
    with pytest.raises(UserError, match="is not finished"):
        EmbeddingCache.open(cache)
    left = files_of(cache)
    # A column goes alone, without its rows or keys a group is none.
    assert {groups[0].lines["pixels"].file, groups[0].keys.file} <= left.keys()
    assert not any(line.file in left for line in groups[1].lines.values())
    again = repair_cache(cache)
    assert [check.file for check in again.removed] == ["texts/labels.h5", "text_tower/text.safetensors"]
    assert again.commands == repair.commands
    when = {file: (cache / file).stat().st_mtime_ns for file in left}
    cache_features(whole / "photos", cache, options_of(format, teacher_dir))
    assert not any(check.problem for check in verify_cache(cache))
    assert numbers(cache) == before
    kept = [file for file in left if file.startswith(("rows", "tars")) and file in clean]
    assert [file for file in kept if (cache / file).stat().st_mtime_ns != when[file]] == []


def test_a_damaged_line_of_the_journal_goes_and_its_rows_are_made_again(whole, tmp_path, teacher_dir):
    cache = tmp_path / "cache"
    shutil.copytree(whole / "hdf5", cache)
    before, journal = numbers(cache), cache / "journal" / "main.jsonl"
    raw = journal.read_bytes()
    journal.write_bytes(raw.replace(b"train-00001/keys.h5", b"train-00001/kexs.h5"))
    with pytest.raises(UserError, match=r"line \d+ of .*main.jsonl is damaged"):
        EmbeddingCache.open(cache)
    removed = {check.file for check in repair_cache(cache).removed}
    assert {"journal/main.jsonl", "rows/train-00001/keys.h5"} <= removed
    cache_features(whole / "photos", cache, options_of("hdf5", teacher_dir))
    assert numbers(cache) == before
    assert not any(check.problem for check in verify_cache(cache))


def test_what_nobody_lists_goes_and_a_wrong_index_is_made_by_the_reader(tmp_path):
    make_rows(tmp_path, {"train": [["a/0.jpg", "a/1.jpg"]], "ood_test": [["z/0.jpg"]]})
    before = list(EmbeddingCache.open(tmp_path).split("train").keys)
    shutil.copy(tmp_path / "index" / "ood_test.h5", tmp_path / "index" / "train.h5")
    shutil.copytree(tmp_path / "rows" / "train-00000", tmp_path / "rows" / "train-00007")
    (tmp_path / "rows" / "train-00008").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "old.h5").write_bytes(b"old")
    repair = repair_cache(tmp_path)
    assert len(repair.removed) == 4
    assert repair.commands == ()
    assert Manifest.load(tmp_path).complete
    assert not (tmp_path / "index" / "train.h5").exists()
    assert sorted(path.name for path in (tmp_path / "rows").iterdir()) == ["ood_test-00000", "train-00000"]
    assert list(EmbeddingCache.open(tmp_path).split("train").keys) == before
    assert not any(check.problem for check in verify_cache(tmp_path))


def test_an_imported_and_a_converted_cache_are_mended_by_the_commands_that_made_them(tmp_path, photos):
    from cache.maintain.import_files import ImportOptions, import_files
    from cache.sources.data import open_data

    keys = [f"train/{sample.key}" for sample in open_data([photos]).split("train").all()]
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
        clean = EmbeddingCache.open(cache).split("train").embeddings[:]
        raw = files_of(cache)
        for file in ("texts/labels.h5", "rows/train-00000/keys.h5"):
            flip(cache / file, len(raw[file]) // 2, random.Random(1))
        repair = repair_cache(cache)
        assert len(repair.removed) == 2
        assert repair.commands[0].startswith(f"distill {command}")
        again[name]()
        assert not any(check.problem for check in verify_cache(cache))
        np.testing.assert_array_equal(EmbeddingCache.open(cache).split("train").embeddings[:], clean)


def test_repair_without_a_sound_manifest_says_so(tmp_path, photos):
    cache = make_cache(tmp_path / "cache", photos).path
    (cache / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        repair_cache(cache)


def distill(*words: str) -> Result:
    return CliRunner().invoke(cli.main, ["cache", *words])


def test_the_commands_verify_and_repair_say_it_and_leave_with_a_status(whole, tmp_path, teacher_dir):
    cache = tmp_path / "cache"
    shutil.copytree(whole / "hdf5", cache)
    flip(cache / "rows" / "train-00000" / "crop_views.h5", 900, random.Random(0))
    verified = distill("verify", str(cache))
    assert verified.exit_code == 1
    assert "rows/train-00000/crop_views.h5: it differs from its checksum" in verified.stdout
    assert f"run 'distill cache repair {cache}'" in verified.stderr
    as_json = json.loads(distill("verify", str(cache), "--json").stdout)
    rows = Journal.load(cache).groups("train")[0].rows
    assert [check for check in as_json if check["problem"]] == [
        {"file": "rows/train-00000/crop_views.h5", "rows": rows, "problem": "it differs from its checksum"}
    ]
    mended = distill("repair", str(cache), "--compact")
    assert mended.exit_code == 1
    assert "taken out: rows/train-00000/crop_views.h5" in mended.stdout
    assert (
        f"Fix: run the command again that made it, with all that it was given: distill cache-features DATA --out {cache}"
        in mended.stderr
    )
    cache_features(whole / "photos", cache, options_of("hdf5", teacher_dir))
    assert distill("verify", str(cache)).exit_code == 0
    as_json = distill("repair", str(cache), "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)) == (0, {"removed": [], "commands": []})
    assert distill("repair", str(tmp_path / "nothing")).exit_code == 2


def test_the_command_says_how_many_row_groups_were_joined(tmp_path):
    make_rows(tmp_path, {"train": [["a/0.jpg"], ["a/1.jpg"], ["b/0.jpg"]]})
    said = distill("repair", str(tmp_path), "--compact").stdout
    assert re.search(r"3 row groups are 1 now, \d+\.\d kB are free\.", said)
    make_rows(tmp_path, {"train": [["c/0.jpg"]]}, {"train": ("a", "b", "c")})
    told = json.loads(distill("repair", str(tmp_path), "--compact", "--json").stdout)
    assert (told["compacted"]["before"], told["compacted"]["after"]) == (2, 1)


def test_the_command_names_how_many_images_a_class_have_support_views(whole, tmp_path, teacher_dir):
    cache = tmp_path / "cache"
    shutil.copytree(whole / "hdf5", cache)
    few = replace(options_of("hdf5", teacher_dir), support_shots=3)
    cache_features(whole / "photos", cache, few)
    lines = [group.lines.get("support_views") for group in Journal.load(cache).groups("train")]
    for line in filter(None, lines):
        flip(cache / line.file, 900, random.Random(0))
    assert "--support-views 2 --support-shots 3 " in repair_cache(cache).commands[0]


@pytest.mark.parametrize("format", ["hdf5", "tar"])
def test_after_compaction_the_same_command_has_nothing_to_do(whole, tmp_path, teacher_dir, format):
    cache = tmp_path / "cache"
    shutil.copytree(whole / format, cache)
    before = numbers(cache)
    assert len(Journal.load(cache).groups("train")) > 1
    assert distill("repair", str(cache), "--compact").exit_code == 0
    assert len(Journal.load(cache).groups("train")) == 1
    assert numbers(cache) == before
    assert not any(check.problem for check in verify_cache(cache))
    when = {file: (cache / file).stat().st_mtime_ns for file in files_of(cache) if file.startswith("rows")}
    cache_features(whole / "photos", cache, options_of(format, teacher_dir))
    after = {file: (cache / file).stat().st_mtime_ns for file in files_of(cache) if file.startswith("rows")}
    assert after == when
    assert numbers(cache) == before


@pytest.mark.parametrize("lost", ["train-00001", "train", "every"])
def test_a_journal_that_lost_lines_loses_no_row_until_repair_is_asked_to(whole, tmp_path, teacher_dir, lost):
    cache = tmp_path / "cache"
    shutil.copytree(whole / "hdf5", cache)
    before = {path for path in files_of(cache) if path.startswith("rows/")}
    for journal in (cache / "journal").iterdir():
        lines = journal.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if lost != "every" and lost.encode() not in line]
        journal.write_bytes(b"".join(kept))
    photos, options = whole / "photos", options_of("hdf5", teacher_dir)
    for command in (lambda: EmbeddingCache.open(cache), lambda: cache_features(photos, cache, options)):
        with pytest.raises(UserError, match=r"journal lost lines: it lists .*train.*cache repair"):
            command()
    assert {path for path in files_of(cache) if path.startswith("rows/")} == before
    info = describe_cache(cache)
    assert "lost lines" in info.problem
    assert not info.manifest.complete
    assert any(check.file == "journal" for check in verify_cache(cache) if check.problem)
    assert any(check.file == "journal" for check in repair_cache(cache).removed)
    assert not Manifest.load(cache).complete
    with pytest.raises(UserError, match="not finished"):
        EmbeddingCache.open(cache)
    cache_features(photos, cache, options)
    assert not any(check.problem for check in verify_cache(cache))
    assert EmbeddingCache.open(cache).rows == EmbeddingCache.open(whole / "hdf5").rows


def test_a_column_whose_line_is_lost_is_not_removed_as_if_nothing_was_lost(tmp_path):
    make_rows(tmp_path, {"train": [["a/0.jpg"]]})
    file = tmp_path / "rows/train-00000/caption_embedding.h5"
    file.write_bytes(b"anything")
    done = repair_cache(tmp_path)
    assert [check.problem for check in done.removed] == ["nobody lists it"]
    assert done.commands
    assert not Manifest.load(tmp_path).complete


def test_a_file_that_is_no_column_and_one_of_no_row_group_are_removed_and_nothing_is_to_be_made(tmp_path):
    make_rows(tmp_path, {"train": [["a/0.jpg"]]})
    for name in ("rows/train-00000/notes.txt", "rows/train-00007/keys.h5", "texts/odd.h5", "rows/x/y.h5"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"anything")
    done = repair_cache(tmp_path)
    assert (len(done.removed), done.commands) == (4, ())
    assert EmbeddingCache.open(tmp_path).rows == 1
