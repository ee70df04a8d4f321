"""The class sets of a run: every text bank of its teacher's cache, and the prompts that it learnt."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch

from cache import EmbeddingCache
from cache.runtime.errors import UserError
from cache.sources.episode_texts import NEGATIVE
from cache.store.text_banks import TextBank, words_of_labels
from distill.config import RunConfig
from distill.deploy.class_sets import ClassSet, unit
from distill.judge.trained_run import TrainedRun
from distill.student.heads import Head

LEARNT = "learnt"


def class_sets_of(trained: TrainedRun, head: Head) -> tuple[dict[str, ClassSet], str]:
    """Return a model's text banks by name, and the name of the one that the run classifies by."""
    cache = head.cache
    labels = labels_of(cache)
    banks = {name: _class_set(cache.text_bank(name), labels, head) for name in cache.bank_names}
    if trained.config.prompts.learner == "none":
        return banks, trained.config.text
    names = tuple(banks[trained.config.text].classes)
    with torch.no_grad():
        rows = head.class_texts(names, torch.empty(0)).cpu().numpy()
    # Of objects in episodes there are two texts, [2, C, D].
    learnt = {LEARNT: rows} if rows.ndim == 2 else {LEARNT: rows[0], NEGATIVE + LEARNT: rows[1]}
    for bank, of_bank in learnt.items():
        banks[bank] = ClassSet(
            labels=tuple(labels.get(name, words_of(name)) for name in names),
            classes=names,
            texts=tuple(f"[{bank.replace('_', ' ')}] {name}" for name in names),
            embeddings=unit(of_bank),
        )
    return banks, LEARNT


def negatives_of(banks: Collection[str], config: RunConfig) -> dict[str, str]:
    """Return the bank of the negative texts of every bank of positive ones; the run has chosen its own."""
    pairs = {name: NEGATIVE + name for name in banks if NEGATIVE + name in banks}
    if config.prompts.learner == "none":
        pairs[config.text] = config.robotics.negative_text
    return pairs


def labels_of(cache: EmbeddingCache) -> dict[str, str]:
    """Return what people call each class folder: the words in its label text, where a template made it."""
    if "labels" not in cache.bank_names:
        return {}
    return words_of_labels(cache.text_bank("labels"), cache.listed_bank("labels").templates)


def words_of(folder: str) -> str:
    """Return a class folder's name as words."""
    return " ".join(folder.replace("_", " ").split())


def _class_set(bank: TextBank, labels: dict[str, str], head: Head) -> ClassSet:
    free = np.flatnonzero(bank.class_index < 0)
    names = bank.class_folders
    rows = [bank.class_texts(names), bank.embeddings[free]] if names else [bank.embeddings[free]]
    first = dict(reversed(list(zip(bank.class_index.tolist(), bank.texts, strict=True))))
    if not names and not len(free):
        raise UserError(f"the text bank {bank.name!r} is empty", fix="make the cache again.")
    texts = [bank.texts[i] for i in free]
    return ClassSet(
        labels=(*(labels.get(name, words_of(name)) for name in names), *texts),
        classes=(*names, *("" for _ in texts)),
        texts=(*(first[i] for i in range(len(names))), *texts),
        embeddings=unit(head.texts_in_its_space(torch.from_numpy(np.concatenate(rows))).cpu().numpy()),
    )
