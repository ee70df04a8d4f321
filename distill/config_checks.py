"""What settings of several sections may not ask for together, and what is not for photos or for episodes."""

from __future__ import annotations

from typing import Any

from cache.sources.splits import MAIN_TEACHER, MEAN
from distill.config_fields import require, require_choice

# A distill.config.RunConfig, which is made with these checks.
Config = Any


def check_together(config: Config) -> None:
    """Refuse settings of several sections that do not go together; UserError names the first."""
    learns = config.prompts.learner != "none"
    require(
        len(config.teachers) == len(set(config.teachers)) > 0,
        f"teachers is {list(config.teachers)}",
        f'name at least one, each once: teachers=["{MAIN_TEACHER}"].',
    )
    require(
        len(config.teachers) == 1 or MEAN not in config.teachers,
        f"teachers is {list(config.teachers)}, but results of {MEAN} are those of the mean of all heads",
        "give that teacher another name in the cache.",
    )
    require(
        len(config.teachers) > 1 or not config.loss.teacher_confidence,
        f"loss.teacher_confidence is on with the teacher {config.teachers[0]} alone",
        "name several teachers, or set loss.teacher_confidence=false.",
    )
    require(
        not (learns and len(config.teachers) > 1),
        f"prompts.learner is {config.prompts.learner} with {len(config.teachers)} teachers",
        "learn prompts against one teacher.",
    )
    require(
        not (learns and config.train.closed_set),
        f"prompts.learner is {config.prompts.learner} with train.closed_set",
        "the closed-set student has no prompts: switch one of them off.",
    )
    _check_head(config)
    _check_head_alone(config)
    for has, what in (
        (config.train.closed_set, "train.closed_set, which has no teacher"),
        (config.train.head_only != "off", "train.head_only, which takes pictures as they are"),
    ):
        on = config.data.replay_views == "on"
        require(not (on and has), f"data.replay_views is on with {what}", "set data.replay_views=auto.")
    rates = {"layer_decay": config.optim.layer_decay, "trunk_scale": config.optim.trunk_scale}
    for name, scale in rates.items():
        require(
            scale == 1 or config.student.freeze_epochs < config.train.epochs,
            f"optim.{name} is {scale}, but the trunk is never trained: student.freeze_epochs is "
            f"{config.student.freeze_epochs} of {config.train.epochs} epochs",
            f"set optim.{name}=1, or fewer student.freeze_epochs.",
        )
    require(
        not (config.train.closed_set and config.data.class_val),
        f"data.class_val is {config.data.class_val:g} with train.closed_set, which can tell no other classes",
        "set data.class_val=0.",
    )
    require(
        not config.eval.choose or config.data.id_val > 0 or config.data.class_val > 0,
        "eval.choose is on, but nothing is set aside to choose on: data.id_val is 0",
        "set data.id_val=0.1, or eval.choose=false.",
    )
    require(
        config.train.closed_set or not config.loss.is_off,
        "every loss has weight 0",
        "switch at least one on: loss.cls=1.",
    )


def _check_head(config: Config) -> None:
    """Refuse settings of a head that do not go together; UserError names them."""
    student, only = config.student, config.train.head_only
    by_ridge = "closed-form" in (only, student.head_start)
    asked = f"train.head_only is {only}, student.head_start {student.head_start}"
    for wrong, problem, fix in (
        (
            student.head == "mlp" and only == "closed-form",
            "train.head_only is closed-form with student.head=mlp",
            "a hidden layer has no closed form: set student.head=stages, or train.head_only=trained.",
        ),
        (
            config.train.closed_set and (by_ridge or only != "off"),
            f"{asked}, with train.closed_set",
            "the closed-set student has no teacher: switch one of them off.",
        ),
        (
            config.prompts.learner != "none" and (by_ridge or only != "off"),
            f"{asked}, with prompts.learner={config.prompts.learner}",
            "prompts are learnt with the whole student: switch one of them off.",
        ),
        (
            student.feature_noise > 0 and student.head == "linear" and only != "trained",
            f"student.feature_noise is {student.feature_noise} with student.head=linear",
            "set student.head=stages, or train the head alone: train.head_only=trained.",
        ),
    ):
        require(not wrong, problem, fix)


