"""Columns on row groups: made where they lack, by one process or several, and never read where they are stale."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace

import h5py
import numpy as np
import pytest
from conftest import ROOT, Counted, make_photos
from helpers.caches import builder, stage_1_words
from helpers.columns import ALL, add, add_group, all_of, column_lines, embed_bank, make_groups
from helpers.processes import loses_second, torchrun

from cache import EmbeddingCache
from cache.maintain.verify import verify_cache
from cache.runtime.errors import UserError
from cache.sources.data import open_data
from cache.store.journal import Journal, JournalWriter
from cache.store.journal_lines import DroppedFile, RemovedRows, RestoredRows
from cache.store.row_group import read_keys
from cache.teacher.load import load_teacher


@pytest.fixture(scope="session")
def model(teacher_dir):
    return f"local-dir:{teacher_dir}"


@pytest.fixture(scope="module")
def made(tmp_path_factory, model):
    """A folder with photos that have captions, and their cache of row groups of five each; to be copied."""
    root = tmp_path_factory.mktemp("made")
    photos = make_photos(root / "photos")
    caption(photos, **{"apple/train_0.jpg": "a red apple", "lemon/val_0.jpg": "a yellow lemon"})
    make_groups(root / "cache", photos, model)
    return root


@pytest.fixture
def photos(made, tmp_path):
    """An image folder of five classes, two of whose images have captions."""
    return shutil.copytree(made / "photos", tmp_path / "photos")  # with their times, which rows know


@pytest.fixture
def groups(made, tmp_path):
    """A cache of row groups of five photos each, without columns."""
    return EmbeddingCache.open(shutil.copytree(made / "cache", tmp_path / "cache"))


def caption(photos, **captions):
    lines = [json.dumps({"key": key, "caption": text}) for key, text in captions.items()]
    (photos / "captions.jsonl").write_text("\n".join(lines) + "\n")


def written(cache):
    """When the files of columns were written."""
    return {file: (cache.path / file).stat().st_mtime_ns for file in column_lines(cache)}


def assert_same(one, other):
    expected = all_of(other)
    for name, values in all_of(one).items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


def test_every_group_gets_every_column_and_a_second_run_makes_none(groups, photos, model):
    progress = Counted()
    cache = add(groups.path, photos, model, **ALL)
    per_group = {
        name: sorted(line.column for line in column_lines(cache).values() if line.group == name)
        for name in ("train-00000", "id_test-00000", "ood_test-00001")
    }
    assert per_group == {
        "train-00000": ["caption_embedding", "crop_views", "neighbours--labels", "pixels", "support_views"],
        "id_test-00000": ["caption_embedding", "neighbours--labels", "pixels"],
        "ood_test-00001": ["caption_embedding", "neighbours--labels", "pixels", "support_views"],
    }
    before = written(cache)
    assert written(add(groups.path, photos, model, progress=progress, **ALL)) == before
    assert progress.totals == []
    assert not any(check.problem for check in verify_cache(groups.path))


def test_columns_of_other_groups_are_the_same_row_for_row(groups, photos, model, tmp_path):
    one = add(groups.path, photos, model, **ALL)
    other = add(make_groups(tmp_path / "other", photos, model, rows=8).path, photos, model, **ALL, workers=2)
    assert len(column_lines(other)) < len(column_lines(one))
    expected = all_of(other)
    for name, values in all_of(one).items():
        if values.dtype.kind not in "f":
            np.testing.assert_array_equal(values, expected[name], err_msg=name)
            continue
        # Batches of other images: the last bits of what the teacher says.
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_growth_adds_the_columns_that_the_new_groups_lack(groups, photos, model, write_jpeg):
    cache = add(groups.path, photos, model, **ALL)
    before = written(cache)
    write_jpeg(photos / "train" / "apple" / "new.jpg")
    samples = [s for s in open_data([photos]).split("train").all() if s.key == "apple/new.jpg"]
    name = add_group(groups.path, load_teacher(model), "train", samples)
    grown = EmbeddingCache.open(groups.path)
    with pytest.raises(UserError, match=r"no views of 1 of 25 images of train.*--views 2"):
        grown.crop_views("train")
    assert grown.pixels("train", side=8) is None
    assert grown.neighbours("train", "labels", 2) is None
    assert grown.split("train").captions is None
    grown = add(groups.path, photos, model, **ALL)
    after = written(grown)
    assert {file for file in after if after[file] != before.get(file)} == {
        f"rows/{name}/{column}.h5"
        for column in ("caption_embedding", "crop_views", "neighbours--labels", "pixels", "support_views")
    }
    assert grown.crop_views("train").embeddings(np.arange(25), np.zeros(25, int)).shape == (25, 16)


def test_other_settings_replace_a_column_and_no_other(groups, photos, model):
    cache = add(groups.path, photos, model, **ALL)
    before, boxes = written(cache), all_of(cache)["boxes"]
    cache = add(groups.path, photos, model, **{**ALL, "views": 3})
    after = written(cache)
    assert {file.rpartition("/")[2] for file in after if after[file] != before[file]} == {"crop_views.h5"}
    np.testing.assert_array_equal(all_of(cache)["boxes"][:, :2], boxes)
    assert cache.column_settings("crop_views")["views"] == 3
    kept = add(groups.path, photos, model)  # asked for none, it keeps those that are there
    assert written(kept) == after


def test_a_column_of_settings_that_the_manifest_does_not_name_is_not_read(groups, photos, model):
    cache = add(groups.path, photos, model, views=2)
    made = cache.manifest.columns["crop_views"]
    # As a kill leaves it: the settings are named, and the groups have those of before.
    changed = replace(made, settings={**made.settings, "scale": 0.5})
    replace(cache.manifest, columns={**cache.manifest.columns, "crop_views": changed}).save(groups.path)
    with pytest.raises(UserError, match="keeps no views of train"):
        EmbeddingCache.open(groups.path).crop_views("train")


def remove(cache, key, line_type=RemovedRows):
    for group in Journal.load(cache).groups("train"):
        keys = read_keys(cache, group.keys)
        if key in keys.keys:
            row = keys.keys.index(key)
            digests = keys.taken([row]).digests()
            JournalWriter(cache).add(
                line_type(
                    group=group.name,
                    rows=(row,),
                    digests={n: getattr(digests, n) for n in ("keys", "content", "labels")},
                )
            )
            return group.name, row
    raise AssertionError(key)


def test_a_removed_row_is_left_out_and_made_when_its_image_is_back(groups, photos, model):
    key, picture = "apple/train_3.jpg", photos / "train" / "apple" / "train_3.jpg"
    raw = picture.read_bytes()
    name, row = remove(groups.path, key)
    picture.unlink()
    cache = add(groups.path, photos, model, **ALL)
    assert len(cache.split("train")) == 23
    all_of(cache)
    with h5py.File(groups.path / "rows" / name / "pixels.h5") as file:
        assert len(file["pixels"]) == 5
        assert not file["pixels"][row].any()
    before = written(cache)
    picture.write_bytes(raw)
    remove(groups.path, key, RestoredRows)
    with pytest.raises(UserError, match="no views of 5 of 24 images"):
        EmbeddingCache.open(groups.path).crop_views("train")
    cache = add(groups.path, photos, model, **ALL)
    after = written(cache)
    assert {file.split("/")[1] for file in after if after[file] != before[file]} == {name}
    assert cache.pixels("train", side=8).images(cache.split("train").find([key])).any()


def test_a_row_that_is_removed_later_leaves_its_columns_as_they_are(groups, photos, model):
    before = written(add(groups.path, photos, model, **ALL))
    remove(groups.path, "apple/train_3.jpg")
    (photos / "train" / "apple" / "train_3.jpg").unlink()
    cache = add(groups.path, photos, model, **ALL)
    assert written(cache) == before
    assert len(all_of(cache)["boxes"]) == 23


def test_a_caption_that_changed_remakes_the_captions_of_its_group_alone(groups, photos, model):
    cache = add(groups.path, photos, model)
    before = written(cache)
    rows = cache.split("train")
    assert rows.captions[rows.position["apple/train_0.jpg"]] == "a red apple"
    old = np.asarray(rows.caption_embeddings)
    caption(photos, **{"apple/train_0.jpg": "a green apple", "lemon/val_0.jpg": "a yellow lemon"})
    cache = add(groups.path, photos, model)
    after, rows = written(cache), cache.split("train")
    assert [file for file in after if after[file] != before[file]] == [
        "rows/train-00000/caption_embedding.h5"
    ]
    assert rows.captions[rows.position["apple/train_0.jpg"]] == "a green apple"
    changed = (np.asarray(rows.caption_embeddings) != old).any(axis=1)
    assert [rows.keys[i] for i in np.flatnonzero(changed)] == ["apple/train_0.jpg"]


def test_support_of_few_shots_has_the_first_of_each_class_and_moves_with_them(groups, photos, model):
    cache = add(groups.path, photos, model, support_views=3, support_shots=2)
    keys = [f"{name}/val_{i}.jpg" for name in ("lemon", "plum") for i in (0, 1)]
    assert cache.support_views("ood_test", keys).shape == (4, 3, 16)
    with pytest.raises(UserError, match=r"keeps no views of 1 of 5 support images.*--support-shots"):
        cache.support_views("ood_test", [*keys, "plum/val_2.jpg"])
    remove(groups.path, "apple/train_0.jpg")
    cache = add(groups.path, photos, model, support_views=3, support_shots=2)
    assert cache.support_views("train", ["apple/train_1.jpg", "apple/train_2.jpg"]).shape == (2, 3, 16)


def test_neighbours_of_other_texts_are_not_read(groups, photos, model):
    cache = add(groups.path, photos, model, neighbours=2)
    assert cache.neighbours("train", "labels", 2)[0].shape == (24, 2)
    assert cache.neighbours("train", "labels", 3) is None
    embed_bank(groups.path, load_teacher(model), template="a drawing of a {}")
    assert EmbeddingCache.open(groups.path).neighbours("train", "labels", 2) is None
    assert add(groups.path, photos, model, neighbours=2).neighbours("train", "labels", 1)[0].shape == (24, 1)


def test_progress_of_columns_names_them_and_speaks_of_no_embedding(groups, photos, model):
    told = Counted()
    add(groups.path, photos, model, neighbours=2, progress=told)
    assert told.works == ["adding caption_embedding, neighbours--labels"]


def test_neighbours_that_name_no_class_are_refused(groups, photos, model):
    cache = add(groups.path, photos, model, neighbours=2)
    with h5py.File(groups.path / "rows" / "train-00000" / "neighbours--labels.h5", "r+") as file:
        file["nearest"][:] = 7
    nearest, _ = cache.neighbours("train", "labels", 2)
    with pytest.raises(UserError, match=r"name a class 7 of 3.*cache repair"):
        np.asarray(nearest)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("options", [{"views": 2}, {"support_views": 2}, {"pixels": 8}])
def test_an_image_that_cannot_be_read_any_more_is_named_and_what_was_made_is_kept(
    groups, photos, model, workers, options
):
    (photos / "train" / "cherry" / "train_5.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"cherry/train_5\.jpg cannot be read any more"):
        add(groups.path, photos, model, workers=workers, **options)
    lines = column_lines(EmbeddingCache.open(groups.path)).values()
    kept = {line.group for line in lines if line.column != "caption_embedding"}
    assert kept == {f"train-{number:05d}" for number in range(4)}


def test_a_lost_file_and_a_dropped_one_are_made_again_to_the_same_bytes(groups, photos, model):
    cache = add(groups.path, photos, model, **ALL)
    lost, dropped = (groups.path / "rows" / name / "crop_views.h5" for name in ("train-00001", "train-00003"))
    raw = [file.read_bytes() for file in (lost, dropped)]
    lost.unlink()
    JournalWriter(groups.path).add(DroppedFile(file="rows/train-00003/crop_views.h5"))
    before = written(cache := add(groups.path, photos, model, **ALL))
    assert [file.read_bytes() for file in (lost, dropped)] == raw
    assert written(add(cache.path, photos, model, **ALL)) == before


def test_pixels_as_jpeg_are_those_of_the_squashed_picture(groups, photos, model):
    raw = add(groups.path, photos, model, pixels=16)
    before = raw.pixels("train", side=16).images(np.arange(24)).astype(int)
    cache = add(groups.path, photos, model, pixels=16, pixels_format="jpeg")
    stored = cache.pixels("train", side=16)
    assert stored.encoding == "jpeg"
    assert np.abs(stored.images(np.arange(24)) - before).mean() < 8
    assert cache.pixels("train", side=8) is None


COLUMNS = ["--views", 2, "--support-views", 3, "--pixels", 8, "--neighbours", 2]
SMALL = ["--batch-size", 2, "--workers", 0, "--device", "cpu", "--dtype", "float32"]


def test_two_processes_make_the_columns_that_one_makes(photos, teacher_dir, tmp_path):
    caption(photos, **{"apple/train_0.jpg": "a red apple"})
    build = builder(photos, teacher_dir, tmp_path, batch_size=2, neighbours=2)
    build("two")
    one = build("one", views=2, support_views=3, pixels=8)
    words = stage_1_words(photos, tmp_path / "two", teacher_dir, *SMALL, *COLUMNS, "--json")
    done = subprocess.run(torchrun(*words), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    two = EmbeddingCache.open(tmp_path / "two")
    assert one.journal.files == two.journal.files  # bytes, checksums, and what they were made from
    assert_same(one, two)
    assert [path.name for path in (tmp_path / "two" / "journal").iterdir()] == ["main.jsonl"]


def test_what_a_lost_process_has_made_is_kept_and_the_rest_is_made_again(photos, teacher_dir, tmp_path):
    build = builder(photos, teacher_dir, tmp_path, batch_size=2, neighbours=2)
    one = build("one", views=2, support_views=3, pixels=8)
    build("lost")
    words = stage_1_words(photos, tmp_path / "lost", teacher_dir, *SMALL, *COLUMNS)
    command = loses_second("os.rename", 4, words)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0, done.stderr
    kept = {
        file: line
        for file, line in Journal.load(tmp_path / "lost").files.items()
        if line.column in ("crop_views", "support_views", "pixels")
    }
    assert (
        0
        < len(kept)
        < len(
            [
                line
                for line in one.journal.files.values()
                if line.column in ("crop_views", "support_views", "pixels")
            ]
        )
    )
    before = {file: (tmp_path / "lost" / file).stat().st_mtime_ns for file in kept}
    lost = build("lost", views=2, support_views=3, pixels=8)
    assert {file: (lost.path / file).stat().st_mtime_ns for file in kept} == before
    assert one.journal.files == lost.journal.files
    assert_same(one, lost)
