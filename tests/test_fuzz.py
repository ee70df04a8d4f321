"""Anything at all, given to every parser: a value that keeps its promise, or one line that says what is wrong."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cache.prepare.finished_lines import Partial
from cache.prepare.published_splits import read_lists
from cache.runtime.atomic_files import sha256_of
from cache.runtime.errors import UserError, printable
from cache.sources.arrays import load_array, load_names
from cache.sources.class_texts import (
    class_names_of,
    file_bank,
    is_key,
    read_captions,
    read_descriptions,
    split_and_key,
)
from cache.store.checksums import has_its_checksum, with_checksum
from cache.store.hdf5_columns import wrong_rows_of
from cache.store.manifest import Manifest
from cache.store.shard_formats import FORMATS
from cache.store.shard_rows import ShardRows, WrongRows
from cache.store.text_banks import load_bank, make_bank, save_bank
from cache.store.webdataset import tar_name
from distill.config import RunConfig
from distill.settings import from_toml, load_recipe, to_toml, with_settings
from distill.sweep.plan import load_sweep

FEW = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
ANY_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
# What such files are made of, in any order, so that the way into them is found.
WORDS = (
    "apple",
    "banana",
    "1",
    "2",
    "a red fruit",
    "train",
    "val",
    ".jpg",
    '"key"',
    '"caption"',
    '"x"',
    "null",
    "1e999",
)
SIGNS = (
    " ",
    "\t",
    "\n",
    "\r\n",
    "_",
    "/",
    "{",
    "}",
    ": ",
    ", ",
    "[",
    "]",
    "=",
    "é",
    "\u2028",
    "\x00",
    "\ufeff",
    "-",
)
PIECES = st.lists(st.sampled_from([*WORDS, *SIGNS]), max_size=25).map("".join)
FILE = st.one_of(ANY_TEXT.map(str.encode), PIECES.map(lambda t: t.encode()), st.binary(max_size=80))
FOLDERS = ("apple", "banana")


@contextmanager
def written(content: bytes, name: str = "file.txt") -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        yield Path(folder) / name


def value_or_line(read: Callable[[], Any]) -> Any:
    """What a parser returns; None where it refuses in one line, as it must."""
    try:
        return read()
    except UserError as error:
        message = str(error)
    assert "Fix: " in message
    assert "\n" not in printable(message)
    return None


@FEW
@given(FILE)
@example(b"apple 1 red\nbanana 2 blue\n")
def test_label2text_names_every_class_or_is_refused(content):
    with written(content) as path:
        names = value_or_line(lambda: class_names_of(path, FOLDERS))
        if names is not None:
            assert set(FOLDERS) <= set(names)
            assert all(name.strip() for name in names.values())


@FEW
@given(FILE)
@example(b"red\nyellow\n")
@example(b"apple\tred\nbanana\tyellow\n")
@example(b"apple\tred\nbanana\t \n")
def test_descriptions_are_one_a_class_or_refused(content):
    with written(content) as path:
        descriptions = value_or_line(lambda: read_descriptions(path, dict.fromkeys(FOLDERS, "x")))
        assert descriptions is None or (
            set(descriptions.of_class) == set(FOLDERS) and all(descriptions.of_class.values())
        )


@FEW
@given(FILE)
@example(b'{"key": "a/b", "caption": "c"}\n')
@example(b'{"key": "a/b"}')
@example(b"[" * 100_000)
def test_captions_are_texts_by_key_or_refused(content):
    with written(content) as path:
        captions = value_or_line(lambda: read_captions(path))
        assert captions is None or all(isinstance(k, str) and v.strip() for k, v in captions.items())


@FEW
@given(FILE)
@example(b"apple\tred\n")
def test_a_file_of_texts_is_a_bank_or_refused(content):
    with written(content) as path:
        bank = value_or_line(lambda: file_bank(path, dict.fromkeys(FOLDERS, "x")))
        assert bank is None or (len(bank.texts) == len(bank.classes) and set(bank.classes) <= {*FOLDERS, ""})


@FEW
@given(FILE)
@example(b"train/a/b.jpg\n")
def test_a_list_names_images_below_its_folder_or_is_refused(content):
    with written(content, "train_data.txt") as path:
        for name in ("val_on_train", "val"):
            (path.parent / f"{name}_data.txt").write_text(f"{name}/a/b.jpg\n")
        lists = value_or_line(lambda: read_lists(path.parent))
        assert lists is None or all(is_key(key) for key in lists["train"])


@FEW
@given(FILE, st.sampled_from(["keys.txt", "keys.npy", "keys.pt"]))
def test_keys_and_arrays_are_read_or_refused(content, name):
    with written(content, name) as path:
        names = value_or_line(lambda: load_names(str(path)))
        assert names is None or all(isinstance(key, str) for key in names)
        array = value_or_line(lambda: load_array(str(path)))
        assert array is None or isinstance(array, np.ndarray)


@FEW
@given(st.one_of(ANY_TEXT, PIECES))
@example("train.epochs = 3\n")
@example("[train]\nepochs = 1e999\n")
@example("optim.lr = nan\n")
def test_toml_is_a_config_or_refused(text):
    config = value_or_line(lambda: from_toml(text, where="recipe.toml"))
    if config is not None:
        assert from_toml(to_toml(config), where="again") == config


NAMES = (
    "train.epochs",
    "optim.lr",
    "loss.mse",
    "student.arch",
    "data.views",
    "teachers",
    "text",
    "optim.milestones",
)
VALUES = st.one_of(
    ANY_TEXT,
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["true", "[1, 2]", '"x"', "[]", "{}", "[["]),
)


@FEW
@given(st.sampled_from(NAMES), VALUES)
def test_a_setting_of_the_command_is_taken_or_refused(name, value):
    config = value_or_line(lambda: with_settings(RunConfig(), [f"{name}={value}"]))
    if config is not None:
        assert from_toml(to_toml(config), where="again") == config


SWEEPS = st.dictionaries(
    st.sampled_from(["question", "recipe", "seeds", "base", "grid", "one_at_a_time", "runs", "other"]),
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            ANY_TEXT,
            st.sampled_from(["resnet18", "smoke"]),
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.sampled_from([*NAMES, "loss", "mse", "name"]), inner, max_size=3),
        ),
        max_leaves=6,
    ),
    max_size=4,
)


def toml_of(value: Any) -> str:
    """A value as inline TOML; None, of which TOML has none, as a text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml_of(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_of, value)) + "]"
    if isinstance(value, float):
        return {"inf": "inf", "-inf": "-inf", "nan": "nan"}.get(str(value), repr(value))
    return json.dumps(value) if value is not None else '"none"'


