"""The whole of a run as one frozen value: what is not in here cannot change a result.

How it is read from TOML and changed by name: :mod:`distill.settings`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from cache.runtime import machine_limits
from cache.runtime.errors import UserError, nearest_names
from cache.sources.decoders import AUTO, DECODERS
from cache.sources.splits import MAIN_TEACHER


def require(condition: bool, problem: str, fix: str) -> None:
    """Raise a UserError unless ``condition``."""
    if not condition:
        raise UserError(problem, fix=fix)


def require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise a UserError with the nearest choice unless ``value`` is one of them."""
    require(
        value in choices,
        f"{name} is {value!r}",
        f"{nearest_names(value, choices)}choose from {', '.join(choices)}.",
    )


def accepted(default: Any, accepts: Callable[[Any], bool], fix: str, *, most: float = math.inf) -> Any:
    """Return a field for a number that ``accepts`` holds of; ``most`` is what a machine may be asked for."""
    return field(default=default, metadata={"accepts": accepts, "fix": fix, "most": most})


def at_least(least: int, default: float, *, fix: str = "", most: float = math.inf) -> Any:
    """Return a field for a number of at least ``least``; see :func:`accepted`."""
    return accepted(default, lambda value: value >= least, fix or f"give at least {least}.", most=most)


def one_of(default: str, *others: str) -> Any:
    """Return a field for one of some words."""
    return field(default=default, metadata={"choices": (default, *others)})


def check_fields(section: str, config: Any) -> None:
    """Raise a UserError for the first field of a config whose value is not one that the field is for."""
    for one in fields(config):
        name, value, bounds = f"{section}.{one.name}", getattr(config, one.name), one.metadata
        if "choices" in bounds:
            require_choice(name, value, bounds["choices"])
        if "accepts" in bounds:
            require(bounds["accepts"](value), f"{name} is {value}", bounds["fix"])
            require(value <= bounds["most"], f"{name} is {value:,}", f"give at most {bounds['most']:,}.")


