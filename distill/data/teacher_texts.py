"""Which texts a run's teachers have: of those that read none, what needs texts is left out or refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cache import EmbeddingCache
from cache.sources.splits import MAIN_TEACHER
from distill.config import LossConfig, RunConfig
from distill.config_fields import require

DEFAULT = RunConfig().text
# Losses that compare with texts, of classes or of images.
OF_TEXTS = ("cls", "vlalign", "cap")


def add_means(teacher: EmbeddingCache, bank: str = "means") -> str:
    """Return the command that gives a teacher of a cache class means."""
    of = "" if teacher.teacher_name == MAIN_TEACHER else f" --teacher {teacher.teacher_name}"
    return f"distill cache add-texts {teacher.path}{of} --bank {bank or 'means'} --from-images"


def has_texts(config: RunConfig, teacher: EmbeddingCache) -> bool:
    """Say whether a teacher's head is compared with texts: not where it has none of the bank ``text``.

    So a run stays what it was when a bank of another name is added to a teacher that had none.
    """
    return config.text in teacher.bank_names


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
    if config.train.closed_set or cache.holds_episodes:
        return config
    teachers = [cache.teacher_cache(name) for name in config.teachers]
    banks = {bank for teacher in teachers for bank in teacher.bank_names}
    if config.text == DEFAULT and DEFAULT not in banks and len(banks) < 2:
        config = replace(config, text=next(iter(banks), ""))
    if not config.text:
        first = teachers[0]
        model = first.teacher_spec.model
        why = "text is ''" if banks else f"{cache.path} has none: its teacher {model} gave no texts"
        _check(config, first, why)
    elif config.text not in banks:
        require_bank(config, teachers)
    by_ridge = config.train.head_only == "closed-form"  # which asks for no loss
    for name, teacher in zip(config.teachers, teachers, strict=True):
        require(
            by_ridge or not losses_of(config, teacher).is_off,
            f"the teacher {name} of {cache.path} has no {bank_or_texts(config, teacher)}, and every loss "
            "that needs none is off",
            f"switch one on: loss.mse=1; or add texts: {add_means(teacher, config.text)}",
        )
    return config


def require_bank(config: RunConfig, teachers: Sequence[EmbeddingCache]) -> None:
    """Make sure that one of a run's teachers has the bank ``text``; UserError says which there are."""
    if config.text and not any(has_texts(config, teacher) for teacher in teachers):
        with_some = [teacher for teacher in teachers if teacher.bank_names] or teachers
        with_some[0].listed_bank(config.text)


def bank_or_texts(config: RunConfig, teacher: EmbeddingCache) -> str:
    """Return what a teacher lacks: texts, or those of a bank."""
    return f"text bank {config.text!r}" if config.text and teacher.bank_names else "texts"


def _check(config: RunConfig, teacher: EmbeddingCache, why: str) -> None:
    """Refuse what needs texts; UserError names the first."""
    needs: dict[str, tuple[object, str]]
    needs = {f"loss.{name}": (getattr(config.loss, name), "0") for name in OF_TEXTS}
    needs["loss.vlalign_filter"] = (config.loss.vlalign_filter, "false")
    needs["prompts.learner"] = (config.prompts.learner != "none", "none")
    for name, (asked, off) in needs.items():
        require(
            not asked,
            f"{name} needs texts, and {why}",
            f"set {name}={off}, add texts by {add_means(teacher)}, or choose another teacher.",
        )


def without_texts_note(config: RunConfig, cache: EmbeddingCache) -> str:
    """Return one line about the teachers of a run that have no texts; '' where each has."""
    if config.train.closed_set or cache.holds_episodes:
        return ""
    teachers = map(cache.teacher_cache, config.teachers)
    without = [teacher for teacher in teachers if not has_texts(config, teacher)]
    if not without:
        return ""
    names = [teacher.teacher_name for teacher in without]
    who = (
        f"the teacher{'s' * (len(without) > 1)} {' and '.join(names)}"
        if len(config.teachers) > 1
        else "the teacher"
    )
    has = "have" if len(without) > 1 else "has"
    lacks = f"{has if without[0].bank_names else 'gave'} no {bank_or_texts(config, without[0])}"
    return (
        f"{who} {lacks}: cls, vlalign and cap are left out, and what is judged is how near the student's "
        "embeddings are to the teacher's; class means can stand in: "
        f"{add_means(without[0], config.text)}"
    )
