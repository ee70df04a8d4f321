"""New text banks in a finished cache, by its kept text tower or by its teacher."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT, make_cache
from helpers.caches import builder
from helpers.teachers import save_clip

from cache import EmbeddingCache
from cache.build.add_texts import add_texts
from cache.build.distinct_texts import bank_remarks
from cache.build.from_folder import FeatureOptions, cache_features
from cache.build.text_options import TextOptions
from cache.maintain.verify import verify_cache
from cache.runtime.errors import CacheMismatch, UserError
from cache.store.text_banks import make_bank
from cache.teacher.load import load_teacher
from cli import main
from distill.judge.teachers import evaluate_teacher

HOLD = """
import sys
from pathlib import Path
from cache.runtime.locks import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
CLASSES = ("apple", "banana", "cherry", "lemon", "plum")


@pytest.fixture
def build(photos, teacher_dir, tmp_path):
    """A function that caches the photos, with the text tower."""
    return builder(photos, teacher_dir, tmp_path, keep_text_tower=True)


@pytest.fixture
def cache(build):
    """A finished cache that keeps its text tower."""
    return build()


def written(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_class_names_in_a_template_are_what_the_teacher_says_of_them(cache, teacher_dir):
    listed, notes = add_texts(cache.path, TextOptions(bank="sketch", templates=("a sketch of {}",)))
    assert (listed.file, listed.texts, listed.templates) == ("texts/sketch.h5", 5, ("a sketch of {}",))
    assert notes == []
    bank = EmbeddingCache.open(cache.path).text_bank("sketch")
    assert bank.texts == [f"a sketch of {name}" for name in CLASSES]
    expected = load_teacher(f"local-dir:{teacher_dir}").embed_texts(bank.texts)[0]
    np.testing.assert_allclose(bank.class_texts(CLASSES), expected.numpy(), rtol=1e-4, atol=1e-5)
    assert EmbeddingCache.open(cache.path).bank_names == (*cache.bank_names, "sketch")
    assert not [check for check in verify_cache(cache.path) if check.problem]
    assert evaluate_teacher(cache.path, text="sketch")


def test_class_names_are_those_that_the_cache_was_told(build, photos, tmp_path):
    lines = [f"{name} {i} {name}_fruit" for i, name in enumerate(reversed(CLASSES), start=1)]
    written(photos / "label2text.txt", [*lines, "pear 6 pear_tree"])
    (photos / "chatgpt.txt").unlink()
    cache = build()
    shutil.rmtree(photos)
    add_texts(cache.path, TextOptions(bank="one", templates=("the {}",)))
    opened = EmbeddingCache.open(cache.path)
    assert opened.text_bank("one").texts == [f"the {name} fruit" for name in reversed(CLASSES)] + [
        "the pear tree"
    ]
    # By position: in the order of label2text, which is the cache's.
    file = written(tmp_path / "texts.txt", [*(f"about {name}" for name in reversed(CLASSES)), "about pear"])
    _, notes = add_texts(cache.path, TextOptions(bank="two", text_file=file))
    bank = EmbeddingCache.open(cache.path).text_bank("two")
    assert dict(zip(bank.class_folders, bank.texts, strict=True))["lemon"] == "about lemon"
    assert notes[0].startswith("two: texts.txt, by position: plum -> 'about plum'")
    assert notes[1] == "two: 1 of its 6 classes are none of the cache's ('pear')"
    labels = written(tmp_path / "labels.txt", [f"{name} {i} my_{name}" for i, name in enumerate(CLASSES)])
    add_texts(cache.path, TextOptions(bank="three", templates=("{}",), label2text=labels))
    assert EmbeddingCache.open(cache.path).text_bank("three").texts[0] == "my apple"


def test_a_file_names_its_classes_and_may_have_several_lines_of_one_in_several_templates(cache, tmp_path):
    file = written(tmp_path / "x.txt", ["apple\tred apple", "apple\tgreen apple", "plum\ta blue plum"])
    listed, notes = add_texts(
        cache.path, TextOptions(bank="mine", text_file=file, templates=("one {}", "two {}"))
    )
    assert listed.source == "x.txt, by name"
    bank = EmbeddingCache.open(cache.path).text_bank("mine")
    assert bank.texts[:4] == ["one red apple", "two red apple", "one green apple", "two green apple"]
    assert [bank.class_folders[i] for i in bank.class_index] == ["apple"] * 4 + ["plum"] * 2
    assert notes == [
        "mine: no text for 3 of 5 classes ('banana', 'cherry', 'lemon'): no split that has one of them is "
        "trained or judged with it"
    ]
    with pytest.raises(UserError, match="no text for"):
        evaluate_teacher(cache.path, text="mine")


def test_texts_of_no_class_are_a_free_bank(cache, tmp_path):
    file = written(tmp_path / "x.txt", ["one", "two"])
    listed, notes = add_texts(cache.path, TextOptions(bank="free", text_file=file))
    assert (listed.texts, notes) == (2, [])


def test_a_bank_of_other_texts_is_replaced_only_where_that_is_asked_for(cache):
    one = TextOptions(bank="x", templates=("one {}",))
    before, _ = add_texts(cache.path, one)
    raw = (cache.path / before.file).stat().st_mtime_ns
    assert add_texts(cache.path, one)[0] == before
    assert (cache.path / before.file).stat().st_mtime_ns == raw
    with pytest.raises(UserError, match=r"has a text bank 'x' of other texts already.*add --replace"):
        add_texts(cache.path, TextOptions(bank="x", templates=("two {}",)))
    assert EmbeddingCache.open(cache.path).text_bank("x").texts[0] == "one apple"
    after, _ = add_texts(cache.path, TextOptions(bank="x", templates=("two {}",), replaces=True))
    assert after.sha256 != before.sha256
    assert EmbeddingCache.open(cache.path).text_bank("x").texts[0] == "two apple"
    with pytest.raises(UserError, match="'labels' of other texts"):
        add_texts(cache.path, TextOptions(bank="labels", templates=("two {}",)))


def test_a_damaged_bank_is_made_again(cache):
    one = TextOptions(bank="x", templates=("one {}",))
    listed, _ = add_texts(cache.path, one)
    (cache.path / listed.file).write_bytes(b"damaged")
    add_texts(cache.path, one)
    assert EmbeddingCache.open(cache.path).text_bank("x").texts[0] == "one apple"


def test_without_a_kept_tower_the_teacher_itself_embeds_and_no_other_one(
    build, teacher_dir, tmp_path, photos
):
    cache = build(keep_text_tower=False)
    given = {"bank": "x", "templates": ("one {}",), "device": "cpu"}
    with pytest.raises(
        UserError, match=r"keeps no text tower.*--model local-dir:\S+, or .*--keep-text-tower"
    ):
        add_texts(cache.path, TextOptions(**given))
    other = save_clip(tmp_path / "other", seed=5)
    with pytest.raises(CacheMismatch, match="checksum differs"):
        add_texts(cache.path, TextOptions(model=f"local-dir:{other}", **given))
    assert "x" not in EmbeddingCache.open(cache.path).bank_names
    add_texts(cache.path, TextOptions(model=f"local-dir:{teacher_dir}", **given))
    mine = EmbeddingCache.open(cache.path).text_bank("x").embeddings
    kept = build("kept")
    add_texts(kept.path, TextOptions(**given))
    np.testing.assert_allclose(
        mine, EmbeddingCache.open(kept.path).text_bank("x").embeddings, rtol=1e-4, atol=1e-5
    )


def test_a_teacher_of_the_same_weights_and_another_config_is_refused(build, teacher_dir, tmp_path):
    cache = build(keep_text_tower=False)
    other = shutil.copytree(teacher_dir, tmp_path / "other")
    config = json.loads((other / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = True
    (other / "open_clip_config.json").write_text(json.dumps(config))
    options = TextOptions(bank="x", templates=("one {}",), model=f"local-dir:{other}", device="cpu")
    with pytest.raises(CacheMismatch, match="they differ in their architecture"):
        add_texts(cache.path, options)


def test_rows_that_were_imported_take_the_texts_of_any_teacher_of_their_length(photos, teacher_dir, tmp_path):
    cache = make_cache(tmp_path / "cache", photos)
    options = TextOptions(bank="x", templates=("one {}",), model=f"local-dir:{teacher_dir}", device="cpu")
    add_texts(cache.path, options)
    assert EmbeddingCache.open(cache.path).text_bank("x").embeddings.shape == (5, 16)
    wide = save_clip(tmp_path / "wide", embed_dim=24)
    options = TextOptions(bank="y", templates=("one {}",), model=f"local-dir:{wide}", device="cpu")
    with pytest.raises(CacheMismatch, match=r"differ in their embed_dim \(24 and 16\)"):
        add_texts(cache.path, options)


def test_an_added_teacher_has_texts_of_its_own(build, teacher_dir, tmp_path, photos):
    second = save_clip(tmp_path / "second", embed_dim=24)
    cache = build()
    options = {"device": "cpu", "workers": 0, "keep_text_tower": True}
    cache_features(
        photos, cache.path, FeatureOptions(model=f"local-dir:{second}", teacher="second", **options)
    )
    given = {"bank": "x", "templates": ("one {}",), "device": "cpu"}
    for teacher, width in (("main", 16), ("second", 24)):
        listed, _ = add_texts(cache.path, TextOptions(teacher=teacher, **given))
        assert listed.file == ("texts/x.h5" if teacher == "main" else "texts/second.x.h5")
        opened = EmbeddingCache.open(cache.path).teacher_cache(teacher)
        assert opened.text_bank("x").embeddings.shape == (5, width)
    expected = load_teacher(f"local-dir:{second}").embed_texts(["one apple"])[0]
    np.testing.assert_allclose(
        opened.text_bank("x").class_texts(["apple"]), expected.numpy(), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(CacheMismatch, match="checksum differs"):  # the main teacher is not this one
        add_texts(
            cache.path,
            TextOptions(bank="y", templates=("{}",), teacher="second", model=f"local-dir:{teacher_dir}"),
        )


def test_objects_of_episodes_get_texts_too(episode_cache, tmp_path):
    cache = shutil.copytree(episode_cache, tmp_path / "cache")
    before = EmbeddingCache.open(cache)
    listed, notes = add_texts(cache, TextOptions(bank="x", templates=("there is a {}",)))
    bank = EmbeddingCache.open(cache).text_bank("x")
    assert notes == []
    assert bank.class_folders == before.text_bank("labels").class_folders
    assert listed.texts == len(bank.class_folders)
    assert all("_" not in text for text in bank.texts)


def test_two_classes_of_one_text_are_refused_before_anything_is_embedded(cache, tmp_path):
    file = written(tmp_path / "x.txt", [f"{name}\t{name[0]}" for name in CLASSES] + ["plum\tapricot"])
    file.write_text(file.read_text().replace("banana\tb", "banana\ta"))
    with pytest.raises(UserError, match="'apple' and 'banana' have the same text"):
        add_texts(cache.path, TextOptions(bank="x", text_file=file))
    assert "x" not in EmbeddingCache.open(cache.path).bank_names


def test_a_cache_that_another_process_writes_is_left_alone(cache):
    words = [sys.executable, "-c", HOLD, str(cache.path)]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="writ"):
            add_texts(cache.path, TextOptions(bank="x", templates=("one {}",)))
        other.stdin.close()
    assert "x" not in EmbeddingCache.open(cache.path).bank_names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bank": "../x", "templates": ("{}",)}, "cannot name a file"),
        ({"bank": "x"}, "nothing says what the texts are"),
        ({"bank": "x", "templates": ("no place",)}, "has no single {}"),
        ({"bank": "x", "templates": ("{}",), "teacher": "second"}, "has no teacher 'second'"),
    ],
)
def test_what_cannot_be_added_is_one_clear_error(cache, options, message):
    with pytest.raises(UserError, match=message):
        add_texts(cache.path, TextOptions(**options))


def test_what_a_bank_lacks_and_names_too_much_is_counted_and_three_are_named():
    rows = np.ones((4, 2), dtype=np.float32)
    bank = make_bank("b", list("wxyz"), list("wxyz"), rows)
    assert bank_remarks(bank, list("wxyz")) == []
    assert bank_remarks(bank, ["w", "x", "m", "m", "n", "o", "p"]) == [
        "b: no text for 4 of 6 classes ('m', 'n', 'o' and 1 more): no split that has one of them is trained or "
        "judged with it",
        "b: 2 of its 4 classes are none of the cache's ('y', 'z')",
    ]
    assert bank_remarks(make_bank("b", list("wxyz"), [""] * 4, rows), ["m"]) == []


def test_the_command_says_where_the_texts_are_and_how_the_teacher_does_with_them(cache, tmp_path):
    words = ["cache", "add-texts", str(cache.path), "--bank", "x", "--template", "a sketch of {}"]
    ended = CliRunner().invoke(main, words)
    assert ended.exit_code == 0, ended.output
    assert "texts/x.h5: 5 texts; use them with: train --text x" in ended.output
    assert "zero-shot" in ended.output
    ended = CliRunner().invoke(main, [*words[:5], "--template", "other {}"])
    assert ended.exit_code == 1
    assert "--replace" in ended.output
    ended = CliRunner().invoke(main, [*words, "--run", str(tmp_path)])
    assert ended.exit_code == 2
    assert "--template is of texts" in ended.output