HEADS = ("linear", "stages", "mlp")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentConfig:
    """The student: a torchvision or timm name, its weights, its input size in pixels, its head.

    ``head`` linear is the model's own last layer; stages reads mean and deviation of every stage of the
    trunk, mlp puts a hidden layer of ``hidden`` on those. ``head_start`` closed-form begins with the ridge
    from the trunk's features to the teacher's rows, of lambda ``ridge`` (0: chosen on class_val, else id_val,
    else by the cosine on a tenth of the images held out). ``feature_noise`` is gaussian, on standardised
    features, in units of their deviation.
    """

    arch: str = "resnet18"
    pretrained: bool = False
    weights: str = ""
    image_size: int = at_least(8, 224, fix="give at least 8 pixels.", most=machine_limits.IMAGE_SIDE)
    head: str = one_of(*HEADS)
    hidden: int = at_least(1, 1024, most=machine_limits.BATCH)
    head_start: str = one_of("random", "closed-form")
    ridge: float = at_least(0, 0.0, fix="give a number above 0, or 0: chosen.")
    feature_noise: float = at_least(0, 0.0)

    def __post_init__(self) -> None:
        check_fields("student", self)
        require(
            self.head != "mlp" or self.head_start == "random",
            "student.head_start is closed-form with student.head=mlp",
            "a hidden layer has no closed form: set student.head=stages, or student.head_start=random.",
        )
        require(
            not (self.pretrained and self.weights),
            "student.pretrained and student.weights are both given",
            "keep one: named weights, or a file.",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """How much each loss counts (0 leaves it out), and what they share."""

    cls: float = 1.0
    mse: float = 0.0
    mse_raw: float = 0.0
    im_cst: float = 0.0
    vlalign: float = 0.0
    cap: float = 0.0
    vlalign_k: int = at_least(1, 256)
    vlalign_filter: bool = False
    im_cst_bidirectional: bool = True
    temperature: float = accepted(0.07, lambda value: value > 0, "give a number above 0.")

    def __post_init__(self) -> None:
        for name in LOSS_TERMS:
            weight = getattr(self, name)
            require(
                0 <= weight < float("inf"),
                f"loss.{name} is {weight}, but a weight is a number of at least 0",
                f"use 0 to leave {name} out.",
            )
        check_fields("loss", self)


LOSS_TERMS = ("cls", "mse", "mse_raw", "im_cst", "vlalign", "cap")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """The optimiser and its learning rate over the epochs (one step of the schedule an epoch)."""

    name: str = one_of("sgd", "adamw")
    lr: float = accepted(0.05, lambda value: value > 0, "give a number above 0.")
    momentum: float = accepted(0.9, lambda value: 0 <= value < 1, "give a number from 0 to 1.")
    weight_decay: float = at_least(0, 1e-4)
    schedule: str = one_of("step", "onecycle", "cosine", "constant")
    milestones: tuple[int, ...] = (30, 60)
    gamma: float = 0.1

    def __post_init__(self) -> None:
        check_fields("optim", self)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """How training images are drawn.

    ``policy`` is crop_flip, flip, randaugment or none; ``per_image`` false draws one crop for a whole
    batch, as the original research code; ``id_val`` is the share of train set aside to choose on;
    ``seed`` decides the order and the augmentation, -1 leaves that to ``train.seed``;
    ``pixels`` auto reads the images that the cache keeps, files always decodes; ``decoder`` of photos is
    torchvision or pillow, auto the faster that loads, which the run then keeps to; ``device_images`` says
    whether decoded images are kept on the device: auto on CUDA where they fit, on, off; ``memory_mb`` is how
    much memory decoded images may take otherwise before they are decoded anew every epoch (never more than
    half of the machine's); ``shuffle_buffer`` is how many images a process holds to mix them where a cache's
    tars are streamed; ``workers`` are the processes that decode, -1 by the machine: all cores beside a
    GPU, else one (never more than four a core, or 16); ``views`` replays the
    crops that the cache keeps, each with the teacher's embedding of that very crop; ``shared_classes`` lets
    classes be in train and in the OOD test as well.
    """

    repeat_epochs: int = at_least(1, 1, most=machine_limits.EPOCH_REPEATS)
    policy: str = one_of("crop_flip", "flip", "randaugment", "none")
    per_image: bool = True
    scale_min: float = accepted(0.08, lambda value: 0 < value <= 1, "give a share from 0 to 1.")
    id_val: float = accepted(0.0, lambda value: 0 <= value < 1, "give a share below 1.")
    seed: int = at_least(-1, -1, fix="give at least 0, or -1 for train.seed.")
    pixels: str = one_of("auto", "files")
    decoder: str = one_of(AUTO, *DECODERS)
    device_images: str = one_of("auto", "on", "off")
    memory_mb: int = at_least(0, 2048)
    shuffle_buffer: int = at_least(1, 4096)
    workers: int = at_least(
        -1, -1, fix="give at least 0, or -1: by the machine.", most=machine_limits.WORKERS
    )
    views: bool = False
    shared_classes: bool = False

    def __post_init__(self) -> None:
        check_fields("data", self)
        require(
            not self.views or (self.policy == "crop_flip" and self.per_image),
            f"data.views is on with data.policy={self.policy}, data.per_image={str(self.per_image).lower()}",
            "views are crops and flips, one an image: set data.policy=crop_flip and data.per_image=true.",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """The loop.

    ``precision`` auto is bfloat16 on GPUs that have it, else float16 there; on the CPU bfloat16 where the
    processor gains from it, else float32;
    ``baseline`` trains a closed-set classifier without a teacher instead; ``compile`` puts the student
    through torch.compile in one of its modes: reduce-overhead is CUDA graphs; ``head_only`` leaves the trunk
    as it is: closed-form takes the head by ridge, trained trains it on the trunk's features with AdamW.
    """

    epochs: int = at_least(1, 90)
    batch_size: int = at_least(2, 128, most=machine_limits.BATCH)
    eval_batch_size: int = at_least(1, 64, most=machine_limits.BATCH)
    seed: int = at_least(0, 0)
    device: str = "auto"
    precision: str = one_of("auto", "float32", "bfloat16", "float16")
    baseline: bool = False
    compile: str = one_of("off", "default", "reduce-overhead", "max-autotune")
    checkpoint_steps: int = at_least(1, 500)
    head_only: str = one_of("off", "closed-form", "trained")

    def __post_init__(self) -> None:
        check_fields("train", self)


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptConfig:
    """Prompt learning in place of a fixed prompt: ``none``, ``coop``, or ``cocoop``."""

    learner: str = one_of("none", "coop", "cocoop")
    n_ctx: int = at_least(1, 8, most=machine_limits.CONTEXT_TOKENS)

    def __post_init__(self) -> None:
        check_fields("prompts", self)


@dataclass(frozen=True, kw_only=True, slots=True)
class FewShotConfig:
    """Few-shot finetuning: ``shots`` images of every OOD class join the training images; 0 is off.

    ``support_seed`` draws them (-1: the first ones, sorted by key); ``start`` is the checkpoint whose
    weights the student starts from.
    """

    shots: int = at_least(0, 0, fix="give at least 1, or 0 for none.")
    support_seed: int = at_least(-1, -1, fix="give at least 0, or -1 for the first images.")
    start: str = ""

    def __post_init__(self) -> None:
        check_fields("fewshot", self)


@dataclass(frozen=True, kw_only=True, slots=True)
class RoboticsConfig:
    """What only a cache of episodes has a use for.

    ``local`` classifies every location of the last feature map and aggregates; ``negative_text`` names the
    text bank of the negative prompts; ``threshold`` is the score from which an object counts as there;
    ``gamma_neg``, ``gamma_pos`` and ``clip`` are the asymmetric loss's.
    """

    local: bool = False
    negative_text: str = "negative_labels"
    threshold: float = accepted(0.5, lambda value: 0 <= value < 1, "give a number from 0 to 1.")
    gamma_neg: float = at_least(0, 2.0)
    gamma_pos: float = at_least(0, 1.0)
    clip: float = accepted(0.05, lambda value: 0 <= value < 1, "give a number from 0 to 1.")

    def __post_init__(self) -> None:
        check_fields("robotics", self)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Everything that can change a run's result.

    ``text`` names the text bank that classifies; ``teachers`` the teachers of the cache to learn from, one
    head of the student each (``main`` is the cache's own). Whether photos or episodes are learnt from is
    for the cache to say: :func:`check_for_photos` and :func:`check_for_episodes` refuse what is not for them.
    """

    text: str = "labels"
    teachers: tuple[str, ...] = (MAIN_TEACHER,)
    student: StudentConfig = field(default_factory=StudentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    prompts: PromptConfig = field(default_factory=PromptConfig)
    fewshot: FewShotConfig = field(default_factory=FewShotConfig)
    robotics: RoboticsConfig = field(default_factory=RoboticsConfig)

    @property
    def stream_seed(self) -> int:
        """What decides the order of the images and their augmentation."""
        return self.train.seed if self.data.seed < 0 else self.data.seed

    def __post_init__(self) -> None:
        learns = self.prompts.learner != "none"
        require(
            len(self.teachers) == len(set(self.teachers)) > 0,
            f"teachers is {list(self.teachers)}",
            f'name at least one, each once: teachers=["{MAIN_TEACHER}"].',
        )
        require(
            not (learns and len(self.teachers) > 1),
            f"prompts.learner is {self.prompts.learner} with {len(self.teachers)} teachers",
            "learn prompts against one teacher.",
        )
        require(
            not (learns and self.train.baseline),
            f"prompts.learner is {self.prompts.learner} with train.baseline",
            "the closed-set baseline has no prompts: switch one of them off.",
        )
        self._check_head()
        for has, what in (
            (self.train.baseline, "train.baseline, which has no teacher"),
            (len(self.teachers) > 1, f"{len(self.teachers)} teachers"),
            (self.fewshot.shots, "few-shot images, which have no views"),
        ):
            require(not (self.data.views and has), f"data.views is on with {what}", "set data.views=false.")
        off = all(getattr(self.loss, name) == 0 for name in LOSS_TERMS)
        require(
            self.train.baseline or not off, "every loss has weight 0", "switch at least one on: loss.cls=1."
        )

    def _check_head(self) -> None:
        student, only = self.student, self.train.head_only
        by_ridge = "closed-form" in (only, student.head_start)
        asked = f"train.head_only is {only}, student.head_start {student.head_start}"
        for wrong, problem, fix in (
            (
                student.head == "mlp" and only == "closed-form",
                "train.head_only is closed-form with student.head=mlp",
                "a hidden layer has no closed form: set student.head=stages, or train.head_only=trained.",
            ),
            (
                self.train.baseline and (by_ridge or only != "off"),
                f"{asked}, with train.baseline",
                "the closed-set baseline has no teacher: switch one of them off.",
            ),
            (
                self.prompts.learner != "none" and (by_ridge or only != "off"),
                f"{asked}, with prompts.learner={self.prompts.learner}",
                "prompts are learnt with the whole student: switch one of them off.",
            ),
            (
                student.feature_noise > 0 and student.head == "linear" and only != "trained",
                f"student.feature_noise is {student.feature_noise} with student.head=linear",
                "set student.head=stages, or train the head alone: train.head_only=trained.",
            ),
        ):
            require(not wrong, problem, fix)


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
    for name in ("vlalign", "cap", "mse_raw"):
        require(
            not getattr(config.loss, name),
            f"loss.{name} is on, but episodes are trained with cls, mse and im_cst",
            f"set loss.{name}=0.",
        )
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
