"""The one door to data: what the user names -> the source of each split."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.runtime.errors import UserError
from cache.sources.joined_sources import joined
from cache.sources.samples import DataFolder, Source
from cache.sources.source_options import SourceOptions
from cache.sources.split_rules import selected
from cache.sources.splits import SPLIT_ALIASES, SPLITS, split_name

# What opens a place: (place, options, split) -> the sources of its splits. ``split`` is the name that all of
# it gets, '' where it is to say that itself; what does not say it either is under ''.
Opener = Callable[[str, SourceOptions, str], Mapping[str, Source]]


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


def open_data(given: Sequence[str | Path], options: SourceOptions | None = None) -> DataFolder:
    """Return the splits of some sources: each ``SOURCE``, or ``SPLIT=SOURCE``.

    A source is a folder of pictures, a list, tars, parquet, or a folder saved by Hugging Face ``datasets``.
    Labelled images of no split are split by the rule of the options, else they are ``train``; others are
    ``pool``. Sources of one split are read one after the other.

    Raises
    ------
    UserError
        If a place is not there or holds nothing of use.
    """
    options = options or SourceOptions()
    if not given:
        raise UserError("no source of images is given", fix="name a folder, a list, tars or parquet.")
    sources: dict[str, list[Source]] = {}
    named = [Given.parse(str(one)) for one in given]
    for one in named:
        opened = opener_of(one.place)(one.place, options, one.split)
        for split, source in _with_splits(opened, options).items():
            sources.setdefault(split, []).append(source)
    return DataFolder(
        path=_folder_of(named[0].place),
        splits={name: joined(name, sources[name]) for name in SPLITS if name in sources},
    )


def opener_of(place: str) -> Opener:
    """Return what opens a place, by its ending, or by what lies in it where it is a folder."""
    from cache.sources.file_list import LISTS, open_list
    from cache.sources.image_folder import open_image_folder
    from cache.sources.tars import holds_tars, open_tars

    if place.lower().endswith(LISTS):
        return open_list
    return open_tars if holds_tars(place) else open_image_folder


def _with_splits(opened: Mapping[str, Source], options: SourceOptions) -> dict[str, Source]:
    splits = {name: source for name, source in opened.items() if name}
    if "" in opened:
        source = opened[""]
        if not source.classes:
            more = {"pool": source}
        else:
            more = selected(source, options.rule) if options.rule else {"train": source}
        for name, one in more.items():
            splits[name] = joined(name, [splits[name], one] if name in splits else [one])
    return splits


def _folder_of(place: str) -> Path:
    """Return the folder where files of texts are looked for: the place itself, or that of its file."""
    path = Path(place)
    return path if path.is_dir() else path.parent
