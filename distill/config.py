"""The whole of a run as one frozen value: what is not in here cannot change a result.

How it is read from TOML and changed by name: :mod:`distill.settings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cache.runtime import machine_limits as bounds
from cache.runtime.errors import UserError, nearest_names
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


def require_at_most(name: str, value: float, most: int) -> None:
    """Raise a UserError if a setting asks for more than a machine should be asked for."""
    require(value <= most, f"{name} is {value:,}", f"give at most {most:,}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentConfig:
    """The student: a torchvision or timm name, its weights, its input size in pixels."""

    arch: str = "resnet18"
    pretrained: bool = False
    weights: str = ""
    image_size: int = 224

    def __post_init__(self) -> None:
        require(self.image_size >= 8, f"student.image_size is {self.image_size}", "give at least 8 pixels.")
        require_at_most("student.image_size", self.image_size, bounds.IMAGE_SIDE)
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
    vlalign_k: int = 256
    vlalign_filter: bool = False
    im_cst_bidirectional: bool = True
    temperature: float = 0.07

    def __post_init__(self) -> None:
        for name in LOSS_TERMS:
            weight = getattr(self, name)
            require(
                0 <= weight < float("inf"),
                f"loss.{name} is {weight}, but a weight is a number of at least 0",
                f"use 0 to leave {name} out.",
            )
        require(self.vlalign_k >= 1, f"loss.vlalign_k is {self.vlalign_k}", "give at least 1.")
        require(self.temperature > 0, f"loss.temperature is {self.temperature}", "give a number above 0.")


LOSS_TERMS = ("cls", "mse", "mse_raw", "im_cst", "vlalign", "cap")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """The optimiser and its learning rate over the epochs (one step of the schedule an epoch)."""

    name: str = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: str = "step"
    milestones: tuple[int, ...] = (30, 60)
    gamma: float = 0.1

    def __post_init__(self) -> None:
        require_choice("optim.name", self.name, ("sgd", "adamw"))
        require_choice("optim.schedule", self.schedule, ("step", "onecycle", "cosine", "constant"))
        require(self.lr > 0, f"optim.lr is {self.lr}", "give a number above 0.")
        require(0 <= self.momentum < 1, f"optim.momentum is {self.momentum}", "give a number from 0 to 1.")
        require(self.weight_decay >= 0, f"optim.weight_decay is {self.weight_decay}", "give at least 0.")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """How training images are drawn.

    ``policy`` is crop_flip, flip, randaugment or none; ``per_image`` false draws one crop for a whole
    batch, as the original research code; ``id_val`` is the share of train set aside to choose on;
    ``seed`` decides the order and the augmentation, -1 leaves that to ``train.seed``;
    ``pixels`` auto reads the images that the cache keeps, files always decodes; ``device_images`` says
    whether decoded images are kept on the device: auto on CUDA where they fit, on, off; ``memory_mb`` is how
    much memory decoded images may take otherwise before they are decoded anew every epoch (never more than
    half of the machine's); ``workers`` are the processes that decode, -1 by the machine: all cores beside a
    GPU, else one (never more than four a core, or 16); ``views`` replays the
    crops that the cache keeps, each with the teacher's embedding of that very crop; ``shared_classes`` lets
    classes be in train and in the OOD test as well.
    """

    repeat_epochs: int = 1
    policy: str = "crop_flip"
    per_image: bool = True
    scale_min: float = 0.08
    id_val: float = 0.0
    seed: int = -1
    pixels: str = "auto"
    device_images: str = "auto"
    memory_mb: int = 2048
    workers: int = -1
    views: bool = False
    shared_classes: bool = False

    def __post_init__(self) -> None:
        require_choice("data.policy", self.policy, ("crop_flip", "flip", "randaugment", "none"))
        require_choice("data.pixels", self.pixels, ("auto", "files"))
        require_choice("data.device_images", self.device_images, ("auto", "on", "off"))
        require(self.repeat_epochs >= 1, f"data.repeat_epochs is {self.repeat_epochs}", "give at least 1.")
        require(0 < self.scale_min <= 1, f"data.scale_min is {self.scale_min}", "give a share from 0 to 1.")
        require(0 <= self.id_val < 1, f"data.id_val is {self.id_val}", "give a share below 1.")
        require(self.seed >= -1, f"data.seed is {self.seed}", "give at least 0, or -1 for train.seed.")
        require(
            self.workers >= -1, f"data.workers is {self.workers}", "give at least 0, or -1: by the machine."
        )
        require_at_most("data.workers", self.workers, bounds.WORKERS)
        require_at_most("data.repeat_epochs", self.repeat_epochs, bounds.EPOCH_REPEATS)
        require(self.memory_mb >= 0, f"data.memory_mb is {self.memory_mb}", "give at least 0.")
        require(
            not self.views or (self.policy == "crop_flip" and self.per_image),
            f"data.views is on with data.policy={self.policy}, data.per_image={str(self.per_image).lower()}",
            "views are crops and flips, one an image: set data.policy=crop_flip and data.per_image=true.",
        )


COMPILE_MODES = ("off", "default", "reduce-overhead", "max-autotune")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """The loop.

    ``precision`` auto is bfloat16 on GPUs that have it, else float16 there; on the CPU bfloat16 where the
    processor gains from it, else float32;
    ``baseline`` trains a closed-set classifier without a teacher instead; ``compile`` puts the student
    through torch.compile in one of its modes: reduce-overhead is CUDA graphs.
    """

    epochs: int = 90
    batch_size: int = 128
    eval_batch_size: int = 64
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    baseline: bool = False
    compile: str = "off"
    checkpoint_steps: int = 500

    def __post_init__(self) -> None:
        require(self.epochs >= 1, f"train.epochs is {self.epochs}", "give at least 1.")
        require(self.seed >= 0, f"train.seed is {self.seed}", "give at least 0.")
        require(self.batch_size >= 2, f"train.batch_size is {self.batch_size}", "give at least 2.")
        require(
            self.eval_batch_size >= 1, f"train.eval_batch_size is {self.eval_batch_size}", "give at least 1."
        )
        require(
            self.checkpoint_steps >= 1,
            f"train.checkpoint_steps is {self.checkpoint_steps}",
            "give at least 1.",
        )
        require_at_most("train.batch_size", self.batch_size, bounds.BATCH)
        require_at_most("train.eval_batch_size", self.eval_batch_size, bounds.BATCH)
        require_choice("train.compile", self.compile, COMPILE_MODES)
        require_choice("train.precision", self.precision, ("auto", "float32", "bfloat16", "float16"))


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptConfig:
    """Prompt learning in place of a fixed prompt: ``none``, ``coop``, or ``cocoop``."""

    learner: str = "none"
    n_ctx: int = 8

    def __post_init__(self) -> None:
        require_choice("prompts.learner", self.learner, ("none", "coop", "cocoop"))
        require(self.n_ctx >= 1, f"prompts.n_ctx is {self.n_ctx}", "give at least 1.")
        require_at_most("prompts.n_ctx", self.n_ctx, bounds.CONTEXT_TOKENS)


@dataclass(frozen=True, kw_only=True, slots=True)
class FewShotConfig:
    """Few-shot finetuning: ``shots`` images of every OOD class join the training images; 0 is off.

    ``support_seed`` draws them (-1: the first ones, sorted by key); ``start`` is the checkpoint whose
    weights the student starts from.
    """

    shots: int = 0
    support_seed: int = -1
    start: str = ""

    def __post_init__(self) -> None:
        require(self.shots >= 0, f"fewshot.shots is {self.shots}", "give at least 1, or 0 for none.")
        require(
            self.support_seed >= -1,
            f"fewshot.support_seed is {self.support_seed}",
            "give at least 0, or -1 for the first images.",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RoboticsConfig:
    """What only a cache of episodes has a use for.

    ``local`` classifies every location of the last feature map and aggregates; ``negative_text`` names the
    text bank of the negative prompts; ``threshold`` is the score from which an object counts as there;
    ``gamma_neg``, ``gamma_pos`` and ``clip`` are the asymmetric loss's.
    """

    local: bool = False
    negative_text: str = "negative_labels"
    threshold: float = 0.5
    gamma_neg: float = 2.0
    gamma_pos: float = 1.0
    clip: float = 0.05

    def __post_init__(self) -> None:
        for name in ("gamma_neg", "gamma_pos"):
            require(getattr(self, name) >= 0, f"robotics.{name} is {getattr(self, name)}", "give at least 0.")
        for name in ("threshold", "clip"):
            require(
                0 <= getattr(self, name) < 1,
                f"robotics.{name} is {getattr(self, name)}",
                "give a number from 0 to 1.",
            )


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
    require_choice("data.policy", config.data.policy, ("flip", "none"))
    require_choice("prompts.learner", config.prompts.learner, ("none", "coop"))
    require(
        config.teachers == (MAIN_TEACHER,),
        f"teachers is {list(config.teachers)}, but a cache of episodes has one",
        f'leave it at ["{MAIN_TEACHER}"].',
    )
