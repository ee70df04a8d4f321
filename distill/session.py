"""Everything a run needs, made once: data, texts, student, optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cache import EmbeddingCache
from cache.devices import choose_device
from cache.errors import CacheMismatch, UserError
from cache.images import ImageFolder
from cache.records import Record
from distill.augment import TrainAugment
from distill.checkpoint import read_checkpoint
from distill.classifier import Classifier, ClosedSetClassifier, closed_set_columns
from distill.config import RunConfig
from distill.data import TeacherRows, TrainingData, TrainingRows, join_training_rows, teacher_rows
from distill.distributed import share_batch_norms
from distill.fewshot import join_support, query_of, support_of
from distill.heads import Head, fingerprint_of, learner_of, open_heads
from distill.images_of_run import PixelMaker, device_for_images
from distill.optim import build_optimizer
from distill.pixels import Pixels
from distill.space_run import ROWS_OF
from distill.students import build_student, family
from distill.views import open_views


@dataclass(frozen=True, kw_only=True)
class EvalSplit:
    """A split to judge the student on: its images and its classes."""

    name: str
    pixels: Pixels
    class_names: tuple[str, ...]


class DataFolder(Protocol):
    """Where the images of a run are, and every class of every split."""

    @property
    def path(self) -> Path:
        """The folder."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """Every class of every split, once."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrainingSession:
    """The parts of one run that every task has.

    ``fingerprint`` names what the student learns from; ``learner`` is where prompts are learnt; ``columns``
    are the closed-set baseline's outputs of the training classes.
    """

    config: RunConfig
    cache: EmbeddingCache
    folder: DataFolder
    fingerprint: str
    device: torch.device
    data: TrainingData
    class_names: tuple[str, ...]
    learner: nn.Module | None
    columns: Tensor | None
    evals: dict[str, EvalSplit]
    student: nn.Module
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    amp_dtype: torch.dtype | None

    @property
    def judged(self) -> tuple[str, ...]:
        """The names that results have: of every split."""
        return tuple(self.evals)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context the student computes in."""
        if self.amp_dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.amp_dtype)


@dataclass(frozen=True, kw_only=True)
class Session(TrainingSession):
    """The parts of a run on an image folder. ``heads`` has one for every teacher, none for the baseline."""

    heads: tuple[Head, ...]
    augment: TrainAugment

    @property
    def judged(self) -> tuple[str, ...]:
        """The names that results have: of every split, and with more heads of SPLIT@TEACHER."""
        more = [f"@{head.name}" for head in self.heads[1:]]
        return tuple(f"{split}{ending}" for split in self.evals for ending in ("", *more))


def open_session(config: RunConfig, *, cache_dir: Path, data_dir: Path) -> Session:
    """Make the parts of a run.

    Raises
    ------
    UserError
        If the cache, the data and the config do not fit each other.
    """
    cache, folder = EmbeddingCache.open(cache_dir), ImageFolder.scan(data_dir)
    device = choose_device(config.train.device)
    heads = open_heads(config, cache, device)
    support = support_of(cache, folder.split("ood_test"), config.fewshot) if config.fewshot.shots else []
    joined, teachers = _join(config, cache, folder, heads, support)
    class_names = joined.rows.class_names
    for head in heads:  # a bank without a text for one of the classes is found before anything is decoded
        head.classifier(class_names, temperature=config.loss.temperature)
    judged = splits_to_judge(folder, joined.id_val, support)
    count = len(joined.images) + sum(len(records) for _, records, _ in judged)
    make = PixelMaker(config=config, cache=cache, device=device_for_images(config, device, count))
    pixels = make(joined.images, ("train", "ood_test") if support else ("train",), strict=True)
    evals = {
        name: EvalSplit(name=name, pixels=make(records, (ROWS_OF.get(name, name),)), class_names=names)
        for name, records, names in judged
    }
    learner = learner_of(heads)
    student, optimizer = new_student(config, cache, folder, device, heads, learner)
    amp_dtype = amp_dtype_of(config.train.precision, device)
    return Session(
        config=config,
        cache=cache,
        folder=folder,
        fingerprint=fingerprint_of(cache, heads),
        device=device,
        data=TrainingData(joined=joined, pixels=pixels, teachers=teachers),
        class_names=class_names,
        heads=heads,
        learner=learner,
        columns=_label_columns(config, folder.class_names, class_names, device),
        evals=evals,
        student=student,
        optimizer=optimizer,
        scaler=torch.amp.GradScaler(device.type, enabled=amp_dtype is torch.float16),
        augment=TrainAugment(
            image_size=config.student.image_size,
            policy=config.data.policy,
            per_image=config.data.per_image,
            scale=(config.data.scale_min, 1.0),
        ),
        amp_dtype=amp_dtype,
    )


def _join(
    config: RunConfig,
    cache: EmbeddingCache,
    folder: ImageFolder,
    heads: Sequence[Head],
    support: Sequence[str],
) -> tuple[TrainingRows, tuple[TeacherRows, ...]]:
    """Return the training images, and what every teacher says of them."""
    found = []
    for own in [head.cache for head in heads] or [cache]:
        joined = join_training_rows(own, folder, id_val=config.data.id_val)
        found.append(join_support(joined, own, folder, support) if support else joined)
    for head, joined in zip(heads, found, strict=False):
        if joined.images != found[0].images:
            raise CacheMismatch(
                f"the teachers {heads[0].name} and {head.name} of {cache.path} have rows of other images",
                fix=f"run cache-features again for both, last with --teacher {head.name}.",
            )
    learns = config.prompts.learner != "none"
    teachers = (
        teacher_rows(
            head.cache,
            joined,
            config.loss,
            text=config.text,
            learnt_text=learns,
            views=open_views(head.cache, joined.images, config.data),
        )
        for head, joined in zip(heads, found, strict=False)
    )
    return found[0], tuple(teachers)


def splits_to_judge(
    folder: ImageFolder, id_val: tuple[Record, ...], support: Sequence[str]
) -> list[tuple[str, tuple[Record, ...], tuple[str, ...]]]:
    """Return (name, images, class names) of every split that is not trained on; id_val first.

    With a support, the OOD images less the support are ``ood_query``.
    """
    found = [split for name, split in folder.splits.items() if name != "train"]
    if support:
        found = [query_of(split, support) if split.name == "ood_test" else split for split in found]
    judged: list[tuple[str, tuple[Record, ...], tuple[str, ...]]] = [
        (split.name, split.images, split.class_names) for split in found
    ]
    return [("id_val", id_val, folder.split("train").class_names), *judged] if id_val else judged


def classifiers_for(
    config: RunConfig, heads: Sequence[Head], all_classes: tuple[str, ...], class_names: tuple[str, ...]
) -> list[tuple[str, slice, Classifier]]:
    """Return what classifies a student's outputs among ``class_names``: (ending, columns, classifier).

    One for every head; results of the first are called as their split, of another ``SPLIT@TEACHER``.
    """
    if config.train.baseline:
        columns = closed_set_columns(all_classes, class_names)
        return [("", slice(None), ClosedSetClassifier(columns=columns))]
    return [
        (
            f"@{head.name}" if i else "",
            slice(head.start, head.stop),
            head.classifier(class_names, temperature=config.loss.temperature),
        )
        for i, head in enumerate(heads)
    ]


def new_student(
    config: RunConfig,
    cache: EmbeddingCache,
    folder: ImageFolder,
    device: torch.device,
    heads: Sequence[Head] = (),
    learner: nn.Module | None = None,
) -> tuple[nn.Module, Optimizer]:
    """Return a new student on ``device`` and its optimiser; the seed decides the first weights.

    In few-shot finetuning the weights, and those of the prompt learner, are those of ``fewshot.start``.
    """
    torch.manual_seed(config.train.seed)
    student = build_student(
        config.student.arch,
        embed_dim=output_size(config, cache, folder.class_names, heads),
        pretrained=config.student.pretrained,
        weights=Path(config.student.weights) if config.student.weights else None,
        image_size=config.student.image_size,
    ).to(device)
    if config.fewshot.start:
        start_from(Path(config.fewshot.start), student, learner, fingerprint_of(cache, heads), device)
    if family(config.student.arch) == "cnn":
        student = student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    prepare(student, config, device)
    more = [learner] if learner is not None else []
    return student, build_optimizer(student, config.optim, *more)


def prepare(student: nn.Module, config: RunConfig, device: torch.device) -> None:
    """Make a student ready to be trained as the config says, and by several processes."""
    share_batch_norms(student, device)
    if config.train.compile:
        student.compile()


def start_from(
    path: Path, student: nn.Module, learner: nn.Module | None, fingerprint: str, device: torch.device
) -> None:
    """Put a checkpoint's weights into a student and its prompt learner.

    Raises
    ------
    UserError
        If it is of another cache or another student.
    """
    state = read_checkpoint(path, device=device)
    if state["fingerprint"] != fingerprint:
        raise CacheMismatch(
            f"{path} was trained with the cache {state['fingerprint']}, this one is {fingerprint}",
            fix="give the run's own cache.",
        )
    try:
        student.load_state_dict(state["student"])
        if learner is not None:
            learner.load_state_dict(state["prompts"])
    except RuntimeError as error:
        raise UserError(
            f"{path} is not of this student ({str(error).splitlines()[0]})",
            fix="keep the run's own student and prompts.",
        ) from error


def output_size(
    config: RunConfig, cache: EmbeddingCache, all_classes: tuple[str, ...], heads: Sequence[Head] = ()
) -> int:
    """Return D summed over the teachers, or for the closed-set baseline one output for every class."""
    if config.train.baseline:
        return len(all_classes)
    return heads[-1].stop if heads else cache.embed_dim


def _label_columns(
    config: RunConfig, all_classes: tuple[str, ...], class_names: tuple[str, ...], device: torch.device
) -> Tensor | None:
    if not config.train.baseline:
        return None
    return torch.tensor(closed_set_columns(all_classes, class_names), device=device)


def amp_dtype_of(precision: str, device: torch.device) -> torch.dtype | None:
    """Return what ``train.precision`` computes in on a device; None is float32 throughout."""
    if precision == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if precision == "float16" and device.type == "cpu":
        raise UserError("train.precision is float16 on the CPU", fix="use float32 or bfloat16 there.")
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
