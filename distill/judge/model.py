"""A student of photos or of episodes, opened by what its cache holds, and asked about a split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cache import EmbeddingCache
from cache.runtime.errors import UserError
from cache.runtime.progress import Progress, Silent
from cache.runtime.transfer import to_device
from cache.sources.samples import DataFolder, labels_of
from cache.sources.splits import MEAN
from distill.config import RunConfig
from distill.data.stream import EvalSplit, augment_of
from distill.judge.evaluate import Result, evaluate
from distill.judge.space_of_split import cosines_of_split
from distill.precision import amp_dtype_of, amp_dtype_of_trained
from distill.robotics.metrics import EpisodeResult, judge_objects
from distill.robotics.model import EpisodeModel
from distill.student.build import NEW, Origin, made_of
from distill.student.classifier import AllClasses
from distill.student.heads import classifiers_for
from distill.student.photo_model import PhotoModel

Model = PhotoModel | EpisodeModel
"""A student and everything it takes to train and to judge it: of photos, or of episodes."""


def open_model(
    config: RunConfig,
    cache: EmbeddingCache,
    folder: DataFolder,
    device: torch.device,
    *,
    class_names: tuple[str, ...],
    starting: bool,
    origin: Origin = NEW,
) -> Model:
    """Return a student that learns ``class_names`` from a cache.

    One that is ``starting`` has its first weights, which the seed decides; else, or where ``origin`` says how
    it was made before, they are yet to be loaded.
    UserError if the config asks for what the cache or the student cannot do, or a class has no text.
    """
    model: type[PhotoModel] | type[EpisodeModel] = EpisodeModel if cache.holds_episodes else PhotoModel
    augment = augment_of(config, cache)
    heads = model.open_heads(config, cache, device)
    if starting:
        for head in (head for head in heads if head.has_texts):  # a bank without a text for a class
            head.classifier(class_names, temperature=config.loss.temperature)
        torch.manual_seed(config.train.seed)
    student = model.build(config, cache, folder, heads, starting=starting, origin=origin)
    precision = amp_dtype_of if starting else amp_dtype_of_trained
    # Of a frozen trunk features are made once; a head by ridge lives on their small differences.
    in_float32 = config.train.head_only != "off"
    return model(
        config=config,
        cache=cache,
        folder=folder,
        device=device,
        augment=replace(augment, normalisation=made_of(student).normalisation),  # type: ignore[arg-type]
        class_names=class_names,
        heads=heads,
        student=student.to(device),  # type: ignore[arg-type]
        amp_dtype=None if in_float32 else precision(config.train.precision, device),
    )


def fingerprint(model: Model) -> str:
    """Return the name of what a model's student learns from: the fingerprint of every teacher's rows."""
    return "+".join(head.cache.fingerprint for head in model.heads) or model.cache.fingerprint


def learner_of(model: Model) -> nn.Module | None:
    """Return a model's prompt learner, where there is one."""
    return next((head.texts.learner for head in model.heads if head.texts.learner is not None), None)


def weights_of(model: Model) -> dict[str, Any]:
    """Return the weights of a student and its prompt learner, and the means of its space, as saved."""
    learner = learner_of(model)
    return {
        "student": model.student.state_dict(),
        "prompts": learner.state_dict() if learner is not None else {},
        "centres": {head.name: head.centre.state_dict() for head in model.heads if head.centre is not None},
    }


def load_weights(model: Model, state: dict[str, Any]) -> None:
    """Load what :func:`weights_of` gives; RuntimeError where it does not fit."""
    model.student.load_state_dict(state["student"])
    for head in model.heads:
        if head.centre is not None:
            head.centre.load_state_dict(state["centres"].get(head.name, {}))
    learner = learner_of(model)
    if learner is not None:
        learner.load_state_dict(state["prompts"])


