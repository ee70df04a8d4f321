"""How sources are read, as a cache keeps it to open them again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from cache.runtime.json_values import dataclass_of
from cache.sources.decoding import PLAIN, Decoding
from cache.sources.list_columns import AS_USUAL, Columns
from cache.sources.split_rules import SplitRule

# As ``class_depth``: the folder that a picture lies in. No number of folders is this large.
LAST, DEEPEST = -1, 100


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """How sources are read.

    ``rule`` makes splits of labelled images that have none. ``class_depth`` says which folder below the split
    is the class: 1 the first, -1 the last. ``names`` are those of classes that are given as numbers.
    """

    rule: SplitRule | None = None
    class_depth: int = 1
    columns: Columns = AS_USUAL
    names: tuple[str, ...] = ()
    decoding: Decoding = PLAIN

    @classmethod
    def from_json(cls, value: Any) -> SourceOptions:
        """Read what ``asdict`` makes of options; ValueError where they are not such."""
        depth = value.get("class_depth", 1) if isinstance(value, dict) else 1
        if type(depth) is not int or not (depth == LAST or 0 < depth < DEEPEST):
            raise ValueError(f"class_depth is {depth!r:.40}")
        rest = {**value, "class_depth": 1} if isinstance(value, dict) else value
        options: SourceOptions = dataclass_of(cls, rest, name="options")
        return replace(options, class_depth=depth)


AS_THEY_ARE = SourceOptions()