@FEW
@given(SWEEPS)
def test_a_sweep_is_planned_with_names_of_their_own_or_refused(table):
    text = "".join(f"{name} = {toml_of(value)}\n" for name, value in table.items())
    with written(text.encode(), "sweep.toml") as path:
        sweep = value_or_line(lambda: load_sweep(str(path)))
        if sweep is not None:
            names = [run.name.casefold() for run in sweep.runs]
            assert len(set(names)) == len(names) > 0
            assert all("/" not in name and len(name.encode()) <= 200 for name in names)


# What is written is read back, whatever the names


KEY_PART = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="/\0"), min_size=1, max_size=40
).filter(lambda t: t not in (".", ".."))
KEYS = st.lists(st.tuples(KEY_PART, KEY_PART).map("/".join), min_size=1, max_size=5, unique=True)


def without_ending(key: str) -> str:
    return tar_name(key)


@FEW
@given(KEYS, st.sampled_from(["hdf5", "webdataset"]), st.data())
@example(
    ["a/b c.jpg", "a/\u202ertl.png", "é/e\u0301.jpg", "a/line\nbreak.jpg", f"x/{'y' * 200}.jpg"],
    "webdataset",
    None,
)
def test_rows_are_read_back_as_they_were_written(keys, format, data):
    keys = list({without_ending(key): key for key in keys}.values())
    if format == "hdf5":
        keys = [key for key in keys if not key.endswith("\0")]
    texts = [f"says {key}" for key in keys] if data is None else [data.draw(ANY_TEXT) for _ in keys]
    if format == "hdf5":
        texts = [text.rstrip("\0") for text in texts]
    rng = np.random.default_rng(len(keys))
    rows = ShardRows(
        split="train",
        keys=keys,
        labels=np.arange(len(keys), dtype=np.int64),
        image_embedding=rng.normal(size=(len(keys), 4)).astype("float16"),
        file_sha256=["0" * 64] * len(keys),
        file_bytes=np.arange(len(keys), dtype=np.int64),
        file_mtime_ns=np.arange(len(keys), dtype=np.int64),
        captions=texts,
        caption_embedding=rng.normal(size=(len(keys), 4)).astype("float16"),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard"
        FORMATS[format].write(path, rows)
        read_back = FORMATS[format].read(path, sha256=sha256_of(path)).loaded()
        assert FORMATS[format].wrong_rows(path).rows == []
    assert (read_back.keys, read_back.captions) == (rows.keys, rows.captions)
    for name in ("labels", "image_embedding", "caption_embedding", "file_bytes"):
        np.testing.assert_array_equal(getattr(read_back, name), getattr(rows, name))


@FEW
@given(st.lists(ANY_TEXT.map(lambda t: t.rstrip("\0")), min_size=1, max_size=5))
def test_text_banks_are_read_back_as_they_were_written(texts):
    with tempfile.TemporaryDirectory() as folder:
        bank = make_bank("x", texts, [""] * len(texts), np.ones((len(texts), 3)))
        path = Path(folder) / "texts" / "x.h5"
        read_back = load_bank(path, "x", sha256=save_bank(Path(folder), bank, made_from="").sha256)
        assert wrong_rows_of(path) == WrongRows(rows=[], names=texts)
    assert read_back.texts == texts


@FEW
@given(KEY_PART, KEY_PART, st.sampled_from(["", "train/", "val/", "ood_test/", "id_test/"]))
def test_a_key_with_or_without_its_split_is_the_same_key(folder, file, split):
    named, key = split_and_key(f"{split}{folder}/{file}")
    assert key == f"{folder}/{file}"
    assert (named is None) == (split == "")
    assert is_key(key) == (max(len(folder.encode()), len(file.encode())) <= 255)


@FEW
@given(
    st.lists(st.dictionaries(ANY_TEXT, st.one_of(ANY_TEXT, st.integers()), max_size=3), max_size=4),
    st.binary(max_size=20),
)
def test_a_torn_end_of_a_partial_file_costs_no_row_before_it(rows, torn):
    with tempfile.TemporaryDirectory() as folder:
        partial = Partial.beside(Path(folder) / "out.txt")
        partial.append(rows)
        with open(partial.path, "ab") as file:
            file.write(torn.replace(b"\n", b""))
        assert partial.resume() == rows
        partial.append([{"more": 1}])
        assert partial.resume() == [*rows, {"more": 1}]


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), ANY_TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(ANY_TEXT, inner, max_size=3)),
    max_leaves=8,
)


