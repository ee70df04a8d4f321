"""Anything at all, given to every parser: a value that keeps its promise, or one line that says what is wrong."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from helpers.fuzz import (
    ANY_TEXT,
    FEW,
    FILE,
    KEY_PART,
    PIECES,
    value_or_line,
    written,
)
from hypothesis import example, given
from hypothesis import strategies as st

from cache.prepare.finished_lines import Partial
from cache.prepare.published_splits import read_lists
from cache.sources.arrays import load_array, load_names
from cache.sources.class_texts import (
    class_names_of,
    file_bank,
    is_key,
    read_captions,
    read_descriptions,
)
from distill.config import RunConfig
from distill.settings import RECIPES, from_toml, load_recipe, names_in, to_toml, with_settings
from distill.sweep.plan import load_sweep

FOLDERS = ("apple", "banana")


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
    "data.replay_views",
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
            st.sampled_from(["paper-resnet18", "smoke"]),
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


@FEW
@given(KEY_PART, KEY_PART)
def test_a_key_has_parts_that_a_file_system_takes(folder, file):
    assert is_key(f"{folder}/{file}") == (max(len(folder.encode()), len(file.encode())) <= 255)


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


def test_every_recipe_is_read_back_as_it_was_written():
    for name in names_in(RECIPES):
        assert from_toml(to_toml(load_recipe(name)), where=name) == load_recipe(name)
