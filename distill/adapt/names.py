"""The names that a model is to tell apart: a file with one a line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cache.runtime.errors import UserError, quoted, shortened
from cache.sources.class_texts import read_lines
from cache.sources.names import check_class_names

WRITE = "write the names that the model is to tell apart, one a line."


def same(text: str) -> str:
    """Return what names that mean the same have in common: capitals, spaces and ``_ - /`` do not count."""
    for sign in "_-/":
        text = text.replace(sign, " ")
    return " ".join(text.split()).casefold()


@dataclass(frozen=True, kw_only=True)
class Names:
    """The names in their order: ``words`` as people write them, ``classes`` as folders are called."""

    words: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """A folder's name of each: without spaces, which a list of classes is read by, and without '/'."""
        return tuple("_".join(word.replace("/", " ").split()) for word in self.words)

    @cached_property
    def _by_sameness(self) -> dict[str, str]:
        return dict(zip(map(same, self.words), self.classes, strict=True))

    def find(self, text: str) -> str:
        """Return the class of the name that a folder or a cell means, '' for none."""
        return self._by_sameness.get(same(text), "")

    def write(self, path: Path) -> None:
        """Write them as a label2text file: CLASS INDEX NAME a line."""
        lines = zip(self.classes, range(1, 1 + len(self.words)), self.words, strict=True)
        path.write_text("".join(f"{name} {i} {words}\n" for name, i, words in lines), encoding="utf-8")


def read_names(path: Path) -> Names:
    """Read a file of names; UserError if it is no text, there are not two, or two mean the same."""
    lines = [" ".join(line.split()) for line in read_lines(path)]
    names = Names(words=tuple(line for line in lines if line))
    if len(names.words) < 2:
        count = f"has one name alone ({shortened(names.words[0])})" if names.words else "has no name"
        raise UserError(f"{path} {count}, and there is nothing to tell apart", fix=WRITE)
    _check_different(path, lines)
    try:
        check_class_names(names.classes)
    except ValueError as error:
        raise UserError(f"{path}: {error}", fix=WRITE) from error
    return names


def _check_different(path: Path, lines: Sequence[str]) -> None:
    first: dict[str, tuple[int, str]] = {}
    for number, line in _numbered(lines):
        before, other = first.setdefault(same(line), (number, line))
        if before != number:
            raise UserError(
                f"{path} has a name twice: {quoted(other)} on line {before}, {quoted(line)} on line {number}",
                fix="keep one of the two lines.",
            )
        if not same(line):
            raise UserError(f"{path}, line {number}: {quoted(line)} is no name", fix=WRITE)


def _numbered(lines: Iterable[str]) -> Iterable[tuple[int, str]]:
    return ((number, line) for number, line in enumerate(lines, start=1) if line)
