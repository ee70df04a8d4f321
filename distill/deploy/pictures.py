"""The pictures of files, folders and any other source, one after the other: no list of them is made."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from cache.runtime.errors import WrongOption
from cache.sources.accounts import Account
from cache.sources.data import Given
from cache.sources.decoding import ENDINGS
from cache.sources.image_folder import ImageSample, ImageSource
from cache.sources.list_lines import LISTS
from cache.sources.parquet import holds_parquet
from cache.sources.pictures import PictureSample
from cache.sources.places import expanded, is_remote
from cache.sources.samples import Opened, Sample, Source
from cache.sources.source_options import AS_THEY_ARE, SourceOptions
from cache.sources.splits import POOL
from cache.sources.tars import holds_tars


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What was named, by the names of its splits: sources, and single files; '' is of no split."""

    parts: Sequence[tuple[str, Source | PictureSample]]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, places: Iterable[str]) -> Pictures:
        """Return all pictures of some places, whatever their splits and labels: files, folders, sources.

        What is hidden is left out of a folder. WrongOption if there is no such place, UserError if it holds
        no picture.
        """
        parts: list[tuple[str, Source | PictureSample]] = []
        notes: list[str] = []
        for place in dict.fromkeys(places):
            if _is_picture(place):
                parts.append(("", PictureSample(key=place, place=place)))
                continue
            opened = Given(place=place, split=POOL).open(AS_THEY_ARE)
            notes += opened.notes if isinstance(opened, Opened) else ()
            parts += (("", source) for source in opened.values())
        return cls(parts=parts, notes=tuple(notes))

    @classmethod
    def labelled(cls, place: str, options: SourceOptions) -> Pictures:
        """Return the pictures of a source by split, where it has any, with labels: ``[SPLIT=]SOURCE``."""
        given = Given.parse(place)
        _check_there(given.place)
        opened = given.open(options)
        notes = opened.notes if isinstance(opened, Opened) else ()
        return cls(parts=[*opened.items()], notes=notes)

    def __len__(self) -> int:
        return sum(1 if isinstance(part, PictureSample) else len(part) for _, part in self.parts)

    def __iter__(self) -> Iterator[tuple[str, Sample]]:
        """Yield every picture with the name of its split."""
        for split, part in self.parts:
            yield from ((split, sample) for sample in _samples(part))

    @property
    def account(self) -> Account:
        """What sources leave out."""
        sources = (part for _, part in self.parts if not isinstance(part, PictureSample))
        return sum((source.account() for source in sources), Account())


def _samples(part: Source | PictureSample) -> Iterator[Sample]:
    if isinstance(part, PictureSample):
        return iter([part])
    if isinstance(part, ImageSource):  # in the order of folders, and no file is looked at before its turn
        keys = part.listing.keys()
        return (ImageSample(key=key, of=part.of) for key in keys)
    return chain.from_iterable(part.read(chunk.id) for chunk in part.chunks())


def _is_picture(place: str) -> bool:
    """Say whether a place is the file of one picture; WrongOption where there is nothing."""
    if is_remote(place):
        return os.path.splitext(place.partition("?")[0])[1].lower() in ENDINGS
    _check_there(place)
    if place.lower().endswith(".txt") and os.path.isfile(place):
        raise WrongOption(
            f"{place} is a text, no picture",
            fix="a list of pictures is .csv, .tsv or .jsonl, with the columns path, or path and label.",
        )
    of_several = place.lower().endswith(LISTS) or holds_parquet(place) or holds_tars(place)
    return os.path.isfile(place) and not of_several


def _check_there(place: str) -> None:
    if not is_remote(place) and not any(map(os.path.exists, expanded(place))):
        raise WrongOption(f"{place} does not exist", fix="check the path.")
