"""A folder of pictures as a source of each split, however it is laid out.

1. Folders that are called as splits hold them: ``train``, ``val_on_train`` or ``id_test``, ``val`` or
   ``ood_test``, each ``SPLIT/CLASS/**/FILE``, and ``pool`` or ``unlabelled``, which has no classes. Beside
   ``train`` one called ``test`` or ``validation`` is as ``val``, where there is none.
2. Else, with pictures directly in it, the folder and all below it is ``pool``.
3. Else its folders are classes, but for ``pool`` or ``unlabelled`` beside them: ``CLASS/**/FILE``.

A key is the path below the split's folder, and the class the first folder of it, unless told otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

from PIL import Image

from cache.runtime.atomic_files import sha256_of
from cache.runtime.errors import UserError, some_of
from cache.runtime.system_errors import is_the_systems
from cache.sources.accounts import NOTHING, Account, Reason, Tally
from cache.sources.decoding import Decoding, content_of
from cache.sources.folder_listing import GONE, UNLABELLED, FolderListing, FolderRoot
from cache.sources.folder_walk import TEXT, TEXT_FILES, entries_of, is_picture, kind_of
from cache.sources.samples import Chunk, Listed, Opened
from cache.sources.source_options import SourceOptions
from cache.sources.split_folders import SplitFolders
from cache.sources.splits import LABELLED, split_name

# A text beside a picture is read so far, in bytes.
TEXT_BYTES = 2**16


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSample:
    """One image file: its key, and what it has in common with all of its split. As small as can be."""

    key: str
    of: FolderRoot
    views: ClassVar[tuple[str, ...]] = ("image",)

    @property
    def labels(self) -> tuple[str, ...]:
        """Its class, of one that has any."""
        name = self.of.class_of(self.key)
        return (name,) if name else ()

    @property
    def caption(self) -> str | None:
        """The text file of its name beside it; None where there is none, or it is empty."""
        if not self.of.texts:
            return None
        try:
            with open(os.path.splitext(self.where)[0] + TEXT, "rb") as file:
                text = file.read(TEXT_BYTES).decode("utf-8", "ignore")
        except OSError as error:
            if is_the_systems(error):
                raise
            return None
        return " ".join(text.replace("\0", " ").split()) or None

    @property
    def where(self) -> str:
        """The file."""
        return f"{self.of.root}/{self.key}"

    @property
    def decoding(self) -> Decoding:
        """How it is decoded."""
        return self.of.decoding

    def pictures(self) -> tuple[Image.Image, ...]:
        """Return the decoded file; UnreadableImage, or OSError where the system is the reason."""
        return (self.of.decoding.picture(content_of(self.content), self.key),)

    def content(self) -> bytes:
        """Return the file's bytes."""
        with open(self.where, "rb") as file:
            return file.read()

    def identity(self) -> tuple[str, int, int]:
        """Return (SHA-256, bytes, modification time in ns) of the file; an unreadable one has the hash ''."""
        try:
            status = self.status()
            return sha256_of(Path(self.where)), *status
        except OSError as error:
            if is_the_systems(error):
                raise
            return "", 0, 0

    def status(self) -> tuple[int, int]:
        """Return bytes and modification time in ns of the file; OSError where there is none."""
        status = os.stat(self.where)
        return status.st_size, status.st_mtime_ns


