"""The whole of a run as one frozen value: what is not in here cannot change a result.

How it is read from TOML and changed by name: :mod:`distill.settings`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cache.runtime import machine_limits
from cache.sources.splits import MAIN_TEACHER
from distill.config_checks import check_together
from distill.config_data import DataConfig
from distill.config_fields import accepted, at_least, check_fields, one_of, require

SCRATCH, PRETRAINED = "scratch", "pretrained"
# The side of the paper's centre crop by that of the whole picture.
PAPER_CROP = 224 / 256
HEADS = ("linear", "stages", "mlp")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentConfig:
    """The student: its network, its first weights, its input size in pixels, its head.

    ``arch`` is a torchvision or timm name, ``hf-hub:ORG/NAME``, or ``FILE.py:NAME`` for a function of one's
    own; ``start`` is scratch, pretrained (the library's own weights) or a file of weights; ``kwargs`` are
    ``key=value`` arguments of the network, values as in TOML. It is judged at ``eval_size`` pixels (0:
    ``image_size``), the middle ``eval_crop`` of the side of the whole picture. Its trunk, all but the last
    layer, is not trained in the first ``freeze_epochs``; with ``freeze_batch_norm`` the trunk's batch norms
    keep the statistics that they began with. ``head`` linear is the model's own last layer, stages reads mean
    and deviation of every stage of the trunk, mlp puts a hidden layer of ``hidden`` on those. ``head_start``
    closed-form begins with the ridge from the trunk's features to the teacher's rows, of lambda ``ridge`` (0:
    chosen on class_val, else id_val, else by the cosine on a tenth of the images held out).
    ``feature_noise`` is gaussian, on standardised features, in units of their deviation.
    """

    arch: str = "resnet18"
    start: str = SCRATCH
    kwargs: tuple[str, ...] = ()
    image_size: int = at_least(8, 224, fix="give at least 8 pixels.", most=machine_limits.IMAGE_SIDE)
    eval_size: int = accepted(
        0,
        lambda value: value == 0 or value >= 8,
        "give at least 8 pixels, or 0 for student.image_size.",
        most=machine_limits.IMAGE_SIDE,
    )
    eval_crop: float = accepted(PAPER_CROP, lambda value: 0.25 <= value <= 1, "give a share from 0.25 to 1.")
    freeze_epochs: int = at_least(0, 0)
    freeze_batch_norm: bool = False
    head: str = one_of(*HEADS)
    hidden: int = at_least(1, 1024, most=machine_limits.BATCH)
    head_start: str = one_of("random", "closed-form")
    ridge: float = at_least(0, 0.0, fix="give a number above 0, or 0: chosen.")
    feature_noise: float = at_least(0, 0.0)

    def __post_init__(self) -> None:
        check_fields("student", self)
        require(bool(self.start), "student.start is ''", "give scratch, pretrained or a file of weights.")
        require(
            self.head != "mlp" or self.head_start == "random",
            "student.head_start is closed-form with student.head=mlp",
            "a hidden layer has no closed form: set student.head=stages, or student.head_start=random.",
        )
        for argument in self.kwargs:
            name, separator, _ = argument.partition("=")
            require(
                bool(separator) and name.isidentifier(),
                f"student.kwargs has {argument!r:.80}",
                'write key=value: student.kwargs=["drop_path_rate=0.1"].',
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """How much each loss counts (0 leaves it out), and what they share.

    ``cls`` is the cross-entropy with the class texts; ``mse`` the squared distance from the teacher's
    unit row, ``mse_raw`` from its row as it is; ``im_cst`` finds an image's row among the batch's;
    ``im_cst_bidirectional`` and the image of a row; ``vlalign`` compares the student's and the teacher's
    distributions over the ``vlalign_k`` texts nearest to the teacher's row; ``vlalign_filter`` leaves out
    images that the teacher gets wrong; ``cap`` finds an image's caption among the batch's.

    ``temperature`` is cls's, and im_cst's and vlalign's where ``im_cst_temperature`` or
    ``vlalign_temperature`` is 0. ``vlalign_standardize`` compares logits of mean 0 and deviation 1 over
    an image's texts (logit standardisation, arXiv 2403.01427), at vlalign_temperature, or 1.
    ``im_cst_bank`` is how many cached rows im_cst has as further negatives, -1 is all. ``center`` takes
    from the teacher's rows and texts their means over what is trained on.

    ``standardise`` phi-s divides every teacher's squared distances in mse and mse_raw by the variance of its
    rows, which is all that the map of :mod:`distill.student.phi_s` does to them: teachers count alike, and
    the student's rows stay in each one's own space. ``teacher_confidence`` weighs all but cls of several
    teachers by how sure each is of an image's label: :func:`distill.losses.teacher_weights`.
    """

    cls: float = 1.0
    mse: float = 0.0
    mse_raw: float = 0.0
    im_cst: float = 0.0
    vlalign: float = 0.0
    cap: float = 0.0
    vlalign_k: int = at_least(1, 256)
    vlalign_filter: bool = False
    im_cst_bidirectional: bool = True
    im_cst_bank: int = at_least(-1, 0, fix="give at least 0, or -1 for all.")
    center: bool = False
    standardise: str = one_of("none", "phi-s")
    teacher_confidence: bool = False
    vlalign_standardize: bool = False
    temperature: float = accepted(0.07, lambda value: value > 0, "give a number above 0.")
    im_cst_temperature: float = at_least(0, 0.0, fix="give a number above 0, or 0 for loss.temperature.")
    vlalign_temperature: float = at_least(0, 0.0, fix="give a number above 0, or 0 for loss.temperature.")

    def __post_init__(self) -> None:
        for name in LOSS_TERMS:
            weight = getattr(self, name)
            require(
                0 <= weight < float("inf"),
                f"loss.{name} is {weight}, but a weight is a number of at least 0",
                f"use 0 to leave {name} out.",
            )
        check_fields("loss", self)
        require(
            self.standardise == "none" or self.mse > 0 or self.mse_raw > 0,
            f"loss.standardise is {self.standardise} with loss.mse=0 and loss.mse_raw=0, which alone take it",
            "set loss.mse=1, or loss.standardise=none.",
        )

    @property
    def is_off(self) -> bool:
        """Whether no loss counts."""
        return not any(getattr(self, name) for name in LOSS_TERMS)


LOSS_TERMS = ("cls", "mse", "mse_raw", "im_cst", "vlalign", "cap")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """The optimiser and its learning rate over the run.

    ``schedule`` is a function of the share of the run that is done, by step, or ``schedule_by`` epoch as in
    the paper, where an epoch has one rate; ``milestones`` are shares of the run at which ``step`` multiplies
    the rate by ``gamma``; ``warmup`` is the share of the run in which the rate goes from 0 to ``lr``.

    ``name`` is sgd, adamw or one of timm's optimisers; ``momentum`` is sgd's; ``weight_decay`` pulls
    weights to zero. A layer has ``layer_decay`` times the rate of the one above it, the trunk
    ``trunk_scale`` times the head's; with ``decay_all`` weight decay is on norms and biases too. A
    gradient longer than ``clip_norm`` is cut to it (0: none is); the optimiser takes a step every
    ``accumulate`` batches, and after an epoch's last.

    ``ema`` is the decay of a moving average of the weights, judged beside them (0: none; 0.999), and
    ``average_with_start`` the share that the first weights have in a mean with the last ones, which is judged
    at the end (0: none; 0.5 is the middle).
    """

    name: str = "sgd"
    lr: float = accepted(0.05, lambda value: value > 0, "give a number above 0.")
    momentum: float = accepted(0.9, lambda value: 0 <= value < 1, "give a number from 0 to 1.")
    weight_decay: float = at_least(0, 1e-4)
    schedule: str = one_of("step", "onecycle", "cosine", "constant")
    schedule_by: str = one_of("step", "epoch")
    milestones: tuple[float, ...] = accepted(
        (1 / 3, 2 / 3),
        lambda shares: all(0 < share < 1 for share in shares),
        "give shares of the run, between 0 and 1: optim.milestones=[0.33,0.67].",
    )
    gamma: float = at_least(0, 0.1)
    warmup: float = accepted(0.0, lambda share: 0 <= share < 1, "give a share of the run, below 1.")
    decay_all: bool = False
    layer_decay: float = accepted(
        1.0, lambda value: 0 < value <= 1, "give a share up to 1: 0.75, or 1 for none."
    )
    trunk_scale: float = accepted(1.0, lambda value: value > 0, "give a number above 0, 1 for one rate.")
    clip_norm: float = at_least(0, 0.0, fix="give a length above 0, or 0 for none.")
    accumulate: int = at_least(1, 1, most=machine_limits.BATCH)
    ema: float = accepted(
        0.0, lambda decay: 0 <= decay < 1, "give a decay below 1, such as 0.999, or 0 for none."
    )
    average_with_start: float = accepted(
        0.0,
        lambda share: 0 <= share < 1,
        "give the share of the first weights, 0.5 for the middle, or 0 for none.",
    )

    def __post_init__(self) -> None:
        check_fields("optim", self)
        require(
            not (self.warmup and self.schedule == "onecycle"),
            f"optim.warmup is {self.warmup} with optim.schedule=onecycle, which has a warm-up of its own",
            "set optim.warmup=0, or optim.schedule=cosine.",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """The loop.

    ``eval_batch_size`` is how many images are judged at once; ``checkpoint_steps`` after how many steps
    within an epoch the run is saved;
    ``precision`` auto is bfloat16 on GPUs that have it, else float16 there, on the CPU bfloat16 where the
    processor gains from it, else float32;
    ``closed_set`` trains a closed-set classifier without a teacher instead; ``compile`` puts the student
    through torch.compile in one of its modes: reduce-overhead is CUDA graphs; ``head_only`` leaves the trunk
    as it is: closed-form takes the head by ridge, trained trains ``heads`` on its features with AdamW.
    """

    epochs: int = at_least(1, 90, most=machine_limits.EPOCHS)
    batch_size: int = at_least(2, 128, most=machine_limits.BATCH)
    eval_batch_size: int = at_least(1, 64, most=machine_limits.BATCH)
    seed: int = at_least(0, 0)
    device: str = "auto"
    precision: str = one_of("auto", "float32", "bfloat16", "float16")
    closed_set: bool = False
    compile: str = one_of("off", "default", "reduce-overhead", "max-autotune")
    checkpoint_steps: int = at_least(1, 500)
    head_only: str = one_of("off", "closed-form", "trained")
    heads: int = at_least(1, 1, most=machine_limits.BATCH)

    def __post_init__(self) -> None:
        check_fields("train", self)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """When a student is judged while it trains, and on how much.

    ``every`` so many epochs, and after the last; 0 is after the last alone. ``space_images`` is how many
    images of a split, drawn from more, the space metrics compare: their time grows with the square. With
    ``choose`` the trained student's size and crop are chosen on what is set aside, id_val or class_val.
    """

    every: int = at_least(0, 1, fix="give at least 1 epoch, or 0 for the last alone.")
    space_images: int = at_least(3, 4096)
    choose: bool = False

    def __post_init__(self) -> None:
        check_fields("eval", self)


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptConfig:
    """Prompt learning in place of a fixed prompt.

    ``learner`` is none, coop, or cocoop; ``n_ctx`` how many context vectors are before the class name.
    """

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
    for the cache to say: :mod:`distill.config_checks` refuses what is not for them.
    """

    text: str = "labels"
    teachers: tuple[str, ...] = (MAIN_TEACHER,)
    student: StudentConfig = field(default_factory=StudentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    prompts: PromptConfig = field(default_factory=PromptConfig)
    fewshot: FewShotConfig = field(default_factory=FewShotConfig)
    robotics: RoboticsConfig = field(default_factory=RoboticsConfig)

    @property
    def stream_seed(self) -> int:
        """What decides the order of the images and their augmentation."""
        return self.train.seed if self.data.seed < 0 else self.data.seed

    def __post_init__(self) -> None:
        check_together(self)
