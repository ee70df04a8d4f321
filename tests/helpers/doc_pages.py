"""README and the documentation's pages, as blocks of code that run, are shown, or are marked as not to be run here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What a block may need that is not there where the tests run.
NEEDS = ("a network", "a GPU", "several machines")
RUN = ("bash", "python")
# Shown, and not run: output, settings, other languages.
SHOWN = (
    "text",
    "toml",
    "json",
    "html",
    "ini",
    "yaml",
    "dockerfile",
    "javascript",
    "bibtex",
    "latex",
    "powershell",
)
FENCE = re.compile(r"(?P<indent> *)```(?P<language>\w*)")
MARK = re.compile(r" *<!-- needs: (?P<what>.*?) -->$")
SET_UP = re.compile(r" *<!-- set-up:(?P<rest>.*)$")
FILE = re.compile(r"# (?P<name>[\w./-]+\.toml)$")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of code: its language, its text, the line it begins at, what it needs ('' : nothing)."""

    language: str
    text: str
    line: int
    needs: str = ""
    hidden: bool = False

    @property
    def file(self) -> str:
        """The file that a block of TOML is, or ''."""
        found = FILE.match(self.text.partition("\n")[0])
        return found["name"] if self.language == "toml" and found else ""


def pages() -> list[Path]:
    """README, then every page of docs/ by its path."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    """A page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, set-up blocks among them, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    return list(_blocks(lines))


def _blocks(lines: list[str]) -> Iterator[Block]:
    at, needs = 0, ""
    while at < len(lines):
        line = lines[at]
        if found := SET_UP.match(line):
            end = at
            while "-->" not in lines[end]:
                end += 1
            inside = "\n".join([found["rest"], *lines[at + 1 : end + 1]]).partition("-->")[0]
            yield Block(language="bash", text=inside.strip(), line=at + 1, hidden=True)
            at = end
        elif found := FENCE.match(line):
            indent, end = found["indent"], at + 1
            while lines[end].strip() != "```":
                end += 1
            text = "\n".join(one.removeprefix(indent) for one in lines[at + 1 : end])
            yield Block(language=found["language"], text=text, line=at + 1, needs=needs)
            at, needs = end, ""
        elif found := MARK.match(line):
            needs = " and ".join(filter(None, (needs, found["what"])))
        elif line.strip():
            needs = ""
        at += 1


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command ``distill ...`` that a block of bash calls, lines joined, comments left out."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()<>")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # a quote that goes on in the next line
            continue
        if words[:1] in (["docker"], ["podman"]):  # where it is an image's name
            continue
        while "distill" in words:
            words = words[words.index("distill") + 1 :]
            end = next((i for i, word in enumerate(words) if re.fullmatch(r"[;&|()<>]+", word)), len(words))
            yield words[:end]
            words = words[end:]
