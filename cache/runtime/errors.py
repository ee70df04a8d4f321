"""The one error a user sees: what went wrong, then what to do."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar


class UserError(Exception):
    """Something in the user's input is wrong; the message says what to do about it.

    The command line prints the message on one line, without a traceback, and exits with ``status``. The
    ``problem`` names the file or option; ``fix`` is the next thing to try, which no error can leave out.
    """

    status: ClassVar[int] = 1

    def __init__(self, problem: str, *, fix: str) -> None:
        super().__init__(f"{problem.rstrip('.')}. Fix: {fix}")
        self.problem = problem
        self.fix = fix

    def reworded(self, words: Callable[[str], str]) -> None:
        """Say the same in other words."""
        UserError.__init__(self, words(self.problem), fix=words(self.fix))

    def __reduce__(self) -> tuple[Any, ...]:
        # As it is, an exception with a keyword argument can be pickled, but not brought back.
        return partial(type(self), self.problem, fix=self.fix), ()


class Refused(UserError):
    """What the system refuses, or has no room for: nothing is said of the file itself."""


class WrongOption(UserError):
    """An option of the command line that is wrong in itself, whatever the files are."""

    status = 2


class CacheMismatch(UserError):
    """A cache, run or image folder that does not belong to what was asked for."""


NEWER = (
    "a newer distill wrote it: bring yours up to date ('git pull' in its folder, then 'pip install .' there)."
)
NO_CHECKSUM = "it has no checksum: it was cut short, or an older distill wrote it"


def other_schema(path: object, version: object, ours: int) -> CacheMismatch:
    """Return the error for a file that another version of the program wrote."""
    older = isinstance(version, int) and version < ours
    fix = "an older distill wrote it: make it again with this one." if older else NEWER
    return CacheMismatch(f"{path} has schema version {version!r:.20}, this program reads {ours}", fix=fix)


def missing_package(error: ImportError, *, extra: str) -> UserError:
    """Return the error for a package that is not installed, which one of our extras brings."""
    # Not by the name on the package index: what is called distill there is another's.
    return UserError(
        f"{error.name or error} is not installed",
        fix=f"run 'pip install \".[{extra}]\"' in the folder of distill.",
    )


def nearest_names(name: str, choices: Iterable[str]) -> str:
    """Return ``did you mean 'x' or 'y'? `` for the choices nearest to ``name``, or nothing."""
    choices = [*choices]
    for choice in choices:
        if choice != name and unicodedata.normalize("NFC", choice) == unicodedata.normalize("NFC", name):
            return f"{quoted(choice)} is the same name with its accents written otherwise: write both alike. "
    folded = {choice.casefold(): choice for choice in choices}
    close = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(quoted(folded[c]) for c in close)}? " if close else ""


def quoted(name: str) -> str:
    """Return a name in quotes; what may look the same as another, an accent written apart, in its codes."""
    return repr(name) if unicodedata.is_normalized("NFC", name) else ascii(name)


# What libraries say of a guard against code in files: they advise to switch it off.
_GUARDS = ("weights_only", "trust_remote_code", "allow_pickle", "add_safe_globals")


def reason_of(error: BaseException) -> str:
    """Return the first line of what a library's error says, or its type; no advice to run what is in a file.

    Its message may be about a file from elsewhere: then it names what was found there, and says no more.
    """
    text = str(error)
    # Python goes on with how to switch its limit of digits off.
    text = text.partition("; use sys.set_int_max_str_digits")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any(guard in text for guard in _GUARDS):
        code = re.search(r"GLOBAL ([\w.]+)", text)
        return f"it holds {code[1]}, which is code" if code else "it holds more than numbers and names"
    if len(lines) > 1 and lines[0].endswith(":"):  # torch's of a state that does not fit
        lines[0] += f" {lines[1]}"
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")


def some_of(names: Sequence[str], n: int = 3, *, of: int | None = None) -> str:
    """Return the first names, and how many more there are, of all that are ``names`` or so many."""
    more = (len(names) if of is None else of) - n
    return ", ".join(names[:n]) + (f" and {more:,} more" if more > 0 else "")


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


def shortened(text: str, most: int = 60) -> str:
    """Return a text in quotes, cut where it is long."""
    return repr(text if len(text) <= most else f"{text[: most - 3]}...")
