"""What folders and lists say of photos: a name, a split, or nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cache.runtime.errors import UserError, some_of
from cache.sources.accounts import Account
from cache.sources.class_texts import LABELS, class_names_of
from cache.sources.data import opener_of
from cache.sources.file_list import open_list
from cache.sources.folder_listing import is_utf8
from cache.sources.folder_walk import FolderWalk, entries_of, joined, kind_of
from cache.sources.image_folder import open_image_folder
from cache.sources.list_columns import AS_USUAL
from cache.sources.list_lines import ListFile
from cache.sources.places import is_remote
from cache.sources.records import folder_of, key_of_path
from cache.sources.split_folders import SplitFolders
from cache.sources.splits import split_called, split_name
from distill.adapt.names import Names


class Photo(NamedTuple):
    """A photo by its ``place``, and what is said of it: ``name`` is its class, '' of none, as is ``split``.

    A tuple, because a million of them are made in a row.
    """

    place: str
    key: str
    name: str = ""
    split: str = ""


@dataclass(kw_only=True)
class Labels:
    """Reads sources; meanwhile counts what is left out, and labels that are none of the ``names``."""

    names: Names
    unknown: Counter[str] = field(default_factory=Counter)
    several: int = 0
    left_out: Account = field(default_factory=Account)
    odd: int = 0

    def photos_of(self, source: str, *, before: str = "") -> Iterator[Photo]:
        """Yield the photos of a folder or a list, whose keys begin with ``before``.

        UserError where there is nothing, or it is neither.
        """
        if not is_remote(source) and not os.path.exists(source):
            raise UserError(f"{source} does not exist", fix="check the path.")
        opener = opener_of(source)
        if opener is open_list:
            return self._of_list(source, before)
        if opener is open_image_folder:
            return self._of_folder(os.path.abspath(source), before)
        raise UserError(
            f"{source} is neither a folder of photos nor a list of them",
            fix="make a cache of it with 'distill cache-features', and give that with --cache.",
        )

    def notes(self) -> list[str]:
        """Return lines on what was left out, and on what was not understood."""
        lines = [f"left out: {line}" for line in self.left_out.in_words()]
        if self.odd:
            lines.append(f"left out: {self.odd:,} whose paths are not UTF-8")
        if self.unknown:
            named = [f"{name!r} ({count:,})" for name, count in self.unknown.most_common()]
            lines.append(f"of no name in the list, and so without a label: {some_of(named)}")
        if self.several:
            lines.append(f"of several labels, and so without one: {self.several:,} photos")
        return lines

    def _of_folder(self, root: str, before: str) -> Iterator[Photo]:
        walk = FolderWalk(root=root)
        folders = [entry.name for entry in entries_of(root) if kind_of(entry) == "folder"]
        folders = [name for name in folders if not name.startswith(".")]
        taken = SplitFolders(place=root, folders=folders, has_folders=lambda name: _has_folders(root, name))
        splits = {folder: split for split, folder in taken.taken().items()}
        splits |= dict.fromkeys(taken.pool(), "pool")
        labels = Path(root) / LABELS
        words = class_names_of(labels, ()) if labels.is_file() else {}
        for folder in walk.pictures():
            parts = [part for part in folder.path.split("/") if part]
            split = splits.get(parts[0], "") if parts else ""
            name = "" if split == "pool" else self._nearest(parts[bool(split) :], words)
            if not name and parts and split not in ("", "pool"):
                self.unknown[parts[-1]] += len(folder.names)
            for file in folder.names:
                key = joined(folder.path, file)
                if is_utf8(key):
                    yield Photo(f"{root}/{key}", joined(before, key), name, split)
                else:
                    self.odd += 1
        self.left_out += walk.tally.account()

    def _nearest(self, parts: list[str], words: Mapping[str, str]) -> str:
        """Return the class of the folder nearest to a photo that is called as a name, '' for none."""
        found = (self.names.find(part) or self.names.find(words.get(part, "")) for part in reversed(parts))
        return next(filter(None, found), "")

    def _of_list(self, place: str, before: str) -> Iterator[Photo]:
        for _, records in ListFile.open(place, AS_USUAL).blocks():
            for record in records:
                path = record.path
                if not path:
                    continue
                where = path if is_remote(path) else os.path.abspath(os.path.join(folder_of(place), path))
                split = split_called(record.split) or split_name(record.split) if record.split else ""
                self.several += len(record.labels) > 1
                label = record.labels[0] if len(record.labels) == 1 else ""
                name = "" if split == "pool" else self._named(label)
                if label and not name and split != "pool":
                    self.unknown[label] += 1
                yield Photo(
                    where, record.key or joined(before, key_of_path(path, folder_of(place))), name, split
                )

    def _named(self, label: str) -> str:
        """Return the class that a cell means: a name, or the number of one, from 0."""
        classes = self.names.classes
        numbered = label.isdecimal() and int(label[:9]) < len(classes)
        return self.names.find(label) or (classes[int(label)] if numbered else "")


def _has_folders(root: str, name: str) -> bool:
    return any(kind_of(entry) == "folder" for entry in entries_of(f"{root}/{name}"))
