"""A teacher that reads no texts: asked for them it is refused, and what lies beside images is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cache.runtime.errors import UserError

if TYPE_CHECKING:
    from cache.build.from_folder import FeatureOptions
    from cache.teacher.teacher import Teacher


def check_texts_asked(teacher: Teacher, options: FeatureOptions) -> None:
    """Raise a UserError where the options ask of a teacher what it cannot: texts, or a tower to be kept."""
    if teacher.texts is not None:
        if options.keep_text_tower:
            teacher.texts.check_kept()
        return
    asked = {
        "--text-file": options.text_files,
        "--template": options.templates,
        "--descriptions": options.descriptions,
        "--captions": options.captions,
        "--neighbours": options.neighbours,
        "--keep-text-tower": options.keep_text_tower,
    }
    for option, value in asked.items():
        if value:
            raise UserError(
                f"{option} is of texts, and the teacher {teacher.spec.model} reads none",
                fix="leave it out, or choose a teacher of images and texts, such as CLIP.",
            )


def left_out_note(teacher: Teacher, names: Sequence[str]) -> str:
    """Return a line on what the data have of texts, which such a teacher does not read."""
    return f"the teacher {teacher.spec.model} reads no texts: {', '.join(names)} left out"
