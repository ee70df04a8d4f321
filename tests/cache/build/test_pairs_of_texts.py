"""Positive and negative texts that the teacher reads as one are refused before anything is embedded."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import ROOT

from cache.build.from_episodes import EpisodeOptions, cache_episode_features
from cache.runtime.errors import UserError
from distill.demo.episodes import NEGATIVE_TEMPLATE, TEMPLATE

SHIPPED = EpisodeOptions(
    model=f"local-dir:{ROOT / 'distill' / 'demo' / 'teacher'}", device="cpu", workers=0, precision="float32"
)


def refused(episodes, tmp_path, options):
    with pytest.raises(UserError) as error:
        cache_episode_features(episodes, tmp_path / "cache", options)
    assert not (tmp_path / "cache").exists()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_default_prompts_are_one_to_the_teacher_that_ships(episodes, tmp_path):
    message = refused(episodes, tmp_path, SHIPPED)
    assert "of '000_plain_red_circle' the same embedding" in message
    assert "'You can find a plain red circle in this image, except a robot arm.' and 'You cannot" in message
    assert "--template" in message
    assert "--negative-template" in message


def test_prompts_that_the_shipped_teacher_tells_apart_are_taken(episodes, tmp_path):
    options = replace(SHIPPED, templates=(TEMPLATE,), negative_templates=(NEGATIVE_TEMPLATE,))
    assert cache_episode_features(episodes, tmp_path / "cache", options).rows == 36


def test_texts_that_are_cut_to_the_same_tokens_are_refused(episodes, tmp_path, teacher_dir):
    long = "a photo, seen from far above by a camera of a robot that holds on to its own arm, of a {}"
    options = replace(
        SHIPPED,
        model=f"local-dir:{teacher_dir}",
        templates=(long,),
        negative_templates=(long.replace("of a {}", "of no {}"),),
    )
    assert "the same tokens, cut to its context" in refused(episodes, tmp_path, options)


def test_one_text_for_both_is_refused(episodes, tmp_path, teacher_dir):
    options = replace(
        SHIPPED, model=f"local-dir:{teacher_dir}", templates=("a {}",), negative_templates=("a {}",)
    )
    assert "'a plain red circle' and 'a plain red circle'" in refused(episodes, tmp_path, options)
