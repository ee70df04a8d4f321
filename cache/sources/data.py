"""The one door to data: what the user names -> the source of each split."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.runtime.errors import UserError
from cache.sources.joined_sources import joined
from cache.sources.places import is_remote
from cache.sources.samples import DataFolder, Opened, Source
from cache.sources.source_options import AS_THEY_ARE, SourceOptions
from cache.sources.split_rules import EXAMPLE, selected
from cache.sources.splits import SPLIT_ALIASES, SPLITS, split_name

# What opens a place: (place, options, split) -> the sources of its splits. ``split`` is the name that all of
# it gets, '' where it is to say that itself; what does not say it either is under '', and what is called
# ``val`` may be under that.
Opener = Callable[[str, SourceOptions, str], Mapping[str, Source]]
# The name of a split that may be the ID or the OOD test: its classes decide, as those of ImageNet's folders.
VAL = "val"


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """A source as the user names it: a ``place``, and the split that it is, '' where it says that itself."""

    place: str
    split: str = ""

    @classmethod
    def parse(cls, text: str) -> Given:
        """Read ``SOURCE`` or ``SPLIT=SOURCE``; a path that has an equals sign and is there is a path."""
        name, equals, place = text.partition("=")
        if equals and (name in SPLITS or name in SPLIT_ALIASES) and not os.path.exists(text):
            return cls(place=place, split=split_name(name))
        return cls(place=text)

    def anywhere(self) -> str:
        """Return it as it is named from any working folder."""
        place = self.place if is_remote(self.place) else os.path.abspath(self.place)
        return f"{self.split}={place}" if self.split else place


def open_data(given: Sequence[str | Path], options: SourceOptions = AS_THEY_ARE) -> DataFolder:
    """Return the splits of some sources: each ``SOURCE``, or ``SPLIT=SOURCE``.

    A source is a folder of pictures, a list, tars, parquet, or a folder saved by Hugging Face ``datasets``.
    Labelled images of no split are split by the rule of the options, else they are ``train``; others are
    ``pool``. Sources of one split are read one after the other.

    Raises
    ------
    UserError
        If a place is not there or holds nothing of use.
    """
    if not given:
        raise UserError("no source of images is given", fix="name a folder, a list, tars or parquet.")
    sources: dict[str, list[Source]] = {}
    notes: list[str] = []
    unsplit = False
    named = [Given.parse(str(one)) for one in given]
    for one in named:
        opened = opener_of(one.place)(one.place, options, one.split)
        notes += opened.notes if isinstance(opened, Opened) else ()
        unsplit = unsplit or ("" in opened and bool(opened[""].classes))
        for split, source in _with_splits(one, opened, options, notes).items():
            sources.setdefault(split, []).append(source)
    if options.rule and not unsplit:
        raise UserError(
            "--split has nothing to split: no images have labels and no split", fix="leave it out."
        )
    if VAL in sources:
        _place_val(sources, notes)
    return DataFolder(
        path=_folder_of(named[0].place),
        splits={name: joined(name, sources[name]) for name in SPLITS if name in sources},
        notes=tuple(notes),
        given=tuple(one.anywhere() for one in named),
    )


def opener_of(place: str) -> Opener:
    """Return what opens a place, by its ending, or by what lies in it where it is a folder."""
    from cache.sources.file_list import open_list
    from cache.sources.image_folder import open_image_folder
    from cache.sources.list_lines import LISTS
    from cache.sources.parquet import holds_parquet, open_parquet
    from cache.sources.saved_dataset import is_saved_dataset, open_saved_dataset
    from cache.sources.tars import holds_tars, open_tars

    if place.lower().endswith(LISTS):
        return open_list
    if is_saved_dataset(place):
        return open_saved_dataset
    if not holds_tars(place) and holds_parquet(place):  # beside its tars img2dataset writes some too
        return open_parquet
    return open_tars if holds_tars(place) else open_image_folder


def _with_splits(
    given: Given, opened: Mapping[str, Source], options: SourceOptions, notes: list[str]
) -> dict[str, Source]:
    """Return the sources of a place by split, what says none of its own too; ``notes`` say how."""
    splits = {name: source for name, source in opened.items() if name}
    source = opened.get("")
    if source is None:
        return splits
    if not source.classes:
        notes.append(f"{given.place} has no classes: all of it is pool (train={given.place} if it has)")
        more = {"pool": source}
    elif options.rule:
        more = selected(source, options.rule)
        notes.append(options.rule.note(source.classes))
    else:
        more = {"train": source}
        notes.append(
            f"{given.place} has {len(source.classes):,} classes and no splits: all of it is train "
            f"(--split '{EXAMPLE}' makes tests of it; pool={given.place} if these are no classes)"
        )
    for name, one in more.items():
        splits[name] = joined(name, [splits[name], one] if name in splits else [one])
    return splits


def _place_val(sources: dict[str, list[Source]], notes: list[str]) -> None:
    """Decide what ``val`` is: with classes of train alone the ID test, else the OOD test."""
    val = sources.pop(VAL)
    classes = {name for source in val for name in source.classes}
    trained = {name for source in sources.get("train", ()) for name in source.classes}
    split = "id_test" if classes <= trained and "id_test" not in sources else "ood_test"
    if split in sources:
        raise UserError(
            f"there is val and there is {split} as well", fix="make them one, or leave one of them out."
        )
    if split == "id_test":
        notes.append("val has no other classes than train: it is the ID test")
    sources[split] = val


def _folder_of(place: str) -> Path:
    """Return the folder where files of texts are looked for: the place itself, or that of its file."""
    path = Path(place)
    return path if path.is_dir() else path.parent
