"""What a trained student leaves for reports (:mod:`distill.judge.outputs`), and the teacher judged."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cache import EmbeddingCache
from cache.runtime.errors import UserError
from cache.sources.samples import labels_of
from distill.data.stream import EvalSplit
from distill.data.support import rows_of
from distill.headline import SET_ASIDE
from distill.judge.evaluate import Result
from distill.judge.model import Model
from distill.judge.outputs import (
    LOGITS_BYTES,
    Answers,
    EmbeddingSample,
    RunOutputs,
    SplitLogits,
    confusions,
    key_hash,
    shown_split,
    spread_sample,
)
from distill.judge.teachers import TeacherJudge
from distill.robotics.model import EpisodeModel
from distill.student.classifier import AllClasses, Classifier
from distill.student.heads import classifiers_for
from distill.student.photo_model import PhotoModel
from distill.train.session import Session

# Images whose embeddings are kept, by sort of split: 900 rows of 768 numbers are 3 MB in a run's folder.
SAMPLE = {"ood": 600, "id": 300}
PAIRS, EXAMPLES = 24, 3
SIDE, QUALITY = 72, 70

Outputs = Mapping[str, tuple[Tensor, Tensor]]
"""A trained student's outputs [N, ...] and labels [N] on the CPU, by split, in the order of its images."""


def outputs_of_run(session: Session, outputs: Outputs) -> RunOutputs | None:
    """Return the first head's answers on every test split, embeddings of some images, pictures of a few.

    The logits are every head's. What is set aside is of train and is left out. Of episodes
    nothing is kept: what a student says of their objects is in the summary.
    """
    if isinstance(session.model, EpisodeModel):
        return None
    model, splits = session.model, [session.splits[name] for name in outputs if name not in SET_ASIDE]
    answers = {s.name: _answers(model, s, *outputs[s.name]) for s in splits if model.has_texts}
    shown = shown_split([*answers])
    pictures = _pictures(session.splits[shown], pictures_to_keep(answers[shown])) if shown else {}
    return RunOutputs(
        answers=answers,
        sample=_sample(model, splits, outputs),
        pictures=pictures,
        logits=_logits(model, splits, outputs),
    )


def teacher_results(session: Session) -> dict[str, Result]:
    """Judge the teacher on those images of every test split that have a row in the cache, by split.

    It is judged by the run's own text banks; a split without rows, or a class without a text, leaves its
    split out.
    """
    model, results = session.model, {}
    cache, config = _teacher(model), model.config
    if config.text not in cache.bank_names:  # a baseline has no need of one
        return {}
    judge = TeacherJudge(
        cache=cache,
        classes=AllClasses.competing(model.folder.classes),
        text=config.text,
        negative_text=config.robotics.negative_text,
    )
    for split in session.splits.values():
        rows = rows_of(cache, split.name)
        if split.name in SET_ASIDE or rows is None:
            continue
        samples = split.pixels.samples
        row_of = rows.find([image.key for image in samples])
        images = [samples[i] for i in np.flatnonzero(row_of >= 0).tolist()]
        at = row_of[row_of >= 0]
        labels = labels_of(images, split.class_names, multi_label=cache.holds_episodes)
        with contextlib.suppress(UserError):
            results[split.name] = judge.judged(split.name, split.class_names, rows, at, labels)
    return results


def _teacher(model: Model) -> EmbeddingCache:
    return model.heads[0].cache if model.heads else model.cache


def _answers(model: PhotoModel, split: EvalSplit, outputs: Tensor, labels: Tensor) -> Answers:
    of_heads = classifiers_for(model.config, model.heads, model.folder.class_names, split.class_names)
    _, columns, classifier = of_heads[0]
    return Answers(
        keys=tuple(split.keys),
        labels=labels.numpy().astype(np.int32),
        predicted=_in_batches(model, classifier, outputs[:, columns]).argmax(dim=1).numpy().astype(np.int32),
        class_names=split.class_names,
    )


