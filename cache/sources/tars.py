"""Tars as webdataset, img2dataset and open_clip write them: a sample is the files of one name, endings apart.

``KEY.jpg`` (or another picture), ``KEY.cls`` (a class: its name, or its number among given names),
``KEY.txt`` or the ``caption`` of ``KEY.json``. A chunk is a tar; pictures are read at their place in it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

from cache.runtime.errors import UserError
from cache.sources.accounts import NOTHING, Account, Reason
from cache.sources.chunk_looks import ChunkListing
from cache.sources.class_numbers import class_name
from cache.sources.decoding import ENDINGS
from cache.sources.listed_chunks import ListedChunks
from cache.sources.names import check_inner
from cache.sources.pictures import PictureSample
from cache.sources.places import cannot_be_read, expanded, is_remote, list_folder, status_of
from cache.sources.samples import Chunk, Opened, Source
from cache.sources.source_options import SourceOptions
from cache.sources.splits import NAMES, split_called, splits_called
from cache.sources.tar_members import TEXT_BYTES, Member, TarReader

TAR = ".tar"
_PICTURES = frozenset(ending.removeprefix(".") for ending in ENDINGS)
_TEXTS = frozenset({"cls", "txt", "json"})
# As webdataset has it: a name is all up to the first dot of its last part, what is behind it the ending.
_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)
# webdataset passes over what is called so, or lies in a folder that is.
_META = re.compile(r"__[^/]*__(?:/.*)?", re.DOTALL)
# The last words of a tar's name before its number: of val_on_train not the very last alone.
_OWN_NAME = re.compile(rf"(?:.*?[-_.])??({'|'.join(NAMES)})(?:[-_.]?\d+(?:-of-\d+)?)?\.tar", re.IGNORECASE)
# What img2dataset writes beside each tar.
_BESIDE = (".parquet", "_stats.json")
# Headers on a server are waited for.
THREADS = 8


def open_tars(place: str, options: SourceOptions, split: str) -> Opened:
    """Return the splits of a pattern such as ``shards/{000..099}.tar``, or of a folder of tars.

    Tars lie in folders that are called as splits, or are called so themselves: ``SPLIT-00000.tar``.

    Raises
    ------
    UserError
        If there is no tar, or one is damaged.
    """
    if is_pattern_of_tars(place):
        tars, others = expanded(place), []
    else:
        try:
            names = sorted(list_folder(place))
        except OSError as error:
            raise cannot_be_read(place, error) from error
        tars = [f"{place.rstrip('/')}/{name}" for name in names if name.endswith(TAR)]
        others = [name for name in names if not name.endswith(TAR)]
    return tar_sources(place, tars, options, split, beside=others)


def tar_sources(
    place: str, tars: Sequence[str], options: SourceOptions, split: str, *, beside: Sequence[str] = ()
) -> Opened:
    """Return the splits of some tars of a place; ``beside`` are the names of other files there."""
    if not tars:
        raise UserError(f"{place} names no {TAR} file", fix="check the pattern.")
    left_out = Account.of(
        (Reason.HIDDEN if name.rpartition("/")[2].startswith(".") else Reason.FORMAT, name)
        for name in beside
        if not name.endswith(_BESIDE)
    )
    of_split: dict[str, list[str]] = {}
    for tar, called in zip(tars, splits_called([*map(_called, tars)]), strict=True):
        of_split.setdefault(split or called, []).append(tar)
    sources: dict[str, Source] = {}
    for name, own in of_split.items():
        source = TarSource.of(name, tuple(own), options, beside=left_out if not sources else NOTHING)
        sources[name] = source
        if name and name != "pool" and not source.classes:
            raise UserError(
                f"{place} has no label in the {len(own):,} tars of {name}",
                fix=f"write KEY.cls beside each picture, or give pool={place}.",
            )
        if source.is_empty:
            raise UserError(
                f"{place} has no picture{f' of {name}' if name else ''} in its {len(own):,} tars",
                fix="check that samples have one: KEY.jpg, KEY.png or another.",
            )
    return Opened(sources)


def is_pattern_of_tars(place: str) -> bool:
    """Say whether a place is a tar or a pattern of tars, by its name."""
    return place.endswith(TAR) and not os.path.isdir(place)


def holds_tars(place: str) -> bool:
    """Say whether a place here is a tar, a pattern of tars, or a folder with tars and no picture outside."""
    if is_pattern_of_tars(place):
        return True
    # A folder of pictures ends this at its first one.
    tars = False
    for name in list_folder(place) if os.path.isdir(place) else ():
        if os.path.splitext(name)[1].lower() in ENDINGS:
            return False
        tars = tars or name.endswith(TAR)
    return tars


def _called(tar: str) -> str:
    """Return what a tar's folder or name calls its split, or ''."""
    *_, folder, name = f"/{tar}".rsplit("/", 2)
    own = _OWN_NAME.fullmatch(name)
    return folder if split_called(folder) else own[1] if own else ""


