"""What became of the data since a cache was made, in one line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cache.runtime.errors import some_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """What a data folder has that a cache has not, and the other way round.

    ``gone``, ``replaced``, ``relabelled`` and ``restored`` count rows; ``added`` counts samples that had
    none. Classes and splits are names. ``texts`` are the text banks that have others, in words.
    """

    added: int = 0
    gone: int = 0
    replaced: int = 0
    relabelled: int = 0
    restored: int = 0
    classes_added: tuple[str, ...] = ()
    classes_removed: tuple[str, ...] = ()
    splits_added: tuple[str, ...] = ()
    splits_removed: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

    def in_words(self, *, began: bool = False) -> str:
        """Return what changed, '' for nothing; ``began``: what has no row was not necessarily added since."""
        counts = (
            (0 if began else self.added, "added"),
            (self.gone, "removed"),
            (self.replaced, "replaced"),
            (self.relabelled, "moved to other classes"),
            (self.restored, "back again"),
        )
        lists = (
            ("classes added", self.classes_added),
            ("classes removed", self.classes_removed),
            ("splits added", self.splits_added),
            ("splits removed", self.splits_removed),
            ("texts changed", self.texts),
        )
        listed = _counted([(count, what) for count, what in counts if count])
        return ", ".join(listed + [f"{what}: {some_of(names, 5)}" for what, names in lists if names])

    def line(self, data: str, *, missing: int, rows: int, began: bool) -> str:
        """Return the line that says so; '' where nothing changed.

        ``missing`` of the ``rows`` that there are to be are still to be embedded; ``began``: the cache was
        not finished.
        """
        words, embedded = self.in_words(began=began), f"{missing:,} of {rows:,} rows are to be embedded"
        if words:
            return f"{data} changed: {words}; {embedded}"
        return f"{data} is continued: {embedded}" if missing and began else ""

    @property
    def any(self) -> bool:
        """Whether rows, classes or splits changed."""
        return replace(self, texts=()) != Changes()


def class_changes(
    before: Iterable[Sequence[str]], now: Iterable[Sequence[str]]
) -> tuple[tuple[str, ...], ...]:
    """Return the classes of all splits that are new, and those that are gone, sorted."""
    old, new = ({name for names in splits for name in names} for splits in (before, now))
    return tuple(sorted(new - old)), tuple(sorted(old - new))


def _counted(counts: Sequence[tuple[int, str]]) -> list[str]:
    """Return ``12 images added``, ``3 removed``: what is counted is said once."""
    nouns = [" image" if count == 1 else " images" for count, _ in counts[:1]] + [""] * len(counts)
    return [f"{count:,}{noun} {what}" for (count, what), noun in zip(counts, nouns, strict=False)]
