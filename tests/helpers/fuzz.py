"""Anything at all, for a parser: and what it may answer."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from cache.runtime.errors import UserError, printable

FEW = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
# Where every example writes some files.
FEWER = settings(FEW, max_examples=20)
ANY_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
# What such files are made of, in any order, so that the way into them is found.
WORDS = (
    "apple",
    "banana",
    "1",
    "2",
    "a red fruit",
    "train",
    "val",
    ".jpg",
    '"key"',
    '"caption"',
    '"x"',
    "null",
    "1e999",
)
SIGNS = (
    " ",
    "\t",
    "\n",
    "\r\n",
    "_",
    "/",
    "{",
    "}",
    ": ",
    ", ",
    "[",
    "]",
    "=",
    "é",
    "\u2028",
    "\x00",
    "\ufeff",
    "-",
)
PIECES = st.lists(st.sampled_from([*WORDS, *SIGNS]), max_size=25).map("".join)
FILE = st.one_of(ANY_TEXT.map(str.encode), PIECES.map(lambda t: t.encode()), st.binary(max_size=80))


@contextmanager
def written(content: bytes, name: str = "file.txt") -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        yield Path(folder) / name


def value_or_line(read: Callable[[], Any]) -> Any:
    """What a parser returns; None where it refuses in one line, as it must."""
    try:
        return read()
    except UserError as error:
        message = str(error)
    assert "Fix: " in message
    assert "\n" not in printable(message)
    return None


KEY_PART = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="/\0"), min_size=1, max_size=40
).filter(lambda t: t not in (".", ".."))
KEYS = st.lists(st.tuples(KEY_PART, KEY_PART).map("/".join), min_size=1, max_size=5, unique=True)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), ANY_TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(ANY_TEXT, inner, max_size=3)),
    max_leaves=8,
)


def with_anything_in_any_place(value: Any, data: Any) -> None:
    """Put any value in the place of one that is somewhere in a table or list."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = data.draw(st.sampled_from(keys))
        inner = value[key]
        if not (isinstance(inner, dict | list) and inner and data.draw(st.booleans())):
            value[key] = data.draw(JSON)
            return
        value = inner
