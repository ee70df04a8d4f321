"""Text towers with a tokenizer of transformers, kept in a cache: the same rows, and prompts learnt in them."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from helpers.kept_towers import KINDS, save_with_tokenizer

from cache.runtime.errors import UserError
from cache.teacher.load import load_teacher
from cache.teacher.teacher import Teacher
from cache.teacher.text_tower import TextTower, save_text_tower
from distill.student.prompts import LearntTexts, PromptLearner

TEXTS = ["a photo of a Dog", "plums!", "", "two cups; 3 plates " * 30, "a red apple on a table"]
NAMES = ("dog", "red apple on a table", "plums and lemons, ripe " * 20)
WORDS = "a photo of a"


@pytest.fixture(scope="module", params=KINDS)
def teacher(request, tmp_path_factory) -> Teacher:
    return load_teacher(
        f"local-dir:{save_with_tokenizer(request.param, tmp_path_factory.mktemp('kept') / 'model')}"
    )


@pytest.fixture
def tower(teacher, tmp_path) -> TextTower:
    return TextTower.load(tmp_path, files=save_text_tower(tmp_path, teacher.text_side().kept()))


def test_a_kept_tower_embeds_texts_as_its_teacher(teacher, tower):
    rows, cut = tower.embed_texts(TEXTS)
    expected, also_cut = teacher.embed_texts(TEXTS)
    torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-5)
    assert cut == also_cut == 1
    assert tower.token_ids(TEXTS) == teacher.token_ids(TEXTS)


@torch.no_grad()
def test_contexts_that_are_real_words_give_the_teachers_own_rows(teacher, tower):
    side = tower.side
    words, _ = side.tokens([WORDS])
    count = int((side.tokens([WORDS], room=1)[0] != words).nonzero()[-1, 1])  # what is moved by one
    learner = PromptLearner(count - side.lead, tower.width)
    learner.context.copy_(side.token_embedding(words)[0, side.lead : count])
    learnt = LearntTexts(tower, learner, {name: name for name in NAMES})(NAMES, torch.empty(0))
    expected, _ = teacher.embed_texts([f"{WORDS} {name}." for name in NAMES])
    torch.testing.assert_close(learnt, expected, rtol=1e-5, atol=1e-5)


def test_gradient_reaches_the_contexts_of_every_kind(tower):
    learner = PromptLearner(3, tower.width)
    LearntTexts(tower, learner, {"a": "apple"})(("a",), torch.empty(0)).square().sum().backward()
    assert learner.context.grad is not None
    assert learner.context.grad.abs().max() > 0
    with pytest.raises(UserError, match="give at most"):
        tower.tokens(["a"], n_ctx=tower.context_length)


def test_a_kept_tower_is_not_read_with_another_tokenizer(teacher, tmp_path):
    files = save_text_tower(tmp_path, teacher.text_side().kept())
    config = tmp_path / "text_tower" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tokenizer": "0" * 64}))
    files = tuple(type(files[0]).of(tmp_path, file.file) for file in files)
    with pytest.raises(UserError, match="the tokenizer "):
        TextTower.load(tmp_path, files=files)
    shutil.copyfile(config, tmp_path / "text_tower" / "tokenizer.json")
    with pytest.raises(UserError, match="differs from its checksum"):
        TextTower.load(tmp_path, files=files)
