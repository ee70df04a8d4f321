"""Everything a run needs, made once: data, texts, student, optimiser."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cache import EmbeddingCache
from cache.devices import choose_device
from cache.errors import UserError
from cache.images import ImageFolder, ImageRecord
from distill.augment import TrainAugment, resize_size
from distill.classifier import Classifier, ClosedSetClassifier, TextClassifier, closed_set_columns
from distill.config import RunConfig
from distill.data import TrainingData, join_training_rows, training_data
from distill.optim import build_optimizer
from distill.pixels import Pixels
from distill.students import build_student, family

MB = 2**20


@dataclass(frozen=True, kw_only=True)
class EvalSplit:
    """A split to judge the student on: its images, its classes, and what classifies among them."""

    name: str
    pixels: Pixels
    class_names: tuple[str, ...]
    classifier: Classifier


@dataclass(frozen=True, kw_only=True)
class Session:
    """The parts of one run. ``text`` [C, D] are the training classes' texts; None for the baseline."""

    config: RunConfig
    cache: EmbeddingCache
    folder: ImageFolder
    device: torch.device
    data: TrainingData
    class_names: tuple[str, ...]
    text: Tensor | None
    columns: Tensor | None
    evals: dict[str, EvalSplit]
    student: nn.Module
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    augment: TrainAugment
    amp_dtype: torch.dtype | None

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context the student computes in."""
        if self.amp_dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.amp_dtype)


def open_session(config: RunConfig, *, cache_dir: Path, data_dir: Path) -> Session:
    """Make the parts of a run.

    Raises
    ------
    UserError
        If the cache, the data and the config do not fit each other.
    """
    cache, folder = EmbeddingCache.open(cache_dir), ImageFolder.scan(data_dir)
    device = choose_device(config.train.device)
    text = None
    if not config.train.baseline:
        bank = cache.text_bank(config.text)
        text = torch.from_numpy(bank.class_texts(folder.split("train").class_names)).to(device)
    joined = join_training_rows(cache, folder, id_val=config.data.id_val)
    budget = config.data.memory_mb * MB
    pixels = _pixels(joined.images, config, budget, strict=True)
    budget -= pixels.kept_bytes
    data = training_data(cache, joined, pixels, config.loss, config.text)
    evals = {}
    for name, records, class_names in _splits_to_judge(folder, joined.id_val):
        split_pixels = _pixels(records, config, budget, strict=False)
        budget -= split_pixels.kept_bytes
        classifier = classifier_for(config, cache, folder.class_names, class_names)
        evals[name] = EvalSplit(
            name=name, pixels=split_pixels, class_names=class_names, classifier=classifier
        )
    class_names = folder.split("train").class_names
    student, optimizer = new_student(config, cache, folder, device)
    amp_dtype = _amp_dtype(config.train.precision, device)
    return Session(
        config=config,
        cache=cache,
        folder=folder,
        device=device,
        data=data,
        class_names=class_names,
        text=text,
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


def _splits_to_judge(
    folder: ImageFolder, id_val: tuple[ImageRecord, ...]
) -> list[tuple[str, tuple[ImageRecord, ...], tuple[str, ...]]]:
    found = [
        (name, split.images, split.class_names) for name, split in folder.splits.items() if name != "train"
    ]
    return [("id_val", id_val, folder.split("train").class_names), *found] if id_val else found


def _pixels(records: tuple[ImageRecord, ...], config: RunConfig, budget: int, *, strict: bool) -> Pixels:
    return Pixels(
        records,
        resize_size(config.student.image_size),
        memory=budget,
        workers=config.data.workers,
        strict=strict,
    )


def classifier_for(
    config: RunConfig, cache: EmbeddingCache, all_classes: tuple[str, ...], class_names: tuple[str, ...]
) -> Classifier:
    """Return what classifies a student's outputs among ``class_names``."""
    if config.train.baseline:
        return ClosedSetClassifier(columns=closed_set_columns(all_classes, class_names))
    text = torch.from_numpy(cache.text_bank(config.text).class_texts(class_names))
    return TextClassifier(text=text, temperature=config.loss.temperature)


def new_student(
    config: RunConfig, cache: EmbeddingCache, folder: ImageFolder, device: torch.device
) -> tuple[nn.Module, Optimizer]:
    """Return a new student on ``device`` and its optimiser; the seed decides the first weights."""
    torch.manual_seed(config.train.seed)
    student = build_student(
        config.student.arch,
        embed_dim=output_size(config, cache, folder.class_names),
        pretrained=config.student.pretrained,
        weights=Path(config.student.weights) if config.student.weights else None,
        image_size=config.student.image_size,
    ).to(device)
    if family(config.student.arch) == "cnn":
        student = student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return student, build_optimizer(student, config.optim)


def output_size(config: RunConfig, cache: EmbeddingCache, all_classes: tuple[str, ...]) -> int:
    """Return D, or for the closed-set baseline one output for every class of every split."""
    return len(all_classes) if config.train.baseline else cache.embed_dim


def _label_columns(
    config: RunConfig, all_classes: tuple[str, ...], class_names: tuple[str, ...], device: torch.device
) -> Tensor | None:
    if not config.train.baseline:
        return None
    return torch.tensor(closed_set_columns(all_classes, class_names), device=device)


def _amp_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    if precision == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if precision == "float16" and device.type == "cpu":
        raise UserError("train.precision is float16 on the CPU", fix="use float32 or bfloat16 there.")
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
