"""How sources are read, as a cache keeps it to open them again."""

from __future__ import annotations

from dataclasses import dataclass

from cache.sources.decoding import PLAIN, Decoding
from cache.sources.split_rules import SplitRule


@dataclass(frozen=True, kw_only=True, slots=True)
class ListColumns:
    """What the columns of a list are called; '' for the usual names, that are looked for."""

    path: str = ""
    image: str = ""
    label: str = ""
    split: str = ""
    key: str = ""
    caption: str = ""


USUAL = ListColumns()


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """How sources are read.

    ``rule`` makes splits of labelled images that have none. ``class_depth`` says which folder below the split
    is the class: 1 the first, -1 the last. ``names`` are those of classes that are given as numbers.
    """

    rule: SplitRule | None = None
    class_depth: int = 1
    columns: ListColumns = USUAL
    names: tuple[str, ...] = ()
    decoding: Decoding = PLAIN


AS_THEY_ARE = SourceOptions()