def _check_head_alone(config: Config) -> None:
    """Refuse settings that do not go with how a head alone is made; UserError names the first."""
    student, only, heads, optim = config.student, config.train.head_only, config.train.heads, config.optim
    for wrong, problem, fix in (
        (
            heads > 1 and only != "trained",
            f"train.heads is {heads} with train.head_only={only}",
            "train them alone: train.head_only=trained (flag --head-only=trained), or set train.heads=1.",
        ),
        (
            heads > 1 and student.head == "mlp",
            f"train.heads is {heads} with student.head=mlp, whose hidden layers have no mean",
            "set student.head=stages, or train.heads=1.",
        ),
        (
            optim.ema > 0 and only != "off",
            f"optim.ema is {optim.ema:g} with train.head_only={only}, which keeps no moving average",
            "set optim.ema=0, or train.head_only=off.",
        ),
        (
            optim.average_with_start > 0 and only == "closed-form",
            f"optim.average_with_start is {optim.average_with_start:g} with train.head_only=closed-form, "
            "whose head is its own start",
            "set optim.average_with_start=0, or train.head_only=trained.",
        ),
        (
            config.data.mixup > 0 and only == "closed-form",
            f"data.mixup is {config.data.mixup:g} with train.head_only=closed-form, which takes no steps",
            "set data.mixup=0, or train.head_only=trained.",
        ),
    ):
        require(not wrong, problem, fix)


def check_for_photos(config: Config) -> None:
    """Refuse settings that mean nothing where an image has one label; UserError names the first."""
    unset = type(config.robotics)()
    for name in unset.__dataclass_fields__:
        value = getattr(config.robotics, name)
        require(
            value == getattr(unset, name),
            f"robotics.{name} is {value}, but the cache is of photos, one label each",
            "leave it out, or make a cache of episodes: distill robotics cache-features.",
        )


def check_for_episodes(config: Config) -> None:
    """Refuse settings that mean nothing where an episode has several labels; UserError names the first."""
    for name in ("eval_size", "eval_crop"):
        require(
            getattr(config.student, name) == getattr(type(config.student)(), name),
            f"student.{name} is {getattr(config.student, name)}, but an episode's pictures are not cropped",
            "leave it out: episodes are judged as they are trained.",
        )
    require(
        not config.eval.choose,
        "eval.choose is on, but an episode's pictures are not cropped",
        "set eval.choose=false: episodes are judged as they are trained.",
    )
    for name in (
        "vlalign",
        "vlalign_standardize",
        "vlalign_temperature",
        "cap",
        "mse_raw",
        "center",
        "im_cst_bank",
    ):
        value = getattr(config.loss, name)
        require(
            not value,
            f"loss.{name} is on, but episodes are trained with cls, mse and im_cst as they are",
            f"set loss.{name}={'false' if isinstance(value, bool) else 0}.",
        )
    for name, off in (
        ("class_val", 0),
        ("pool_val", 0),
        ("balanced", False),
        ("mixup", 0),
        ("pool_share", -1),
    ):
        value = getattr(config.data, name)
        require(
            value == off,
            f"data.{name} is {value}, but an episode has several labels",
            f"leave it out: data.{name}={str(off).lower()}.",
        )
    require_choice("loss.standardise", config.loss.standardise, ("none",))
    require_choice("student.head", config.student.head, ("linear",))
    require_choice("student.head_start", config.student.head_start, ("random",))
    require_choice("train.head_only", config.train.head_only, ("off",))
    require_choice("data.policy", config.data.policy, ("flip", "none"))
    require_choice("prompts.learner", config.prompts.learner, ("none", "coop"))
    require(
        config.teachers == (MAIN_TEACHER,),
        f"teachers is {list(config.teachers)}, but a cache of episodes has one",
        f'leave it at ["{MAIN_TEACHER}"].',
    )
