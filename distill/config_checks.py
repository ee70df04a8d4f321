"""What a config of photos, or of episodes, may not ask for."""

from __future__ import annotations

from cache.sources.splits import MAIN_TEACHER
from distill.config import RoboticsConfig, RunConfig, StudentConfig
from distill.config_fields import require, require_choice


def check_for_photos(config: RunConfig) -> None:
    """Refuse settings that mean nothing where an image has one label; UserError names the first."""
    for name in RoboticsConfig.__dataclass_fields__:
        value = getattr(config.robotics, name)
        require(
            value == getattr(RoboticsConfig(), name),
            f"robotics.{name} is {value}, but the cache is of photos, one label each",
            "leave it out, or make a cache of episodes: distill robotics cache-features.",
        )


def check_for_episodes(config: RunConfig) -> None:
    """Refuse settings that mean nothing where an episode has several labels; UserError names the first."""
    for name in ("eval_size", "eval_crop"):
        require(
            getattr(config.student, name) == getattr(StudentConfig(), name),
            f"student.{name} is {getattr(config.student, name)}, but an episode's pictures are not cropped",
            "leave it out: episodes are judged as they are trained.",
        )
    for name in ("vlalign", "cap", "mse_raw", "center", "im_cst_bank"):
        require(
            not getattr(config.loss, name),
            f"loss.{name} is on, but episodes are trained with cls, mse and im_cst as they are",
            f"set loss.{name}={'false' if name == 'center' else 0}.",
        )
    for name, off in (("class_val", 0), ("balanced", False), ("pool_share", -1)):
        value = getattr(config.data, name)
        require(
            value == off,
            f"data.{name} is {value}, but an episode has several labels",
            f"leave it out: data.{name}={str(off).lower()}.",
        )
    require_choice("data.policy", config.data.policy, ("flip", "none"))
    require_choice("prompts.learner", config.prompts.learner, ("none", "coop"))
    require(
        config.teachers == (MAIN_TEACHER,),
        f"teachers is {list(config.teachers)}, but a cache of episodes has one",
        f'leave it at ["{MAIN_TEACHER}"].',
    )
