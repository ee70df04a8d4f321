"""Each message that docs/help/messages.md quotes is one of the code's: the words between what varies, in order."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| `(?P<message>[^`]+)` \|", re.MULTILINE)
MESSAGES = ROW.findall((ROOT / "docs/help/messages.md").read_text(encoding="utf-8"))


@cache
def texts_of_the_code() -> tuple[str, ...]:
    """Every string of the program; what is put into one is ``…``."""
    files = [*(ROOT / "cache").rglob("*.py"), *(ROOT / "distill").rglob("*.py"), ROOT / "cli.py"]
    return tuple(text for file in files for text in _texts(ast.parse(file.read_text(encoding="utf-8"))))


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(one.value) if isinstance(one, ast.Constant) else "…" for one in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def pattern_of(message: str) -> re.Pattern[str]:
    """Match a text of the code with the message's fixed words, in order; more may stand around them."""
    return re.compile(".*".join(map(re.escape, filter(str.strip, message.split("…")))), re.DOTALL)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_that_is_quoted_is_one_of_the_codes(message):
    pattern = pattern_of(message)
    assert any(map(pattern.search, texts_of_the_code())), (
        "the code says this no more: mend docs/help/messages.md"
    )


def test_the_page_quotes_messages_once():
    assert len(MESSAGES) > 50
    assert len({*MESSAGES}) == len(MESSAGES)


def test_a_message_that_is_not_said_is_found_out():
    assert not any(map(pattern_of("the … said no such thing …").search, texts_of_the_code()))
