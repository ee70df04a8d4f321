"""What settings do not go together, and what is not for episodes."""

from __future__ import annotations

import pytest

from cache.runtime.errors import UserError
from distill.config import RunConfig
from distill.config_checks import check_for_episodes
from distill.settings import with_settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["loss.vlalign=1"], "loss.vlalign is on"),
        (["loss.cap=1"], "loss.cap is on"),
        (["loss.vlalign_standardize=true"], "set loss.vlalign_standardize=false"),
        (["data.mixup=0.2"], "data.mixup is 0.2, but an episode has several labels"),
        (["data.policy=crop_flip"], "data.policy is 'crop_flip'"),
        (["prompts.learner=cocoop"], "prompts.learner is 'cocoop'"),
        (['teachers=["main", "other"]'], "a cache of episodes has one"),
        (["robotics.threshold=1.5"], "robotics.threshold is 1.5"),
        (["robotics.gamma_neg=-1"], "robotics.gamma_neg is -1"),
        (["robotics.locale=true"], "robotics.locale is not a setting"),
    ],
)
def test_a_wrong_setting_of_episodes_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        check_for_episodes(with_settings(RunConfig(), ["data.policy=flip", *settings]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["optim.ema=0.9", "train.head_only=trained"], "optim.ema is 0.9 with train.head_only=trained"),
        (["optim.average_with_start=0.5", "train.head_only=closed-form"], "optim.average_with_start is 0.5"),
        (["optim.gamma=-1"], "optim.gamma is -1"),
        (["optim.lr=inf"], "optim.lr is inf"),
    ],
)
def test_what_would_do_nothing_or_climb_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        with_settings(RunConfig(), settings)
