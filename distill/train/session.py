"""Everything a run needs, made once: data, texts, student, optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cache import EmbeddingCache
from cache.runtime.devices import check_compiler
from cache.runtime.distributed import current_ranks
from cache.runtime.errors import CacheMismatch, UserError
from cache.sources.image_folder import ImageFolder
from cache.sources.samples import RecordFolder
from distill.checkpoint import read_checkpoint, weights_digest
from distill.config import RunConfig, require
from distill.data.augment import TrainAugment
from distill.data.crop_views import open_views
from distill.data.stream import EvalSplit, Stream
from distill.data.training_data import TeacherRows, TrainingData, teacher_rows
from distill.data_identity import DataIdentity
from distill.precision import amp_dtype_of, autocast
from distill.student.build import build_student, family
from distill.student.classifier import AllClasses, closed_set_columns
from distill.student.heads import Head, fingerprint_of, learner_of, open_heads, output_size
from distill.train.distributed import share_batch_norms
from distill.train.optim import build_optimizer


@dataclass(frozen=True, kw_only=True)
class TrainingSession:
    """The parts of one run that every task has.

    ``fingerprint`` names the teacher that the student learns from, ``identity`` the data, ``start`` the
    weights that a few-shot run begins with ('' else); ``learner`` is where prompts are learnt; ``columns``
    are the closed-set baseline's outputs of the training classes.
    """

    config: RunConfig
    cache: EmbeddingCache
    folder: RecordFolder
    fingerprint: str
    identity: DataIdentity
    start: str
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
        return autocast(self.amp_dtype, self.device)


@dataclass(frozen=True, kw_only=True)
class Session(TrainingSession):
    """The parts of a run on an image folder. ``heads`` has one for every teacher, none for the baseline."""

    folder: ImageFolder
    heads: tuple[Head, ...]
    augment: TrainAugment

    @property
    def judged(self) -> tuple[str, ...]:
        """The names that results have: of every split, and with more heads of SPLIT@TEACHER."""
        more = [f"@{head.name}" for head in self.heads[1:]]
        return tuple(f"{split}{ending}" for split in self.evals for ending in ("", *more))

    @property
    def all_classes(self) -> AllClasses:
        """Every class of the data, ID then OOD."""
        return AllClasses.of(self.folder.splits)


def open_session(config: RunConfig, *, cache_dir: Path, data_dir: Path) -> Session:
    """Make the parts of a run.

    Raises
    ------
    UserError
        If the cache, the data and the config do not fit each other.
    """
    return session_of(config, Stream.open(config, cache_dir=cache_dir, data_dir=data_dir))


def session_of(config: RunConfig, stream: Stream) -> Session:
    """Make the parts of a run that takes a stream of images."""
    cache, folder, device = stream.cache, stream.folder, stream.device
    heads = open_heads(config, cache, device)
    class_names = stream.images.rows.class_names
    for head in heads:  # a bank without a text for one of the classes is found before anything is decoded
        head.classifier(class_names, temperature=config.loss.temperature)
    teachers = tuple(_teacher_rows(config, head, stream) for head in heads)
    learner = learner_of(heads)
    student, optimizer = new_student(config, cache, folder, device, heads, learner)
    amp_dtype = amp_dtype_of(config.train.precision, device)
    start = Path(config.fewshot.start) if config.fewshot.start else None
    return Session(
        config=config,
        cache=cache,
        folder=folder,
        fingerprint=fingerprint_of(cache, heads),
        identity=stream.identities.of(config),
        start=weights_digest(start) if start else "",
        device=device,
        data=TrainingData(joined=stream.images, pixels=stream.pixels, teachers=teachers),
        class_names=class_names,
        heads=heads,
        learner=learner,
        columns=_label_columns(config, folder.class_names, class_names, device),
        evals=stream.evals,
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


def _teacher_rows(config: RunConfig, head: Head, stream: Stream) -> TeacherRows:
    learns = config.prompts.learner != "none"
    joined = stream.joined[head.name]
    return teacher_rows(
        head.cache,
        joined,
        config.loss,
        text=config.text,
        learnt_text=learns,
        views=open_views(head.cache, joined.images, config.data),
    )


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
    """Make a student ready to be trained as the config says, and by several processes.

    Raises
    ------
    UserError
        If a batch has fewer images than there are processes, or there is nothing to compile with.
    """
    if config.train.compile != "off":
        check_compiler(device)
    world = current_ranks().world
    require(
        config.train.batch_size >= world,
        f"train.batch_size is {config.train.batch_size}, but {world} processes share a batch",
        "give a larger batch, or torchrun fewer processes.",
    )
    share_batch_norms(student, device)
    if config.train.compile != "off":
        student.compile(mode=config.train.compile)


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


def _label_columns(
    config: RunConfig, all_classes: tuple[str, ...], class_names: tuple[str, ...], device: torch.device
) -> Tensor | None:
    if not config.train.baseline:
        return None
    return torch.tensor(closed_set_columns(all_classes, class_names), device=device)
