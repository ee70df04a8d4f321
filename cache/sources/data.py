"""The one door to data: what the user names -> the source of each split."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from cache.runtime.errors import UserError, WrongOption, some_of
from cache.sources.dataset_source import PictureDataset, open_dataset
from cache.sources.joined_sources import joined
from cache.sources.places import expanded, is_remote, of_no_kind
from cache.sources.samples import DataFolder, Opened, Source
from cache.sources.source_options import AS_THEY_ARE, SourceOptions
from cache.sources.split_rules import EXAMPLE, selected
from cache.sources.splits import HELD_OUT, SPLITS, split_called, split_name

# What opens a place: (place, options, split) -> the sources of its splits. ``split`` is the name that all of
# it gets, '' where it is to say that itself; what does not say it either is under '', and what is called
# ``val`` may be under that.
Opener = Callable[[str, SourceOptions, str], Mapping[str, Source]]
# What images are given as: places, datasets, or one of these for the name of each split.
Data = (
    str
    | Path
    | PictureDataset
    | Sequence["str | Path | PictureDataset | Given"]
    | Mapping[str, "str | Path | PictureDataset"]
)
# What may be the name of a split.
_WORD = re.compile(r"[A-Za-z_-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """A source as the user names it: a ``place``, and the split that it is, '' where it says that itself.

    A split of :data:`~cache.sources.splits.HELD_OUT` is the ID or the OOD test, by its classes.
    """

    place: str
    split: str = ""
    dataset: PictureDataset | None = None

    @classmethod
    def all_of(cls, data: Data) -> list[Given]:
        """Return each source of what is given: one or several, or by the names of their splits."""
        if isinstance(data, (str, Path)):
            return [cls.parse(str(data))]
        if isinstance(data, Mapping):
            return [replace(cls.of(one), split=_split(split)) for split, one in data.items()]
        return [cls.of(data)] if not isinstance(data, list | tuple) else [cls.of(one) for one in data]

    @classmethod
    def of(cls, one: str | Path | PictureDataset | Given) -> Given:
        """Return a source that is named, or a dataset."""
        if isinstance(one, Given):
            return one
        if isinstance(one, (str, Path)):
            return cls.parse(str(one))
        if not isinstance(one, PictureDataset):
            raise UserError(
                f"a {type(one).__name__} is no source of images",
                fix="give a place, or a dataset with __len__ and __getitem__.",
            )
        return cls(place=type(one).__name__, dataset=one)

    @classmethod
    def parse(cls, text: str) -> Given:
        """Read ``SOURCE`` or ``SPLIT=SOURCE``; a path that has an equals sign and is there is a path.

        Raises
        ------
        WrongOption
            If it names no place, or no split before one.
        """
        name, equals, place = text.partition("=")
        if not (equals and _WORD.fullmatch(name)) or _is_path(text):
            name, place = "", text
        if not place.strip():
            raise WrongOption(f"{text!r} names no source", fix="give a folder, a list, tars or parquet.")
        return cls(place=place, split=_split(name, f"{text}: ") if name else "")

    def anywhere(self) -> Given:
        """Return it as it is found from any working folder; UserError for a dataset."""
        if self.dataset is not None:
            raise UserError(f"{self.place} is in this process alone", fix="leave the cluster out.")
        place = self.place if is_remote(self.place) else os.path.abspath(self.place)
        return replace(self, place=place)

    @property
    def text(self) -> str:
        """What a user writes for it, as :meth:`parse` reads it."""
        return f"{self.split}={self.place}" if self.split else self.place

    def open(self, options: SourceOptions) -> Mapping[str, Source]:
        """Return the sources of its splits."""
        split = split_name(self.split) if self.split else ""
        opened: Mapping[str, Source]
        if self.dataset is not None:
            opened = open_dataset(self.dataset, options, split)
        else:
            opened = opener_of(self.place)(self.place, options, split)
        if self.split != HELD_OUT:
            return opened
        notes = opened.notes if isinstance(opened, Opened) else ()
        return Opened(dict(zip([HELD_OUT], opened.values(), strict=True)), notes)

    @property
    def folder(self) -> Path:
        """The folder where files of texts are looked for: the place itself, or that of its file."""
        path = Path(self.place)
        return path if path.is_dir() or self.dataset is not None else path.parent


def open_data(data: Data, options: SourceOptions = AS_THEY_ARE) -> DataFolder:
    """Return the splits of a source or several: each ``SOURCE``, or ``SPLIT=SOURCE``, or a dataset.

    A source is a folder of pictures, a list, tars, parquet, or a folder saved by Hugging Face ``datasets``.
    Labelled images of no split are split by the rule of the options, else they are ``train``; others are
    ``pool``. Sources of one split are read one after the other. From Python a source may also be a dataset of
    (picture, label), and several be given by the names of their splits: ``{"train": dataset, ...}``.

    Raises
    ------
    UserError
        If a place is not there or holds nothing of use.
    """
    named = Given.all_of(data)
    if not named:
        raise UserError("no source of images is given", fix="name a folder, a list, tars or parquet.")
    sources: dict[str, list[Source]] = {}
    notes: list[str] = []
    unsplit = False
    for one in named:
        opened = one.open(options)
        notes += opened.notes if isinstance(opened, Opened) else ()
        unsplit = unsplit or ("" in opened and bool(opened[""].classes))
        for split, source in _with_splits(one, opened, options, notes).items():
            sources.setdefault(split, []).append(source)
    if options.rule and not unsplit:
        raise UserError(
            "--split has nothing to split: no images have labels and no split",
            fix="leave it out, or give the folder of classes itself, such as DATA/train, and no SPLIT=.",
        )
    if HELD_OUT in sources:
        _place_val(sources, notes)
    return DataFolder(
        path=named[0].folder,
        splits={name: joined(name, sources[name]) for name in SPLITS if name in sources},
        notes=tuple(notes),
        given=tuple(one.anywhere().text for one in named if one.dataset is None),
    )


def _split(name: str, before: str = "") -> str:
    """Return the split that a name is of, as data call it; WrongOption for none."""
    try:
        return split_called(name) or split_name(name)
    except UserError as error:
        raise WrongOption(f"{before}{error.problem}", fix=error.fix) from error


def _is_path(text: str) -> bool:
    """Say whether a text with an equals sign is a path, or a pattern of some."""
    return os.path.exists(text) or any(map(os.path.exists, expanded(text)))


def opener_of(place: str) -> Opener:
    """Return what opens a place, by its ending, or by what lies in it where it is a folder."""
    from cache.sources.file_list import open_list
    from cache.sources.image_folder import open_image_folder
    from cache.sources.list_lines import LISTS
    from cache.sources.parquet import holds_parquet, open_parquet
    from cache.sources.remote_folder import open_remote_folder
    from cache.sources.saved_dataset import is_saved_dataset, open_saved_dataset
    from cache.sources.tars import holds_tars, is_pattern_of_tars, open_tars

    if place.lower().endswith(LISTS):
        return open_list
    if is_saved_dataset(place):
        return open_saved_dataset
    if not holds_tars(place) and holds_parquet(place):  # beside its tars img2dataset writes some too
        return open_parquet
    if is_remote(place) and not is_pattern_of_tars(place):
        return open_remote_folder
    if os.path.isfile(place) and not holds_tars(place):
        raise of_no_kind(place)
    return open_tars if holds_tars(place) else open_image_folder


def check_used(data: Data, options: SourceOptions) -> None:
    """Refuse options that say how sources of another kind are read; WrongOption names option and sources."""
    from cache.sources.file_list import open_list
    from cache.sources.image_folder import open_image_folder
    from cache.sources.parquet import open_parquet
    from cache.sources.remote_folder import open_remote_folder
    from cache.sources.saved_dataset import open_saved_dataset

    names = [one.name for one in fields(options.columns) if getattr(options.columns, one.name)]
    columns = [f"--{name}-column" for name in names]
    asked = [*columns, *(["--class-depth"] if options.class_depth != 1 else [])]
    if not asked:
        return
    named = Given.all_of(data)
    kinds = [None if one.dataset is not None else opener_of(one.place) for one in named]
    of_tables = "lists, parquet and saved datasets", {open_list, open_parquet, open_saved_dataset}
    of_folders = "folders of pictures", {open_image_folder, open_remote_folder}
    for option in asked:
        whose, openers = of_tables if option in columns else of_folders
        if not openers.intersection(kinds):
            raise WrongOption(
                f"{option} is for {whose}: it does nothing for {some_of([one.place for one in named])}",
                fix="leave it out.",
            )


def _with_splits(
    given: Given, opened: Mapping[str, Source], options: SourceOptions, notes: list[str]
) -> dict[str, Source]:
    """Return the sources of a place by split, what says none of its own too; ``notes`` say how."""
    splits = {name: source for name, source in opened.items() if name}
    source = opened.get("")
    if source is None:
        return splits
    if not source.classes:
        is_folder = os.path.isdir(given.place)
        hint = f" (train={given.place} if its folders are classes)" if is_folder else ""
        notes.append(f"{given.place} has no classes: all of it is pool{hint}")
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
    val = sources.pop(HELD_OUT)
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
