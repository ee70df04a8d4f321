"""Options that carry settings."""

from __future__ import annotations

import pytest

from cache.runtime.errors import UserError
from distill.commands.train import train
from distill.settings import load_recipe, with_settings


def settings_of(*words):
    """The settings that words of ``distill train`` come to."""
    ctx = train.make_context("train", [".", "--data", ".", "--out", "x", *map(str, words)])
    return ctx.params["settings"]


def test_an_option_is_its_setting_and_what_set_says_comes_last():
    given = settings_of(
        "--set", "loss.cap=0.5", "--losses", "cls,cap", "--k", 7, "--lr", 0.1, "--seed", 3, "--local"
    )
    config = with_settings(load_recipe("paper-resnet18"), given)
    assert (config.loss.cls, config.loss.mse, config.loss.cap, config.loss.vlalign_k) == (1.0, 0.0, 0.5, 7)
    assert (config.optim.lr, config.train.seed, config.robotics.local) == (0.1, 3, True)
    assert settings_of() == ()
    words = ["--arch", 'own "net"', "--teachers", "main, second", "--device-images", "on"]
    config = with_settings(load_recipe("paper-resnet18"), settings_of(*words))
    assert (config.student.arch, config.data.device_images) == ('own "net"', "on")
    assert config.teachers == ("main", "second")
    with pytest.raises(UserError, match="did you mean 'mse'"):
        settings_of("--losses", "cls,mes")
    with pytest.raises(UserError, match="every loss has weight 0"):
        with_settings(load_recipe("smoke"), settings_of("--losses", ""))
