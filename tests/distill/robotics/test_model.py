"""What is learnt of episodes: batches, gradients, the two texts of each object."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.runs import EPISODES_SMALL

from cache import EmbeddingCache
from distill.config import RunConfig
from distill.settings import with_settings
from distill.train.session import open_session


def config(*settings):
    return with_settings(RunConfig(), [*EPISODES_SMALL, *settings])


def batch_of(session, count=6):
    return session.data.batch(*next(session.data.images([np.arange(count)])))


@pytest.mark.parametrize("settings", [(), ("robotics.local=true",), ("prompts.learner=coop",)])
def test_everything_that_is_learnt_gets_a_gradient(episodes, episode_cache, settings):
    session = open_session(config(*settings), cache_dir=episode_cache, data_dir=episodes)
    batch, model = batch_of(session), session.model
    parts, scores = model.losses(model.student(batch.image_BXRR), batch)
    parts["total"].backward()
    assert scores.shape == (6, 14)
    assert model.student.score_bias.grad.abs() > 0
    assert all(p.grad is not None for p in model.student.parameters())
    learner = model.heads[0].texts.learner
    if learner is not None:
        grads = [p.grad.abs().sum() for p in learner.parameters()]
        assert len(grads) == 2  # one context of each sign
        assert all(grad > 0 for grad in grads)


def test_a_batch_has_the_hand_cameras_row_and_every_label(episodes, episode_cache):
    session = open_session(config(), cache_dir=episode_cache, data_dir=episodes)
    batch, rows = batch_of(session), EmbeddingCache.open(episode_cache).split("train")
    for i, image in enumerate(session.data.joined.images[:6]):
        row = rows.position[image.key]
        assert torch.equal(batch.targets[0].teacher_BD[i], torch.tensor(rows.embeddings[row]).float())
        assert batch.label_B[i].tolist() == rows.labels[row].tolist()


def test_dual_prompts_put_the_names_after_two_contexts(episodes, episode_cache):
    session = open_session(
        config("prompts.learner=coop", 'text="descriptions"', "robotics.negative_text=negative_descriptions", "prompts.n_ctx=3"),
        cache_dir=episode_cache,
        data_dir=episodes,
    )  # fmt: skip
    first = session.model.class_names[0]
    words = first.partition("_")[2].replace("_", " ")
    positive, negative = (
        session.model.heads[0].texts.positive.words[first],
        session.model.heads[0].texts.negative.words[first],
    )
    assert positive.startswith(f"{words} . It is a")
    assert negative.startswith(f"{words} . Nothing")
    assert negative.endswith(f" . {words}")
    pair = session.model.texts(session.model.class_names)
    assert pair.shape == (2, 14, 16)
    assert not torch.equal(*session.model.heads[0].texts.learner.parameters())


def test_fixed_texts_are_the_banks_rows(episodes, episode_cache):
    session = open_session(config(), cache_dir=episode_cache, data_dir=episodes)
    pair, cache = session.model.texts(session.model.class_names), EmbeddingCache.open(episode_cache)
    for sign, bank in enumerate(("labels", "negative_labels")):
        expected = cache.text_bank(bank).class_texts(session.model.class_names)
        np.testing.assert_array_equal(pair[sign].numpy(), expected)
