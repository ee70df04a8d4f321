"""What a trained student leaves for reports (:mod:`distill.judge.outputs`), and the teacher judged."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cache import EmbeddingCache
from cache.reader import SplitRows
from cache.runtime.errors import UserError
from distill.data.stream import EvalSplit
from distill.data.support import ROWS_OF
from distill.judge.evaluate import SplitResult, competing, evaluate, teacher_classifier
from distill.judge.outputs import (
    LOGITS_BYTES,
    Answers,
    EmbeddingSample,
    RunOutputs,
    SplitLogits,
    confusions,
    key_hash,
    spread_sample,
)
from distill.student.classifier import Classifier
from distill.student.heads import classifiers_for
from distill.train.session import Session

# Images whose embeddings are kept, by kind of split: 900 rows of 768 numbers are 3 MB in a run's folder.
SAMPLE = {"ood": 600, "id": 300}
PAIRS, EXAMPLES = 24, 3
SIDE, QUALITY = 72, 70
ROWS = 4096

Outputs = Mapping[str, tuple[Tensor, Tensor]]
"""A trained student's outputs [N, ...] and labels [N] on the CPU, by split, in the order of its images."""


def outputs_of_run(session: Session, outputs: Outputs) -> RunOutputs:
    """Return the first head's answers on every test split, embeddings of some images, pictures of a few.

    The logits are every head's. ``id_val`` is part of the training images and is left out.
    """
    splits = [session.evals[name] for name in outputs if name != "id_val"]
    answers = {split.name: _answers(session, split, *outputs[split.name]) for split in splits}
    pictures: dict[str, bytes] = {}
    for split in splits:
        if split.name.startswith("ood"):
            pictures |= _pictures(split, pictures_to_keep(answers[split.name]))
    return RunOutputs(
        answers=answers,
        sample=_sample(session, splits, outputs, answers),
        pictures=pictures,
        logits=_logits(session, splits, outputs),
    )


def teacher_results(session: Session) -> dict[str, SplitResult]:
    """Judge the teacher on those images of every test split that have a row in the cache, by split.

    It is judged by the run's own text bank; a split without rows, or a class without a text, leaves its
    split out.
    """
    cache, found = _teacher(session), {}
    if session.config.text not in cache.bank_names:  # a baseline has no need of one
        return {}
    bank = cache.text_bank(session.config.text)
    among = competing(session.all_classes, bank)
    for split in session.evals.values():
        rows = _rows(cache, split)
        if split.name == "id_val" or rows is None:
            continue
        with contextlib.suppress(UserError):
            found[split.name] = evaluate(
                _teacher_outputs(rows, split),
                teacher_classifier(bank, among, split.class_names),
                split=split.name,
                class_names=split.class_names,
                among=among,
            )
    return found


def _teacher(session: Session) -> EmbeddingCache:
    return session.heads[0].cache if session.heads else session.cache


def _rows(cache: EmbeddingCache, split: EvalSplit) -> SplitRows | None:
    name = ROWS_OF.get(split.name, split.name)
    return cache.split(name) if name in cache.split_names else None


def _teacher_outputs(rows: SplitRows, split: EvalSplit) -> Iterable[tuple[Tensor, Tensor]]:
    images = [image for image in split.pixels.records if image.key in rows.position]
    for start in range(0, len(images), ROWS):
        chunk = images[start : start + ROWS]
        at = np.array([rows.position[image.key] for image in chunk])
        labels = np.array([image.label for image in chunk], dtype=np.int64)
        yield torch.from_numpy(rows.embeddings[at]).float(), torch.from_numpy(labels)


def _answers(session: Session, split: EvalSplit, outputs: Tensor, labels: Tensor) -> Answers:
    found = classifiers_for(session.config, session.heads, session.folder.class_names, split.class_names)
    _, columns, classifier = found[0]
    return Answers(
        keys=tuple(_keys(split)),
        labels=labels.numpy().astype(np.int32),
        predicted=_in_batches(session, classifier, outputs[:, columns])
        .argmax(dim=1)
        .numpy()
        .astype(np.int32),
        class_names=split.class_names,
    )


