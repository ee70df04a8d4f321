"""What lies below a folder, at any depth: the names of pictures, and a count of all that is none."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cache.runtime.errors import Refused
from cache.runtime.system_errors import read_error
from cache.sources.accounts import Reason, Tally
from cache.sources.class_texts import CAPTIONS, DESCRIPTIONS, LABELS
from cache.sources.decoding import ENDINGS, ending_of

# What lies in a data folder beside its pictures, and is read elsewhere.
TEXT_FILES = frozenset({LABELS, DESCRIPTIONS, CAPTIONS})
# The ending of the text that lies beside a picture of its name.
TEXT = ".txt"
# Endings of files that are no pictures for sure: one may lie beside each picture, and need not be opened.
_OTHER_WORDS = (
    "txt json jsonl csv tsv xml html md yaml yml toml log py npy npz pt pth pkl mat h5 hdf5 parquet arrow "
    "tar tgz zip gz bz2 xz 7z rar pdf mp4 mov avi mp3 wav db ini xmp aae"
)
_OTHERS = frozenset(f".{ending}" for ending in _OTHER_WORDS.split())
# By so many first bytes a picture is known.
_BEGINNING = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureFolder:
    """One folder with pictures: its ``path`` below the root, '' for the root itself, and their names."""

    path: str
    names: Sequence[str]


@dataclass(kw_only=True)
class FolderWalk:
    """Walks the folders below ``root``, links too, and counts what is left out.

    ``skip`` are folders of the root that are another's. ``folders`` are all folders that were walked, below
    the root; ``texts`` counts the pictures with a text file of their name beside them.
    """

    root: str
    skip: frozenset[str] = frozenset()
    tally: Tally = field(default_factory=Tally)
    folders: list[str] = field(default_factory=list)
    texts: int = 0

    def pictures(self) -> Iterator[PictureFolder]:
        """Yield every folder that has pictures, in the order of the names; UserError for one not readable."""
        yield from self._below("", frozenset())

    def _below(self, folder: str, above: frozenset[tuple[int, int]]) -> Iterator[PictureFolder]:
        left = [(folder, above)]
        while left:
            folder, above = left.pop()
            path = f"{self.root}/{folder}" if folder else self.root
            status = os.stat(path)
            own = (status.st_dev, status.st_ino)
            if own in above:
                self.tally.add(Reason.LOOP, f"{folder}/")
                continue
            if folder:
                self.folders.append(folder)
            names, below = self._look(folder, path)
            left += [(joined(folder, name), above | {own}) for name in reversed(below)]
            if names:
                yield PictureFolder(path=folder, names=self._pictures_of(folder, names))

    def _look(self, folder: str, path: str) -> tuple[list[str], list[str]]:
        """Return the names of a folder's files and folders, without what is left out."""
        names, below = [], []
        for entry in entries_of(path):
            name, inner = entry.name, joined(folder, entry.name)
            kind = kind_of(entry)
            if kind == "folder" and not folder and name in self.skip:
                continue
            if name.startswith("."):
                self.tally.add(Reason.HIDDEN, f"{inner}/" if kind == "folder" else inner)
            elif kind == "folder":
                below.append(name)
            elif kind == "file":
                if folder or name not in TEXT_FILES:
                    names.append(name)
            else:
                self.tally.add(Reason.DANGLING if kind == "dangling" else Reason.FORMAT, inner)
        return names, below

    def _pictures_of(self, folder: str, names: Sequence[str]) -> list[str]:
        """Return which of the files are pictures; others are counted, unless they are texts of those."""
        pictures: list[str] = []
        others: list[str] = []
        for name in names:
            path = f"{self.root}/{joined(folder, name)}"
            (pictures if is_picture(path, name) else others).append(name)
        stems = {os.path.splitext(name)[0] for name in pictures} if others else set()
        for name in others:
            if name.endswith(TEXT) and name.removesuffix(TEXT) in stems:
                self.texts += 1
            else:
                self.tally.add(Reason.FORMAT, joined(folder, name))
        return pictures


def joined(folder: str, name: str) -> str:
    """Return the path of a name in a folder below the root, '' for the root."""
    return f"{folder}/{name}" if folder else name


def entries_of(path: str) -> list[os.DirEntry[str]]:
    """Return what lies in a folder, by name; UserError where it cannot be read."""
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        reason = error.strerror or str(error)
        raise read_error(path, error) or Refused(
            f"{path} could not be read ({reason})", fix="give yourself the right to read it, or take it away."
        ) from error


def kind_of(entry: os.DirEntry[str]) -> str:
    """Return ``folder``, ``file``, ``dangling`` of a link that leads to nothing, or ``other``."""
    try:
        if entry.is_dir():  # which knows a file from a folder without asking the disk again
            return "folder"
        if entry.is_file():
            return "file"
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    return "dangling" if entry.is_symlink() else "other"


def is_picture_name(name: str) -> bool:
    """Say whether a file of this name is taken as a picture unopened: a usual ending, and not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in ENDINGS


def is_picture(path: str, name: str) -> bool:
    """Say whether a file is taken as a picture: by its ending, else by its first bytes."""
    ending = os.path.splitext(name)[1].lower()
    if ending in ENDINGS or ending in _OTHERS:
        return ending in ENDINGS
    try:
        with open(path, "rb") as file:
            return bool(ending_of(file.read(_BEGINNING)))
    except OSError as error:
        if refused := read_error(path, error):
            raise refused from error
        return False