class TarSource(ListedChunks):
    """The samples of some tars, as one split; ``beside`` is what was left out beside the tars."""

    def __init__(
        self, split: str, tars: tuple[str, ...], options: SourceOptions, *, beside: Account = NOTHING
    ) -> None:
        super().__init__()
        self.split, self.classes, self._options, self._beside = split, (), options, beside
        names = [os.path.basename(tar) for tar in tars]
        # An id stays as it is when tars are added, or all are moved.
        self._tar_of = dict(zip(names if len({*names}) == len(names) else tars, tars, strict=True))

    @classmethod
    def of(
        cls, split: str, tars: tuple[str, ...], options: SourceOptions, *, beside: Account = NOTHING
    ) -> TarSource:
        """Return the source of some tars, each listed once; UserError as :meth:`listing`."""
        source = cls(split, tars, options, beside=beside)
        source.settle(threads=THREADS if is_remote(tars[0]) else 1)
        return source

    def account(self) -> Account:
        """Return what is left out of the tars, and beside them."""
        return self._beside + super().account()

    def chunks(self) -> Sequence[Chunk]:
        """Return the tars, with size and time in their identity; UserError where one cannot be read."""
        return [
            Chunk(id=name, identity=_identity(self._status[tar], self._options))
            for name, tar in self._tar_of.items()
        ]

    @cached_property
    def _status(self) -> dict[str, tuple[int, int]]:
        """Size and time of each tar, as they were when it was first looked at: before it was listed."""
        tars = [*self._tar_of.values()]
        with ThreadPoolExecutor(THREADS) as pool:
            return dict(zip(tars, pool.map(_status, tars), strict=True))

    def listing(self, chunk: str) -> ChunkListing:
        """List a tar by its headers and texts.

        Raises
        ------
        UserError
            If the tar cannot be read, or is cut or damaged.
        """
        tar = self._tar_of[chunk]
        written = self._status[tar][1]
        samples: dict[str, PictureSample] = {}
        left_out: list[tuple[Reason, str]] = []
        # One value for all samples of a class: fewer are made, and kept.
        labels: dict[tuple[str, ...], tuple[str, ...]] = {}
        for raw in _raw_samples(tar, left_out):
            key, picture = raw.key, raw.picture
            if picture is None:
                left_out.append((Reason.NO_PICTURE, f"{tar}: {key}"))
            elif not _is_inner(key):
                left_out.append((Reason.OUTSIDE, f"{tar}: {key}"))
            elif key in samples:
                left_out.append((Reason.DUPLICATE, f"{tar}: {key}"))
            else:
                own = () if self.split == "pool" else raw.labels(self._options.names)
                own = labels.setdefault(own, own)
                samples[key] = self._sample(tar, raw, picture, key=key, labels=own, written=written)
        return ChunkListing(samples=tuple(samples.values()), account=Account.of(left_out))

    def _sample(
        self, tar: str, raw: _RawSample, picture: Member, *, key: str, labels: tuple[str, ...], written: int
    ) -> PictureSample:
        return PictureSample(
            key=key,
            place=tar,
            labels=labels,
            caption=raw.caption,
            start=picture.start,
            size=picture.bytes,
            file_bytes=picture.bytes,
            # Some writers give none to any file: then it is that of the tar.
            mtime_ns=picture.mtime_ns or written,
            decoding=self._options.decoding,
        )


