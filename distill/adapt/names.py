"""The names that a model is to tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cache.runtime.errors import UserError, quoted, shortened
from cache.sources.names import check_class_names

WRITE = "give the names that the model is to tell apart, as A,B,... or a file with one a line."


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


def names_to_tell_apart(given: Sequence[str]) -> Names:
    """Return names as given, without empty ones; UserError if there are not two, or two are the same."""
    names = Names(words=tuple(" ".join(name.split()) for name in given if name.strip()))
    if len(names.words) < 2:
        count = f"is one name alone ({shortened(names.words[0])})" if names.words else "has no name"
        raise UserError(f"--names {count}, and there is nothing to tell apart", fix=WRITE)
    first: dict[str, str] = {}
    for name in names.words:
        if not same(name):
            raise UserError(f"--names has {quoted(name)}, which is no name", fix=WRITE)
        if same(name) in first:
            raise UserError(
                f"--names has a name twice: {quoted(first[same(name)])}, {quoted(name)}",
                fix="keep one of the two.",
            )
        first[same(name)] = name
    try:
        check_class_names(names.classes)
    except ValueError as error:
        raise UserError(f"--names: {error}", fix=WRITE) from error
    return names
