"""A teacher that reads no texts: asked for them it is refused, and what lies beside images is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cache.runtime.errors import UserError
from cache.teacher.teacher import Teacher


def check_texts_asked(teacher: Teacher, asked: Mapping[str, object], *, keeps_tower: bool) -> None:
    """Make sure that a teacher can do what options ask of it.

    Raises
    ------
    UserError
        If it reads no texts and an option of texts, by its name, is ``asked`` for, or its text tower is to be
        kept and cannot be.
    """
    for option, value in asked.items() if teacher.texts is None else ():
        if value:
            raise UserError(
                f"{option} is of texts, and the teacher {teacher.spec.model} reads none",
                fix="leave it out, or choose a teacher of images and texts, such as CLIP.",
            )
    if keeps_tower:
        teacher.text_side().check_kept()


def left_out_note(teacher: Teacher, names: Sequence[str]) -> str:
    """Return a line on what the data have of texts, which such a teacher does not read."""
    return f"the teacher {teacher.spec.model} reads no texts: {', '.join(names)} left out"