def _is_inner(key: str) -> bool:
    try:
        check_inner("a sample", [key])
        key.encode("utf-8", "surrogateescape")
    except ValueError:
        return False
    return True


def _status(tar: str) -> tuple[int, int]:
    try:
        return status_of(tar)
    except OSError as error:
        raise cannot_be_read(tar, error) from error


def _identity(status: tuple[int, int], options: SourceOptions) -> str:
    return sha256(repr((status, options.names)).encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(kw_only=True)
class _RawSample:
    """The members of one name: its picture, and the texts beside it by ending."""

    tar: str
    name: str
    picture: Member | None = None
    texts: dict[str, bytes] = field(default_factory=dict)

    @cached_property
    def _json(self) -> Mapping[str, Any]:
        if "json" not in self.texts:
            return {}
        try:
            value = json.loads(self.texts["json"])
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    @cached_property
    def _own(self) -> tuple[str, tuple[str, ...]] | None:
        """The key and the labels that a cache's own tar says of it: its names cannot hold every key."""
        key, labels = self._json.get("key"), self._json.get("labels")
        if not (isinstance(key, str) and key and "sha256" in self._json and isinstance(labels, list)):
            return None
        return (key, tuple(labels)) if all(isinstance(name, str) for name in labels) else None

    @property
    def key(self) -> str:
        """The name, or in a cache's own tar the key."""
        return self._own[0] if self._own else self.name

    @property
    def caption(self) -> str | None:
        """The text beside the picture, else the caption in its JSON."""
        caption = self._json.get("caption")
        if "txt" in self.texts:
            caption = self.texts["txt"].decode("utf-8", "replace")
        if not isinstance(caption, str):
            return None
        caption = caption.encode("utf-8", "replace").decode()
        return " ".join(caption.replace("\0", " ").split()) or None

    def labels(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names of its classes: of a cache's own tar as it says, else what ``.cls`` holds.

        UserError where that is a number beyond ``names``, or no name of a class.
        """
        where = f"{self.tar}: {self.name}"
        if self._own:
            return tuple(class_name(name, (), f"{where}.json") for name in self._own[1])
        text = self.texts.get("cls", b"").decode("utf-8", "replace").strip()
        return (class_name(text, names, f"{where}.cls"),) if text else ()


def _raw_samples(tar: str, left_out: list[tuple[Reason, str]]) -> Iterator[_RawSample]:
    """Yield the samples of a tar: files of one name that follow each other; what is none is ``left_out``."""
    sample: _RawSample | None = None
    with TarReader(tar) as reader:
        for member in reader.members():
            name = member.name.removeprefix("./")
            if _META.match(name):
                continue
            parts = _NAME.fullmatch(name)
            if parts is None:
                hidden = name.rpartition("/")[2].startswith(".")
                left_out.append((Reason.HIDDEN if hidden else Reason.FORMAT, f"{tar}: {name}"))
                continue
            if sample is None or sample.name != parts[1]:
                if sample is not None:
                    yield sample
                sample = _RawSample(tar=tar, name=parts[1])
            _take(sample, parts[2].lower(), member, reader)
    if sample is not None:
        yield sample


def _take(sample: _RawSample, ending: str, member: Member, reader: TarReader) -> None:
    if ending in _TEXTS and member.bytes <= TEXT_BYTES:
        sample.texts[ending] = reader.read(member)
    elif sample.picture is None and ending.rpartition(".")[2] in _PICTURES:
        sample.picture = member
