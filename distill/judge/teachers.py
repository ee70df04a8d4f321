"""The teachers of a cache, judged from its rows alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from cache import EmbeddingCache
from cache.runtime.errors import UserError
from cache.runtime.progress import Progress
from distill.judge.evaluate import Result, evaluate_teacher


def judge_teachers(
    folder: Path,
    teacher: str = "",
    *,
    splits: Sequence[str] = (),
    text: str = "",
    negative_text: str = "",
    check: bool = False,
    note: Callable[[str], None],
    progress: Progress | None = None,
) -> dict[str, dict[str, Result]]:
    """Return what :func:`distill.judge.evaluate.evaluate_teacher` says of each teacher of a cache, by name.

    ``teacher`` names one of them; '' means all. Of several, one that cannot be judged is told to ``note``
    and left out. UserError as there, where no teacher can be judged.
    """
    cache = EmbeddingCache.open(folder, check=check)
    judge = partial(
        evaluate_teacher, splits=splits, text=text, negative_text=negative_text, progress=progress
    )
    if teacher or len(cache.teacher_names) == 1:
        name = teacher or cache.teacher_name
        return {name: judge(cache.teacher_cache(name))}
    judged: dict[str, dict[str, Result]] = {}
    failed: dict[str, UserError] = {}
    for name in cache.teacher_names:
        try:
            judged[name] = judge(cache.teacher_cache(name))
        except UserError as error:
            failed[name] = error
    for name, why in failed.items():
        if not judged:
            raise why
        note(f"the teacher {name} is not judged: {why}")
    return judged
