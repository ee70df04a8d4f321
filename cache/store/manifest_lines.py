"""What a manifest lists: files with their checksums, text banks, columns, with the checks of what it says."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from cache.runtime.atomic_files import sha256_of
from cache.store.spec import TeacherSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedFile:
    """A file below the cache folder and its checksum; ValueError where it is none of a cache."""

    # A file of a cache lies in one of its folders, whatever a manifest from elsewhere says.
    FORM: ClassVar[re.Pattern[str]] = re.compile(
        r"(texts|projections|text_tower|[A-Za-z0-9._-]+\.text_tower)/(?!\.)[^/\\\0]+"
    )
    file: str
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if not self.FORM.fullmatch(self.file) or self.file.startswith("."):
            raise ValueError(f"{self.file!r:.80} is no file of a cache")

    @classmethod
    def of(cls, cache: Path, file: str, **more: Any) -> Self:
        """Return the line of a file that has just been written."""
        return cls(file=file, bytes=(cache / file).stat().st_size, sha256=sha256_of(cache / file), **more)

    def is_there(self, cache: Path) -> bool:
        """Say whether the file is there, as long as it was."""
        try:
            return (cache / self.file).stat().st_size == self.bytes
        except (FileNotFoundError, NotADirectoryError):
            return False

    def is_sound(self, cache: Path) -> bool:
        """Say whether the file is there, with its checksum."""
        path = cache / self.file
        return path.is_file() and self.is_there(cache) and sha256_of(path) == self.sha256


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedBank(ListedFile):
    """One text bank: how many texts, and what made it.

    ``source`` says in words where the texts come from, and whether they found their classes by name.
    """

    texts: int
    made_from: str
    templates: tuple[str, ...] = ()
    truncated: int = 0
    source: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnSettings:
    """How a column of the rows of some splits is made: so it is made for row groups that come later, too."""

    splits: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class AddedTeacher:
    """A teacher beside the one that the cache was made with: its rows are columns on the same row groups."""

    spec: TeacherSpec
    embed_dim: int
    banks: dict[str, ListedBank] = field(default_factory=dict)
    text_tower: tuple[ListedFile, ...] = ()
    projection: tuple[ListedFile, ...] = ()
