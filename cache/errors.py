"""The one error a user sees: what went wrong, then what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, ClassVar


class UserError(Exception):
    """Something in the user's input is wrong; the message says what to do about it.

    The command line prints the message on one line, without a traceback, and exits with ``status``.

    Parameters
    ----------
    problem
        What was found, and where: it names the file or option.
    fix
        The next thing to try. Required, so that no error can leave it out.
    """

    status: ClassVar[int] = 1

    def __init__(self, problem: str, *, fix: str) -> None:
        super().__init__(f"{problem.rstrip('.')}. Fix: {fix}")
        self.problem = problem
        self.fix = fix

    def __reduce__(self) -> tuple[Any, ...]:
        # As it is, an exception with a keyword argument can be pickled, but not brought back.
        return partial(type(self), self.problem, fix=self.fix), ()


class WrongOption(UserError):
    """An option of the command line that is wrong in itself, whatever the files are."""

    status = 2


class CacheMismatch(UserError):
    """A cache, run or image folder that does not belong to what was asked for."""


def nearest_names(name: str, known: Iterable[str], *, n: int = 3) -> str:
    """Return ``did you mean 'x' or 'y'? `` for the known names nearest to ``name``, or nothing."""
    known = list(known)
    folded = {k.casefold(): k for k in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=n, cutoff=0.5)
    return f"did you mean {' or '.join(repr(folded[c]) for c in close)}? " if close else ""


def some_of(names: Sequence[str], n: int = 3) -> str:
    """Return the first names, and how many more there are."""
    return ", ".join(names[:n]) + (f" and {len(names) - n:,} more" if len(names) > n else "")


def unwritable(path: object, error: OSError, *, fix: str | None = None) -> UserError:
    """Return the error for a file or folder that could not be written."""
    reason = error.strerror or str(error)
    return UserError(
        f"{path} could not be written ({reason})",
        fix=fix
        or "choose a folder that you can write to and that has room; what was finished before is kept.",
    )


def printable(text: str) -> str:
    """Return a text on one line in which nothing moves the cursor or changes a colour.

    Names of files and classes may be anybody's.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
