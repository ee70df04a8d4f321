"""Classes that are given as numbers, and the names that these stand for."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cache.runtime.errors import UserError
from cache.sources.names import check_class_names

# Tables that have an empty cell write the numbers of the others as 3.0.
_NUMBER = re.compile(r"(\d{1,9})(?:\.0+)?", re.ASCII)


def class_name(text: str, names: Sequence[str], where: str) -> str:
    """Return the name of a class that is given as that, or as a number among ``names`` where there are any.

    Raises
    ------
    UserError
        If it is a number beyond the names, or cannot be a class's name.
    """
    if names and (number := _NUMBER.fullmatch(text)):
        if int(number[1]) >= len(names):
            raise UserError(
                f"{where} is of class {text}, and {len(names):,} names are given, from 0",
                fix="give a name for every class with --names.",
            )
        text = names[int(number[1])]
    try:
        text.encode()
        check_class_names([text])
    except ValueError as error:
        raise UserError(
            f"{where}: {text!r:.80} is no name of a class",
            fix="leave out '/', zero bytes and half characters.",
        ) from error
    return text
