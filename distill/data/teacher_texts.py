"""Which texts a run's teachers have: of those that read none, what needs texts is left out or refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cache import EmbeddingCache
from distill.config import LossConfig, RunConfig
from distill.config_fields import require

DEFAULT = RunConfig().text
# Losses that compare with texts, of classes or of images.
OF_TEXTS = ("cls", "vlalign", "cap")
ADD_TEXTS = "distill cache add-texts {} --bank means --from-images"


def has_texts(config: RunConfig, teacher: EmbeddingCache) -> bool:
    """Say whether a teacher's head is compared with texts: not where it reads none, or ``text`` is ''."""
    return bool(config.text) and bool(teacher.bank_names)


def default_bank(cache: EmbeddingCache) -> str:
    """Return the bank of a cache that classifies unless told: ``labels``, or the only one that there is."""
    names = cache.bank_names
    return names[0] if len(names) == 1 else DEFAULT


def images_of_texts(cache: EmbeddingCache, text: str, teachers: Sequence[str]) -> NDArray[np.uint64]:
    """Return the hashes of the test images that a bank of these teachers was made of: they are not judged."""
    own = [cache.teacher_cache(name) for name in teachers]
    made_of = [teacher.text_bank(text).made_of for teacher in own if text in teacher.bank_names]
    return np.concatenate([np.empty(0, dtype=np.uint64), *made_of])


def not_judged_note(cache: EmbeddingCache, text: str, teachers: Sequence[str]) -> str:
    """Return one line about test images that a bank was made of; '' where there are none."""
    count = len(np.unique(images_of_texts(cache, text, teachers)))
    return f"{count:,} test images are not judged: the text bank {text!r} was made of them" if count else ""


def losses_of(config: RunConfig, teacher: EmbeddingCache) -> LossConfig:
    """Return the losses that one teacher's head learns by: of one without texts those that need none."""
    return config.loss if has_texts(config, teacher) else without_texts(config.loss)


def without_texts(loss: LossConfig) -> LossConfig:
    """Return losses without those that compare with texts."""
    return replace(loss, cls=0.0, vlalign=0.0, cap=0.0, vlalign_filter=False)


def settled(config: RunConfig, cache: EmbeddingCache) -> RunConfig:
    """Return a config whose ``text`` is what a cache has: where it is the default, the only bank, or none.

    UserError if no teacher has texts and something asks for them, or a teacher is left with no loss.
    """
    if config.train.baseline or cache.holds_episodes:
        return config
    teachers = [cache.teacher_cache(name) for name in config.teachers]
    banks = {bank for teacher in teachers for bank in teacher.bank_names}
    if config.text == DEFAULT and DEFAULT not in banks and len(banks) < 2:
        config = replace(config, text=next(iter(banks), ""))
    if not config.text:
        model = cache.teacher_spec.model
        why = "text is ''" if banks else f"{cache.path} has none: its teacher {model} gave no texts"
        _check(config, cache, why)
    elif not banks:
        teachers[0].listed_bank(config.text)  # says that there is none
    by_ridge = config.train.head_only == "closed-form"  # which asks for no loss
    for name, teacher in zip(config.teachers, teachers, strict=True):
        require(
            by_ridge or not losses_of(config, teacher).is_off,
            f"the teacher {name} of {cache.path} has no texts, and every loss that needs none is off",
            f"switch one on: loss.mse=1; or add texts: {ADD_TEXTS.format(cache.path)}",
        )
    return config


def _check(config: RunConfig, cache: EmbeddingCache, why: str) -> None:
    """Refuse what needs texts; UserError names the first."""
    needs: dict[str, tuple[object, str]]
    needs = {f"loss.{name}": (getattr(config.loss, name), "0") for name in OF_TEXTS}
    needs["loss.vlalign_filter"] = (config.loss.vlalign_filter, "false")
    needs["prompts.learner"] = (config.prompts.learner != "none", "none")
    for name, (asked, off) in needs.items():
        require(
            not asked,
            f"{name} needs texts, and {why}",
            f"set {name}={off}, add texts by {ADD_TEXTS.format(cache.path)}, or choose another teacher.",
        )


def without_texts_note(config: RunConfig, cache: EmbeddingCache) -> str:
    """Return one line about the teachers of a run that have no texts; '' where each has."""
    if config.train.baseline or cache.holds_episodes:
        return ""
    without = [name for name in config.teachers if not has_texts(config, cache.teacher_cache(name))]
    if not without:
        return ""
    who = (
        f"the teacher{'s' * (len(without) > 1)} {' and '.join(without)}"
        if len(config.teachers) > 1
        else "the teacher"
    )
    return (
        f"{who} gave no texts: cls, vlalign and cap are left out, and what is judged is how near the "
        f"student's embeddings are to the teacher's; class means can stand in: {ADD_TEXTS.format(cache.path)}"
    )
