"""What a source leaves out, counted by reason, with some names of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from cache.runtime.errors import some_of

# Of every reason so many names are kept.
NAMED = 3


class Reason(StrEnum):
    """Why something that looks like a sample is none; what is left out of a split for it."""

    FORMAT = "of no picture format"
    UNREADABLE = "unreadable"
    DANGLING = "links to nothing"
    MISSING = "that are not there"
    HIDDEN = "hidden"
    TOO_LARGE = "of too many pixels"
    DUPLICATE = "of a key that is taken"
    NO_LABEL = "without a label"
    NO_PICTURE = "without a picture"
    NAME = "of a name or a class that cannot be kept"
    OUTSIDE = "of a name that leads out of its folder"
    SPLIT = "beside the folders of splits"
    LOOP = "links to a folder that they lie in"
    NO_ROW = "images without a row"
    NO_IMAGE = "rows without an image"
    EMPTY = "class folders without a picture"

    @classmethod
    def told_by(cls, words: str) -> Reason:
        """Return why a picture was not read, of the words that a cache keeps of it."""
        return next((one for one in (cls.FORMAT, cls.TOO_LARGE) if words.startswith(one)), cls.UNREADABLE)


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """How many were left out for a reason, and the names of the first."""

    count: int = 0
    names: tuple[str, ...] = ()

    def __add__(self, other: LeftOut) -> LeftOut:
        return LeftOut(count=self.count + other.count, names=(self.names + other.names)[:NAMED])


@dataclass(frozen=True, slots=True)
class Account:
    """What was left out, by reason. A value: of several chunks or sources it is the sum."""

    left_out: Mapping[str, LeftOut] = field(default_factory=dict)

    @classmethod
    def of(cls, left_out: Iterable[tuple[Reason, str]]) -> Account:
        """Return the account of what was left out: why, and its name, one after the other."""
        tally = Tally()
        for reason, name in left_out:
            tally.add(reason, name)
        return cls(tally.account().left_out)

    def __add__(self, other: Account) -> Account:
        reasons = dict.fromkeys((*self.left_out, *other.left_out))
        return Account(
            {
                reason: self.left_out.get(reason, LeftOut()) + other.left_out.get(reason, LeftOut())
                for reason in reasons
            }
        )

    @property
    def count(self) -> int:
        """How many were left out."""
        return sum(one.count for one in self.left_out.values())

    def as_table(self) -> dict[str, dict[str, object]]:
        """Return it for JSON: ``{reason: {"count": ..., "names": [...]}}``."""
        return {r: {"count": one.count, "names": [*one.names]} for r, one in self.left_out.items()}

    def in_words(self) -> list[str]:
        """Return a line a reason: ``12 hidden: .a, .b, .c and 9 more``."""
        return [
            f"{one.count:,} {reason}: {some_of(list(one.names), len(one.names), of=one.count)}"
            for reason, one in self.left_out.items()
        ]


class Tally:
    """Counts what is left out while a source is listed; of constant size, however much that is."""

    def __init__(self) -> None:
        self._counts: dict[Reason, int] = {}
        self._names: dict[Reason, list[str]] = {}

    def add(self, reason: Reason, name: str, count: int = 1) -> None:
        """Count one, or several of which one is named."""
        self._counts[reason] = self._counts.get(reason, 0) + count
        names = self._names.setdefault(reason, [])
        if len(names) < NAMED:
            names.append(name)

    def account(self) -> Account:
        """Return what was counted."""
        return Account(
            {
                reason.value: LeftOut(count=count, names=tuple(self._names[reason]))
                for reason, count in self._counts.items()
            }
        )


NOTHING = Account()