def _keys(split: EvalSplit) -> list[str]:
    return [image.key for image in split.pixels.records if image.key not in split.pixels.unreadable]


def _logits(session: Session, splits: Sequence[EvalSplit], outputs: Outputs) -> dict[str, SplitLogits]:
    """Return every head's logits over all classes of the data, of as many images as may be kept."""
    among, config = session.all_classes, session.config
    heads = classifiers_for(config, session.heads, session.folder.class_names, among.names)
    most = LOGITS_BYTES // (4 * len(among.names) * len(heads) * max(1, len(splits)))
    found = {}
    for split in splits:
        rows, labels = outputs[split.name]
        keys, classes = _keys(split), [split.class_names[label] for label in labels]
        at = sorted(spread_sample(keys, classes, most=most)) if len(keys) > most else list(range(len(keys)))
        for ending, columns, classifier in heads:
            found[f"{split.name}{ending}"] = SplitLogits(
                keys=tuple(keys[i] for i in at),
                classes=tuple(classes[i] for i in at),
                class_names=among.names,
                id_classes=len(among.id_classes),
                images=len(keys),
                logits=_in_batches(session, classifier, rows[at][:, columns]).numpy(),
            )
    return found


@torch.no_grad()
def _in_batches(session: Session, classifier: Classifier, outputs: Tensor) -> Tensor:
    """Return logits on the CPU, computed in batches: prompts of the image give every image its own texts."""
    batches = outputs.split(session.config.train.eval_batch_size)
    return torch.cat([classifier(batch.to(session.device)).float().cpu() for batch in batches])


def _sample(
    session: Session, splits: Sequence[EvalSplit], outputs: Outputs, answers: Mapping[str, Answers]
) -> EmbeddingSample | None:
    if not session.heads:
        return None
    head, cache = session.heads[0], _teacher(session)
    keys: list[str] = []
    names: list[str] = []
    classes: list[str] = []
    ours: list[Tensor] = []
    theirs: list[Tensor] = []
    for split in splits:
        rows, of_split = _rows(cache, split), answers[split.name]
        if rows is None:
            continue
        known = [i for i, key in enumerate(of_split.keys) if key in rows.position]
        class_of = [of_split.class_names[of_split.labels[i]] for i in known]
        most = SAMPLE[split.name.partition("_")[0]]
        drawn = spread_sample([of_split.keys[i] for i in known], class_of, most=most)
        at = [known[i] for i in drawn]
        if not at:
            continue
        keys += [of_split.keys[i] for i in at]
        names += [split.name] * len(at)
        classes += [class_of[i] for i in drawn]
        ours.append(head.embed(outputs[split.name][0])[at])
        places = np.array([rows.position[of_split.keys[i]] for i in at])
        theirs.append(torch.from_numpy(rows.embeddings[places]))
    if not keys:
        return None
    return EmbeddingSample(
        keys=tuple(keys),
        splits=tuple(names),
        classes=tuple(classes),
        student=_unit(ours),
        teacher=_unit(theirs),
    )


def _unit(rows: Sequence[Tensor]) -> np.ndarray:
    found: np.ndarray = F.normalize(torch.cat(list(rows)).float(), dim=1).numpy().astype(np.float16)
    return found


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
    wanted, records = set(keys), split.pixels.records
    at = np.array([i for i, image in enumerate(records) if image.key in wanted], dtype=np.int64)
    found = {}
    for indices, images in split.pixels.batches([at] if len(at) else []):
        for index, image in zip(indices, images, strict=True):
            found[records[index].key] = small_jpeg(image)
    return found


def small_jpeg(image: Tensor) -> bytes:
    """Return uint8 [3, R, R] as a JPEG file of at most 72 pixels a side."""
    picture = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=QUALITY)
    return buffer.getvalue()