@FEW
@given(st.dictionaries(ANY_TEXT.filter(lambda t: t != "sha256"), JSON, max_size=4), st.data())
def test_a_sealed_text_is_its_value_and_nothing_else(value, data):
    text = with_checksum(value)
    assert has_its_checksum(text)
    assert {k: v for k, v in json.loads(text).items() if k != "sha256"} == value
    at = data.draw(st.integers(0, len(text) - 1))
    assert not has_its_checksum(text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :])


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> dict[str, Any]:
    """A manifest's value, to be changed."""
    from conftest import make_cache, make_photos

    root = tmp_path_factory.mktemp("manifest")
    path = make_cache(root / "cache", make_photos(root / "photos", train=2, test=2)).path / "manifest.json"
    value = json.loads(path.read_text())
    del value["sha256"]
    return value


@FEW
@given(st.data())
def test_a_manifest_with_anything_in_any_place_is_read_or_refused(manifest, data):
    value = json.loads(json.dumps(manifest))
    place: Any = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
            place = inner
            continue
        place[key] = data.draw(JSON)
        break
    with written(with_checksum(value).encode(), "manifest.json") as path:
        loaded = value_or_line(lambda: Manifest.load(path.parent))
        if loaded is not None:
            replace(loaded, complete=True).save(path.parent)
            assert Manifest.load(path.parent) == replace(loaded, complete=True)


def test_every_recipe_is_read_back_as_it_was_written():
    for name in ("resnet18", "vit_b_32", "efficientnet_b0", "smoke"):
        assert from_toml(to_toml(load_recipe(name)), where=name) == load_recipe(name)
    assert torch.is_tensor(torch.empty(0))
