"""Classes that are given as numbers, and the names that these stand for."""

from __future__ import annotations

from collections.abc import Sequence

from cache.runtime.errors import UserError


def class_name(text: str, names: Sequence[str], where: str) -> str:
    """Return the name of a class that is given as that, or as a number among ``names`` where there are any.

    Raises
    ------
    UserError
        If it is a number beyond the names, or cannot be a class's name.
    """
    if names and text.isdecimal():
        if int(text) >= len(names):
            raise UserError(
                f"{where} is of class {text}, and {len(names):,} names are given, from 0",
                fix="give a name for every class with --names.",
            )
        return names[int(text)]
    if "/" in text or "\0" in text:
        raise UserError(f"{where}: {text!r:.80} is no name of a class", fix="leave out the '/'.")
    return text