class ImageSource:
    """The image files of one split, in chunks by the hash of their keys.

    A process lists the folder when it first has to, once for all copies of a source that were made by one
    scan: what is added to the folder later is not in it. ``beside`` is what was left out beside the folder.
    """

    multi_label = False

    def __init__(self, split: str, of: FolderRoot, *, beside: Account = NOTHING, scan: str = "") -> None:
        self.split, self._beside, self._scan = split, beside, scan or uuid4().hex
        # Of this scan: whether texts lie beside its pictures is seen when it is listed.
        self._of = of

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(ImageSource, beside=self._beside, scan=self._scan), (self.split, self._of)

    @property
    def listing(self) -> FolderListing:
        """The names of the files."""
        return _listing_of(self._scan, self._of)

    @cached_property
    def of(self) -> FolderRoot:
        """What all samples have in common."""
        return replace(self._of, texts=self.listing.has_texts)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that have an image, sorted."""
        return self.listing.classes

    def __len__(self) -> int:
        return len(self.listing)

    def chunks(self) -> Sequence[Chunk]:
        """Return the chunks, with the size and time of every file, and of its text, in their identity."""
        return self.listing.key_chunks.chunks(self.listing.status_of_all())

    def list(self, chunk: str) -> Iterator[Listed]:
        """Yield the files of a chunk by key, as they are now; what is gone since the scan is left out."""
        images = self.listing.key_chunks.keys(chunk)
        status = self.listing.status_at(images).tolist()
        for key, (size, mtime_ns) in sorted(zip(self.listing.keys_at(images), status, strict=True)):
            if size != GONE:
                yield Listed(key, (self._of.class_of(key),) if self._of.depth else (), size, mtime_ns)

    def read(self, chunk: str, keys: Container[str] | None = None) -> Iterator[ImageSample]:
        """Yield the samples of a chunk by key, of ``keys`` alone where there are any."""
        for key in sorted(self.listing.keys_at(self.listing.key_chunks.keys(chunk))):
            if keys is None or key in keys:
                yield ImageSample(key=key, of=self.of)

    def account(self) -> Account:
        """Return what is left out of the folder, and beside it."""
        return self._beside + self.listing.account

    def samples(self, keys: Sequence[str]) -> Iterator[ImageSample]:
        """Yield samples in the order of keys, whether their files are there or not.

        Raises
        ------
        KeyError
            If a key is of no class here, or could lie outside of it.
        """
        classes = {*self.classes}
        for key in keys:
            inside = key and "\0" not in key and all(name[:1] not in ("", ".") for name in key.split("/"))
            if not inside or (self._of.depth and self._of.class_of(key) not in classes):
                raise KeyError(key)
            yield ImageSample(key=key, of=self.of)

    def all(self) -> tuple[ImageSample, ...]:
        """Return every sample, sorted by key."""
        return self._all

    @cached_property
    def _all(self) -> tuple[ImageSample, ...]:
        return tuple(ImageSample(key=key, of=self.of) for key in sorted(self.listing.keys()))


@lru_cache(maxsize=8)
def _listing_of(scan: str, of: FolderRoot) -> FolderListing:
    """Return the listing of a split's folder: one a process and ``scan``, so that tasks share it."""
    del scan
    return FolderListing(of)


def open_image_folder(place: str, options: SourceOptions, split: str) -> Opened:
    """Return the splits of a folder of pictures; all of it is ``split``, where that is given.

    Raises
    ------
    UserError
        If it is no folder, a split has no picture, or two folders are one split.
    """
    if os.path.isfile(place):
        raise UserError(
            f"{place} is a file, and no list, table or tar by its ending",
            fix="give the folder that it lies in, a .csv, .tsv, .jsonl, .parquet or .tar; unpack an archive.",
        )
    if not os.path.isdir(place):
        raise UserError(f"the data folder {place} does not exist", fix="give a folder of pictures.")
    root = os.path.abspath(place)
    top = _Top.of(root)
    if split:
        if split in LABELLED and (named := top.splits.taken()):
            some = some_of([f"{name}/" for name in named.values()])
            raise UserError(
                f"{split}={place} holds folders that are called as splits ({some})",
                fix=f"give {place} alone, or {split}={place}/{next(iter(named.values()))}.",
            )
        return _opened({split: _source(split, root, options)})
    folders = top.splits.taken()
    if folders:
        beside, notes = top.beside(folders.values()), top.splits.notes(folders)
        sources = {
            name: _source(split_name(name), f"{root}/{folder}", options, beside=beside if not i else NOTHING)
            for i, (name, folder) in enumerate(folders.items())
        }
        return _opened(sources, notes)
    pools = top.splits.pool()
    if top.pictures or not set(top.folders) - {*pools}:
        if top.pictures or not pools:
            return _opened({"": _source("pool", root, options)})
        return _opened({"pool": _source("pool", f"{root}/{pools[0]}", options)})
    _refuse_wrapped(top, options)
    sources = {"": _source("train", root, options, skip=pools)}
    if pools:
        sources["pool"] = _source("pool", f"{root}/{pools[0]}", options)
    return _opened(sources)


