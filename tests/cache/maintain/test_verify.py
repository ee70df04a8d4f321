"""Flipped bytes: verify finds every one and names its file, readers never take one for a number."""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import Counted
from helpers.caches import read_back
from helpers.row_groups import add_group, make_rows
from helpers.whole_caches import assert_same, files_of, flip

from cache import EmbeddingCache
from cache.maintain.repair import repair_cache
from cache.maintain.verify import verify_cache
from cache.runtime.errors import UserError
from cache.store.journal import Journal
from cache.teacher.text_tower import TextTower


def assert_one_line(error: UserError) -> None:
    assert "\n" not in str(error)
    assert "Fix: " in str(error)


def content(folder: Path) -> dict[str, np.ndarray]:
    cache = EmbeddingCache.open(folder, check=True)
    numbers = read_back(cache)
    numbers["captions"] = np.array(cache.split("train").captions)
    numbers["caption_embeddings"] = np.asarray(cache.split("train").caption_embeddings)
    numbers["images"] = cache.split("train").files.content[:]
    tower = TextTower.load(folder, files=cache.text_tower)
    numbers["tower"] = tower.embed(tower.tokens(["a fruit"])).detach().numpy()
    return numbers


def problems(cache: Path) -> dict[str, str]:
    return {check.file: check.problem for check in verify_cache(cache) if check.problem}


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("format", ["hdf5", "tar"])
def test_verify_finds_every_flipped_byte_and_readers_take_none_for_a_number(whole, tmp_path, format, every):
    rng = random.Random(format)
    cache = tmp_path / "cache"
    shutil.copytree(whole / format, cache)
    expected, clean = content(cache), files_of(cache)
    assert not problems(cache)
    for file, raw in sorted(clean.items())[::every]:
        for _ in range(1 if every > 1 else 4):
            flip(cache / file, at := rng.randrange(len(raw)), rng)
            try:
                damaged = set(problems(cache))
                # What is derived may differ beside its numbers, which does no harm.
                assert damaged == {file} or (file.startswith("index/") and not damaged), (file, at)
            except UserError as error:
                assert_one_line(error)
                assert file == "manifest.json"
            except AssertionError:
                # A group is nobody's without its line.
                assert file.startswith("journal/"), (file, at)
                assert file in damaged
            try:
                for name, numbers in content(cache).items():
                    assert_same(name, numbers, expected[name], where=f"{file}, {at}")
            except UserError as error:
                assert_one_line(error)
            (cache / file).write_bytes(raw)


def test_any_flipped_bit_of_the_journal_is_found(tmp_path):
    make_rows(tmp_path, {"train": [["a/0.jpg"], ["b/1.jpg"]]})
    path = tmp_path / "journal" / "main.jsonl"
    raw = path.read_bytes()
    for at in range(0, len(raw), 11):
        wrong = bytearray(raw)
        wrong[at] ^= 1 << at % 8
        path.write_bytes(wrong)
        assert "journal/main.jsonl" in problems(tmp_path), at


