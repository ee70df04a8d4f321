"""What things may be called, where no name leads out of the folder it is made a path of; lists of names."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from cache.runtime.atomic_files import read_text
from cache.runtime.errors import WrongOption

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# Of names joined by zeros: an empty part, or one that is this folder or the one above.
_OUTSIDE = re.compile(r"(?:^|[\0/])\.{0,2}(?:[\0/]|\Z)")


def is_plain_name(name: object) -> bool:
    """Say whether a text bank or a teacher can be called so: files and folders are named by it."""
    return isinstance(name, str) and _PLAIN.fullmatch(name) is not None


def check_inner(what: str, names: Sequence[str]) -> None:
    """Raise a ValueError if a name leads out of its folder where it is made a path."""
    # All at once: a cache may have millions.
    joined = "\0".join(names)
    if (names and joined.count("\0") != len(names) - 1) or (names and _OUTSIDE.search(joined)):
        odd = next(name for name in names if "\0" in name or _OUTSIDE.search(name))
        raise ValueError(f"{what} is called {odd!r:.80}, which is no place in a folder")


def check_class_names(names: Sequence[str]) -> None:
    """Raise a ValueError if a class cannot be called so: one folder, or one object, has its name."""
    check_inner("a class", names)
    if odd := next((name for name in names if "/" in name), None):
        raise ValueError(f"a class is called {odd!r:.80}, which is no name of a folder")


def separated(text: str) -> tuple[str, ...]:
    """Return names that commas separate; one in double quotes keeps its own: ``"bell pepper, red",plum``.

    WrongOption if it cannot be read so.
    """
    try:
        parts = next(csv.reader([" ".join(text.split())], skipinitialspace=True), [])
    except csv.Error as error:
        raise WrongOption(f"{text!r:.200} cannot be read ({error})", fix='give it as a,b,"c, d".') from error
    return tuple(part.strip() for part in parts if part.strip())


def lines_of(path: Path) -> tuple[str, ...]:
    """Return the names of a file, one a line; '' for an empty line between others.

    UserError if it is missing or no text.
    """
    return tuple(line.strip() for line in read_text(path).rstrip().split("\n"))