def _refuse_wrapped(top: _Top, options: SourceOptions) -> None:
    """Raise a UserError for splits in a lone folder, as archives are unpacked: it would be one class."""
    if len(top.folders) != 1 or options.class_depth != 1:
        return
    (name,) = top.folders
    if inner := _Top.of(f"{top.root}/{name}").splits.taken():
        some = some_of([f"{name}/{folder}/" for folder in inner.values()])
        raise UserError(
            f"{top.root} holds the folder {name} alone, and that folders that are called as splits ({some})",
            fix=f"give {top.root}/{name}; or, if {name} is a class, add --class-depth last.",
        )


def _source(
    split: str, root: str, options: SourceOptions, *, skip: Sequence[str] = (), beside: Account = NOTHING
) -> ImageSource:
    depth = options.class_depth if split in LABELLED else UNLABELLED
    of = FolderRoot(root=root, depth=depth, skip=frozenset(skip), decoding=options.decoding)
    return ImageSource(split, of, beside=beside)


def _opened(sources: Mapping[str, ImageSource], notes: Sequence[str] = ()) -> Opened:
    """Return sources that have pictures, each listed; UserError for one that has none."""
    notes = [*notes]
    for source in sources.values():
        listing = source.listing
        if not len(listing):
            raise _no_pictures(source)
        for line in listing.odd.left_out.values():
            names = some_of(list(line.names), of=line.count)
            notes.append(f"{line.count:,} names are not UTF-8, and are kept as they are: {names}")
        if odd := listing.account.left_out.get(Reason.NAME):
            names = some_of(list(odd.names), of=odd.count)
            notes.append(f"{odd.count:,} pictures {Reason.NAME} are left out: {names} (rename their folders)")
    return Opened(sources, notes)


def _no_pictures(source: ImageSource) -> UserError:
    left_out = "; ".join(source.listing.account.in_words())
    if Reason.NO_LABEL in source.listing.account.left_out:
        where = source.of.root
        return UserError(
            f"no picture of {where} lies in a class folder ({left_out})",
            fix=f"lay them out as CLASS/FILE, give --class-depth, or without classes pool={where}.",
        )
    return UserError(
        f"{source.of.root} holds no picture{f' ({left_out})' if left_out else ''}",
        fix="give the folder that holds the pictures, or take the empty one away.",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Top:
    """What lies directly in a folder: its folders, how many pictures, and all but the folders, counted."""

    root: str
    folders: tuple[str, ...]
    pictures: int
    files: Tally

    @classmethod
    def of(cls, root: str) -> _Top:
        folders, pictures, files = [], 0, Tally()
        for entry in entries_of(root):
            kind, name = kind_of(entry), entry.name
            if name.startswith("."):
                files.add(Reason.HIDDEN, f"{name}/" if kind == "folder" else name)
            elif kind == "folder":
                folders.append(name)
            elif kind == "file" and is_picture(f"{root}/{name}", name):
                pictures += 1
                files.add(Reason.SPLIT, name)
            elif name not in TEXT_FILES:
                files.add(Reason.DANGLING if kind == "dangling" else Reason.FORMAT, name)
        return cls(root=root, folders=tuple(folders), pictures=pictures, files=files)

    @property
    def splits(self) -> SplitFolders:
        """Which of the folders are splits."""
        return SplitFolders(
            place=self.root,
            folders=self.folders,
            has_folders=lambda name: _has_folders(f"{self.root}/{name}"),
        )

    def beside(self, folders: Collection[str]) -> Account:
        """Return the account of what lies beside the folders of splits."""
        tally = Tally()
        for name in self.folders:
            if name not in folders:
                tally.add(Reason.SPLIT, f"{name}/")
        return tally.account() + self.files.account()


def _has_folders(path: str) -> bool:
    return any(kind_of(entry) == "folder" and not entry.name.startswith(".") for entry in entries_of(path))