def _logits(model: PhotoModel, splits: Sequence[EvalSplit], outputs: Outputs) -> dict[str, SplitLogits]:
    """Return every head's logits over all classes of the data, of as many images as may be kept."""
    classifies = not model.heads or any(head.has_texts for head in model.heads)
    if not splits or not classifies:  # of a pool alone without tests there is not even a class
        return {}
    among = AllClasses.of(model.folder.classes)
    heads = classifiers_for(model.config, model.heads, model.folder.class_names, among.names)
    most = LOGITS_BYTES // (4 * len(among.names) * len(heads) * max(1, len(splits)))
    logits = {}
    for split in splits:
        rows, labels = outputs[split.name]
        keys, classes = split.keys, [split.class_names[label] for label in labels]
        at = sorted(spread_sample(keys, classes, most=most)) if len(keys) > most else list(range(len(keys)))
        for ending, columns, classifier in heads:
            logits[f"{split.name}{ending}"] = SplitLogits(
                keys=tuple(keys[i] for i in at),
                classes=tuple(classes[i] for i in at),
                class_names=among.names,
                id_classes=len(among.id_classes),
                images=len(keys),
                logits=_in_batches(model, classifier, rows[at][:, columns]).numpy(),
            )
    return logits


@torch.no_grad()
def _in_batches(model: PhotoModel, classifier: Classifier, outputs: Tensor) -> Tensor:
    """Return logits on the CPU, computed in batches: prompts of the image give every image its own texts."""
    batches = outputs.split(model.config.train.eval_batch_size)
    return torch.cat([classifier(batch.to(model.device)).float().cpu() for batch in batches])


def _sample(model: PhotoModel, splits: Sequence[EvalSplit], outputs: Outputs) -> EmbeddingSample | None:
    if not model.heads:
        return None
    head, cache = model.heads[0], _teacher(model)
    images: list[tuple[str, str, str]] = []  # key, split, class
    ours: list[Tensor] = []
    theirs: list[Tensor] = []
    for split in splits:
        rows, keys, labels = rows_of(cache, split.name), split.keys, outputs[split.name][1]
        if rows is None:
            continue
        row_of = rows.find(keys)
        with_row = np.flatnonzero(row_of >= 0).tolist()
        class_of = [split.class_names[labels[i]] for i in with_row]
        most = SAMPLE[split.name.partition("_")[0]]
        drawn = spread_sample([keys[i] for i in with_row], class_of, most=most)
        at = [with_row[i] for i in drawn]
        if at:
            images += [(keys[with_row[i]], split.name, class_of[i]) for i in drawn]
            ours.append(head.embed(outputs[split.name][0])[at])
            theirs.append(head.in_its_space(torch.from_numpy(rows.embeddings[row_of[at]])).cpu())
    if not images:
        return None
    of_images, names, classes = zip(*images, strict=True)
    return EmbeddingSample(
        keys=of_images, splits=names, classes=classes, student=_unit(ours), teacher=_unit(theirs)
    )


def _unit(rows: Sequence[Tensor]) -> np.ndarray:
    unit_rows: np.ndarray = F.normalize(torch.cat(list(rows)).float(), dim=1).numpy().astype(np.float16)
    return unit_rows


def pictures_to_keep(answers: Answers) -> list[str]:
    """Return keys of images to show: some of each confused pair, and one of the class it was taken for."""
    pairs = confusions([answers], most=PAIRS)
    wrong = [key for pair in pairs for key in pair.keys[:EXAMPLES]]
    names = {pair.predicted for pair in pairs}
    first: dict[str, str] = {}
    for label, key in sorted(
        zip(answers.labels.tolist(), answers.keys, strict=True), key=lambda image: key_hash(image[1])
    ):
        if answers.class_names[label] in names:
            first.setdefault(answers.class_names[label], key)
    return list(dict.fromkeys([*wrong, *first.values()]))


def _pictures(split: EvalSplit, keys: Sequence[str]) -> dict[str, bytes]:
    """Return small JPEG files of some images, from the pixels that the student saw."""
    wanted, samples = set(keys), split.pixels.samples
    at = np.array([i for i, image in enumerate(samples) if image.key in wanted], dtype=np.int64)
    files = {}
    for indices, images in split.pixels.batches([at] if len(at) else []):
        for index, image in zip(indices, images, strict=True):
            files[samples[index].key] = small_jpeg(image)
    return files


def small_jpeg(image: Tensor) -> bytes:
    """Return uint8 [3, R, R] as a JPEG file of at most 72 pixels a side."""
    picture = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=QUALITY)
    return buffer.getvalue()
