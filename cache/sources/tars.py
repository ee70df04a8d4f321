"""Tars as webdataset, img2dataset and open_clip write them: a sample is the files of one name, endings apart.

``KEY.jpg`` (or another picture), ``KEY.cls`` (a class: its name, or its number among given names),
``KEY.txt`` or the ``caption`` of ``KEY.json``. A chunk is a tar; pictures are read at their place in it.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from glob import escape, glob
from hashlib import sha256
from typing import Any

from cache.runtime.errors import UserError
from cache.sources.accounts import Account, Reason
from cache.sources.class_numbers import class_name
from cache.sources.decoding import ENDINGS
from cache.sources.listed_chunks import ChunkListing, ListedChunks
from cache.sources.names import check_inner
from cache.sources.pictures import PictureSample
from cache.sources.places import expanded, is_remote, list_folder, open_binary, status_of
from cache.sources.samples import Chunk, Source
from cache.sources.source_options import SourceOptions
from cache.sources.splits import SPLIT_ALIASES, SPLITS, split_name

TAR = ".tar"
_PICTURES = frozenset(ending.removeprefix(".") for ending in ENDINGS)
_TEXTS = frozenset({"cls", "txt", "json"})
# As webdataset has it: a name is all up to the first dot of its last part, what is behind it the ending.
_NAME = re.compile(r"((?:.*/)?[^./][^./]*|(?:.*/)?)\.([^/]*)", re.DOTALL)
# webdataset passes over what is called so.
_META = re.compile(r"(?:.*/)?__[^/]*__(?:/.*)?", re.DOTALL)
# No text of a sample is longer: what claims to be is another kind of file.
TEXT_BYTES = 2**20
_OWN_NAME = re.compile(rf"({'|'.join([*SPLITS, *SPLIT_ALIASES])})-\d+\.tar")


def open_tars(place: str, options: SourceOptions, split: str) -> dict[str, Source]:
    """Return the splits of a pattern such as ``shards/{000..099}.tar``, or of a folder of tars.

    A folder may hold folders that are called as splits; else tars may be called ``SPLIT-00000.tar``.

    Raises
    ------
    UserError
        If there is no tar, or one is damaged.
    """
    of_split: dict[str, list[str]] = {}
    for tar in tars_at(place):
        of_split.setdefault(split or _split_of(tar), []).append(tar)
    return {name: TarSource.of(name, tuple(tars), options) for name, tars in of_split.items()}


def holds_tars(place: str) -> bool:
    """Say whether a place is a tar, a pattern of tars, or a folder of tars."""
    if place.endswith(TAR):
        return True
    if is_remote(place) or not os.path.isdir(place):
        return False
    folders = [place, *(f"{place}/{name}" for name in (*SPLITS, *SPLIT_ALIASES))]
    return any(glob(f"{escape(folder)}/*{TAR}") for folder in folders)


def tars_at(place: str) -> list[str]:
    """Return the tars of a pattern or below a folder, sorted; UserError where there is none."""
    if place.endswith(TAR):
        tars = [*expanded(place)]
    else:
        tars = [f"{place.rstrip('/')}/{name}" for name in list_folder(place) if name.endswith(TAR)]
    if not tars:
        raise UserError(f"{place} has no {TAR} files", fix="check the pattern.")
    for tar in tars:
        if not is_remote(tar) and not os.path.isfile(tar):
            raise UserError(f"{tar} does not exist", fix="check the numbers in the pattern.")
    return sorted(tars)


def _split_of(tar: str) -> str:
    *_, folder, name = f"/{tar}".rsplit("/", 2)
    if folder in SPLITS or folder in SPLIT_ALIASES:
        return split_name(folder)
    own = _OWN_NAME.fullmatch(name)
    return split_name(own[1]) if own else ""


class TarSource(ListedChunks):
    """The samples of some tars, as one split."""

    def __init__(
        self, split: str, tars: tuple[str, ...], options: SourceOptions, *, classes: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.split, self.tars, self.classes, self._options = split, tars, tuple(classes), options
        names = [os.path.basename(tar) for tar in tars]
        # An id stays as it is when tars are added, or all are moved.
        self._tar_of = dict(zip(names if len({*names}) == len(names) else tars, tars, strict=True))

    @classmethod
    def of(cls, split: str, tars: tuple[str, ...], options: SourceOptions) -> TarSource:
        """Return the source of some tars, with the classes that are in them; UserError as :meth:`listing`."""
        source = cls(split, tars, options)
        if split == "pool":
            return source
        labels = {sample.labels for tar in source._tar_of for sample in source.read(tar)}
        classes = sorted({name for own in labels for name in own})
        labelled = cls(split, tars, options, classes=classes)
        labelled.multi_label = any(len(own) > 1 for own in labels)
        return labelled

    def chunks(self) -> Sequence[Chunk]:
        """Return the tars, with size and time in their identity."""
        return [
            Chunk(id=name, identity=sha256(repr(status_of(tar)).encode()).hexdigest())
            for name, tar in self._tar_of.items()
        ]

    def listing(self, chunk: str) -> ChunkListing:
        """List a tar by its headers and texts.

        Raises
        ------
        UserError
            If the tar is cut or damaged.
        """
        tar = self._tar_of[chunk]
        samples: dict[str, PictureSample] = {}
        left_out: list[tuple[Reason, str]] = []
        for raw in _raw_samples(tar):
            key = raw.key
            try:
                check_inner("a sample", [key])
            except ValueError:
                left_out.append((Reason.NAME, f"{tar}: {key}"))
                continue
            if raw.picture is None:
                left_out.append((Reason.NO_PICTURE, f"{tar}: {key}"))
            elif key in samples:
                left_out.append((Reason.DUPLICATE, f"{tar}: {key}"))
            else:
                sample = self._sample(tar, raw, raw.picture)
                if self.classes and not sample.labels and not self.multi_label:
                    left_out.append((Reason.NO_LABEL, sample.where))
                else:
                    samples[key] = sample
        return ChunkListing(samples=tuple(samples.values()), account=Account.of(left_out))

    def _sample(self, tar: str, raw: _RawSample, picture: tarfile.TarInfo) -> PictureSample:
        labels = () if self.split == "pool" else raw.labels(self._options.names)
        return PictureSample(
            key=raw.key,
            place=tar,
            labels=labels,
            caption=raw.caption,
            start=picture.offset_data,
            size=picture.size,
            file_bytes=picture.size,
            # Of a tar that is written anew members may keep theirs; some writers give all of them none.
            mtime_ns=int(picture.mtime * 10**9) or status_of(tar)[1],
            decoding=self._options.decoding,
        )


@dataclass(kw_only=True)
class _RawSample:
    """The members of one name: its picture, and the texts beside it by ending."""

    tar: str
    name: str
    picture: tarfile.TarInfo | None = None
    texts: dict[str, bytes] = field(default_factory=dict)

    @cached_property
    def _json(self) -> Mapping[str, Any]:
        try:
            value = json.loads(self.texts.get("json", b"{}"))
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def key(self) -> str:
        """The name, or what a cache's own tar says of it: names in tars cannot hold every key."""
        own = self._json.get("key")
        return (
            own if isinstance(own, str) and own and isinstance(self._json.get("sha256"), str) else self.name
        )

    @property
    def caption(self) -> str | None:
        """The text beside the picture, else the caption in its JSON."""
        if "txt" in self.texts:
            return self.texts["txt"].decode("utf-8", "replace").strip() or None
        caption = self._json.get("caption")
        return caption.strip() or None if isinstance(caption, str) else None

    def labels(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names of its classes: of a cache's own tar as it says, else what ``.cls`` holds.

        UserError where that is a number beyond ``names``, or no name of a class.
        """
        own = self._json.get("labels")
        if isinstance(own, list) and all(isinstance(name, str) for name in own):
            return tuple(own)
        text = self.texts.get("cls", b"").decode("utf-8", "replace").strip()
        if not text:
            return ()
        return (class_name(text, names, f"{self.tar}: {self.name}.cls"),)


def _raw_samples(tar: str) -> Iterator[_RawSample]:
    """Yield the samples of a tar: members of one name that follow each other."""
    try:
        with open_binary(tar) as raw, tarfile.open(fileobj=raw, mode="r:") as file:
            size = raw.seek(0, os.SEEK_END)
            sample: _RawSample | None = None
            while member := file.next():
                # tarfile would keep every member, for as long as it is open.
                file.members = []  # type: ignore[attr-defined]
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"{member.name} ends beyond the end of the file")
                parts = _NAME.fullmatch(member.name.removeprefix("./"))
                if not member.isfile() or parts is None or _META.fullmatch(member.name):
                    continue
                if sample is None or sample.name != parts[1]:
                    if sample is not None:
                        yield sample
                    sample = _RawSample(tar=tar, name=parts[1])
                _take(sample, parts[2].lower(), member, file)
            if sample is not None:
                yield sample
    except tarfile.TarError as error:
        raise UserError(
            f"{tar} is cut, or no tar ({error})",
            fix="write or copy it again, or take it out; tars that are compressed are not read.",
        ) from error


def _take(sample: _RawSample, ending: str, member: tarfile.TarInfo, file: tarfile.TarFile) -> None:
    if ending in _TEXTS and member.size <= TEXT_BYTES:
        stream = file.extractfile(member)
        sample.texts[ending] = stream.read() if stream else b""
    elif sample.picture is None and ending.rpartition(".")[2] in _PICTURES:
        sample.picture = member