def result_names(model: Model, splits: Iterable[str]) -> list[str]:
    """Return what results of some splits are called: SPLIT, and of more heads SPLIT@TEACHER, SPLIT@mean."""
    endings = ["", *(f"@{head.name}" for head in model.heads[1:])]
    endings += [f"@{MEAN}"] if sum(head.has_texts for head in model.heads) > 1 else []
    return [f"{split}{ending}" for split in splits for ending in endings]


@torch.no_grad()
def outputs_of(
    model: Model, split: EvalSplit, progress: Progress | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a student's (outputs [B, ...] float32, labels) of a split's images in their order."""
    progress = progress or Silent()
    labels = labels_of(split.pixels.samples, split.class_names, multi_label=model.cache.holds_episodes)
    size, order = model.config.train.eval_batch_size, np.arange(len(labels))
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    forward, was_training = model.forward(split.class_names), model.student.training
    progress.start(len(order), f"judging {split.name}", model.unit)
    model.student.eval()
    try:
        for indices, images in split.pixels.batches(batches):
            if len(indices):
                # A copy: a student compiled to CUDA graphs writes its next outputs over these.
                outputs = forward(to_device(images, model.device)).to(torch.float32, copy=True)
                yield outputs, torch.from_numpy(labels[indices])
                progress.advance(len(indices))
    finally:
        model.student.train(was_training)


def whole_outputs(model: Model, split: EvalSplit, progress: Progress | None = None) -> tuple[Tensor, Tensor]:
    """Return the outputs [N, ...] and the labels [N] of all of a split's readable images, on the CPU."""
    rows, labels = zip(*outputs_of(model, split, progress), strict=True)
    return torch.cat([part.cpu() for part in rows]), torch.cat(labels)


def judged(
    model: Model,
    outputs: Iterable[tuple[Tensor, Tensor]],
    split: EvalSplit,
    *,
    among: AllClasses | None = None,
) -> dict[str, Result]:
    """Judge a student's outputs on a split, by the texts as they are now: every head, and their mean.

    Photos are judged among the split's classes, and where ``among`` is given among all of the data; by a
    teacher without texts its embeddings, where it has rows. UserError if no image could be read.
    """
    if isinstance(model, EpisodeModel):
        return {split.name: judged_objects(model, list(outputs), split)}
    names = among.names if among is not None else split.class_names
    classifiers = classifiers_for(model.config, model.heads, model.folder.class_names, names)
    kept = list(outputs)
    results: dict[str, Result] = {
        f"{split.name}{ending}": evaluate(
            [(rows[:, columns], labels) for rows, labels in kept],
            classifier,
            split=f"{split.name}{ending}",
            class_names=split.class_names,
            among=among,
            unreadable=split.pixels.unreadable,
        )
        for ending, columns, classifier in classifiers
    }
    for i, head in enumerate(model.heads if kept else ()):
        name = f"{split.name}@{head.name}" if i else split.name
        if not head.has_texts:
            rows = torch.cat([head.embed(rows) for rows, _ in kept])
            if (result := cosines_of_split(head, rows, split, name=name)) is not None:
                results[name] = result
    return results


@torch.no_grad()
def judged_objects(
    model: EpisodeModel, outputs: list[tuple[Tensor, Tensor]], split: EvalSplit
) -> EpisodeResult:
    """Judge (rows, labels [B, K]) of a split's episodes, whose last K columns are the objects' margins."""
    if not outputs:
        raise UserError(f"no episode of {split.name} could be read", fix="check the HDF5 file.")
    result = judge_objects(
        torch.cat([rows[:, -len(split.class_names) :].cpu() for rows, _ in outputs]),
        torch.cat([labels for _, labels in outputs]),
        score_bias=model.student.score_bias.cpu(),
        split=split.name,
        class_names=split.class_names,
        id_objects=model.folder.split("train").classes,
        threshold=model.config.robotics.threshold,
    )
    return replace(result, unreadable=dict(split.pixels.unreadable))