def test_verify_names_the_damaged_files_and_what_is_wrong_with_each(whole, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(whole / "hdf5", cache)
    names = [f"rows/train-00000/{name}.h5" for name in ("crop_views", "image_embedding", "pixels")]
    flip(cache / names[0], 1000, random.Random(0))
    with open(cache / names[1], "ab") as file:
        file.write(b"x")
    (cache / names[2]).unlink()
    (cache / "rows" / "train-00000" / "notes.h5").write_bytes(b"somebody's")
    (cache / "tars").mkdir()
    (cache / "tars" / "train-00000.tar").mkdir()
    shutil.copy(cache / "index" / "id_test.h5", cache / "index" / "train.h5")
    size = (cache / names[1]).stat().st_size
    assert problems(cache) == {
        names[0]: "it differs from its checksum",
        names[1]: f"it has {size:,} bytes, {size - 1:,} were written",
        names[2]: "it is missing",
        "rows/train-00000/notes.h5": "nobody lists it",
        "index/train.h5": "it is of other row groups, or damaged",
    }


def test_an_index_that_is_not_what_the_row_groups_say_is_found_and_a_checking_reader_makes_its_own(tmp_path):
    make_rows(tmp_path, {"train": [["a/0.jpg", "a/1.jpg"], ["b/1.jpg"]]})
    before = list(EmbeddingCache.open(tmp_path, check=True).split("train").keys)
    for name in ("hash", "row", "label"):
        whole = (tmp_path / "index" / "train.h5").read_bytes()
        with h5py.File(tmp_path / "index" / "train.h5", "r+") as file:
            file[name][:2] = file[name][:2][::-1] if name != "label" else [1, 1]
        assert problems(tmp_path) == {"index/train.h5": "it is not what the row groups say"}, name
        assert list(EmbeddingCache.open(tmp_path, check=True).split("train").keys) == before
        (tmp_path / "index" / "train.h5").write_bytes(whole)
    (tmp_path / "index" / "train.h5").unlink()
    assert not problems(tmp_path)


def test_a_file_with_its_checksum_that_holds_something_else_is_damaged(tmp_path):
    """Nothing is believed because its checksum fits: whoever changed the file may have changed the journal."""
    from dataclasses import replace

    from cache.runtime.atomic_files import sha256_of
    from cache.store.journal import JournalWriter

    make_rows(tmp_path, {"train": [["a/0.jpg", "a/1.jpg"]]})
    lines = Journal.load(tmp_path).groups("train")[0].lines
    for column, change, message in (
        ("image_embedding", lambda f: f.move("embedding", "x") or f.create_dataset("y", data=np.ones(3)), "y has 3 rows"),
        ("keys", lambda f: f["label"].__setitem__(0, 9), "it holds labels of no class"),
    ):  # fmt: skip
        path = tmp_path / lines[column].file
        raw = path.read_bytes()
        with h5py.File(path, "r+") as file:
            change(file)
        changed = replace(lines[column], bytes=path.stat().st_size, sha256=sha256_of(path))
        JournalWriter(tmp_path).add(changed)
        assert message in problems(tmp_path)[lines[column].file]
        path.write_bytes(raw)
        JournalWriter(tmp_path).add(lines[column])


def test_an_unfinished_cache_is_said_to_be_one(tmp_path):
    from dataclasses import replace

    replace(make_rows(tmp_path, {"train": [["a/0.jpg"]]}), complete=False).save(tmp_path)
    assert problems(tmp_path) == {"manifest.json": "the build has not finished; run it again"}


def test_rows_that_the_journal_removes_and_are_not_there_are_damage(tmp_path):
    from cache.store.journal import JournalWriter
    from cache.store.journal_lines import RemovedRows

    make_rows(tmp_path, {"train": [["a/0.jpg"]]})
    JournalWriter(tmp_path).add(
        RemovedRows(
            group="train-00000", rows=(5,), digests=dict.fromkeys(("keys", "content", "labels"), "0" * 64)
        )
    )
    assert problems(tmp_path) == {"journal": "it removes rows that train-00000 has not"}
    with pytest.raises(UserError, match="removes rows that train-00000 has not"):
        EmbeddingCache.open(tmp_path).split("train")
    assert repair_cache(tmp_path).commands
    assert set(problems(tmp_path)) == {"manifest.json"}


def test_no_text_in_an_hdf5_file_lies_in_a_heap_where_a_wrong_byte_would_stop_libhdf5(whole):
    files = sorted((whole / "hdf5").rglob("*.h5"))
    types = []

    def look(name: str, item: h5py.HLObject) -> None:
        kinds = [item.attrs.get_id(attribute).dtype for attribute in item.attrs]
        types.extend(kinds + ([item.dtype] if isinstance(item, h5py.Dataset) else []))

    for path in files:
        with h5py.File(path, "r") as file:
            look("/", file)
            file.visititems(look)
    assert {"u", "f", "i"} <= {dtype.kind for dtype in types}
    assert not any(dtype.hasobject for dtype in types)


@pytest.mark.parametrize("refused", ["sha256_of", "map_columns"])
def test_a_disk_that_cannot_be_read_is_no_damage_and_repair_removes_nothing(tmp_path, monkeypatch, refused):
    def refuse(*args, **named):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    make_rows(tmp_path, {"train": [["a/0.jpg"]]})
    add_group(tmp_path, ["b/0.jpg"])
    before = files_of(tmp_path)
    where = "cache.maintain.verify" if refused == "sha256_of" else "cache.store.row_group"
    monkeypatch.setattr(f"{where}.{refused}", refuse)
    for command in (verify_cache, repair_cache):
        with pytest.raises(UserError, match="could not be read"):
            command(tmp_path)
    assert files_of(tmp_path) == before


def test_what_is_missing_or_unfinished_is_not_called_damaged(tmp_path):
    from dataclasses import replace

    import cli

    def said() -> str:
        return CliRunner().invoke(cli.main, ["cache", "verify", str(tmp_path)]).stderr

    manifest = make_rows(tmp_path, {"train": [["a/0.jpg"]]})
    replace(manifest, complete=False).save(tmp_path)
    assert ("is not finished" in said(), "damaged" in said()) == (True, False)
    manifest.save(tmp_path)
    (tmp_path / "rows" / "train-00000" / "image_embedding.h5").unlink()
    assert ("lacks a file of those" in said(), "copy it again" in said(), "damaged" in said()) == (
        True,
        True,
        False,
    )


def test_progress_of_verify_is_the_bytes_of_all_listed_files(whole):
    told = Counted()
    assert all(not check.problem for check in verify_cache(whole / "hdf5", progress=told))
    every = sum(line.bytes for line in Journal.load(whole / "hdf5").files.values())
    assert (told.works, told.totals, told.done) == (["checking files"], [every], [every])
