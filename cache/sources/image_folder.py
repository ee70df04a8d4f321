"""An image folder as a source of each split, and how one image is decoded.

Layout: ``DATA/train/CLASS/FILE``, ``DATA/val_on_train/CLASS/FILE`` (optional) and
``DATA/val/CLASS/FILE``. A key is ``CLASS/FILE``; the classes of a split are its folders, sorted.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

from PIL import Image

from cache.runtime.atomic_files import sha256_of
from cache.runtime.errors import UserError
from cache.runtime.system_errors import is_the_systems
from cache.sources.accounts import Account
from cache.sources.decoding import ENDINGS, PLAIN, Decoding, load_rgb
from cache.sources.folder_listing import GONE, FolderListing
from cache.sources.samples import Chunk, DataFolder, Listed, Source
from cache.sources.source_options import SourceOptions
from cache.sources.splits import FOLDERS, SPLITS


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSample:
    """One image file: its key, whose first part is its class; the folder of its split; how it is decoded."""

    key: str
    root: Path
    decoding: Decoding = PLAIN
    views: ClassVar[tuple[str, ...]] = ("image",)
    caption: ClassVar[None] = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Its class folder."""
        return (self.key.partition("/")[0],)

    @property
    def path(self) -> Path:
        """The file. Made when asked for: a Path takes several times the memory of the rest."""
        return self.root / self.key

    @property
    def where(self) -> str:
        """The file."""
        return str(self.path)

    def pictures(self) -> tuple[Image.Image, ...]:
        """Return the decoded file; see :func:`load_rgb`."""
        return (load_rgb(self.path, decoding=self.decoding),)

    def content(self) -> bytes:
        """Return the file's bytes."""
        return self.path.read_bytes()

    def identity(self) -> tuple[str, int, int]:
        """Return (SHA-256, bytes, modification time in ns) of the file; an unreadable one has the hash ''."""
        try:
            status = self.status()
            return sha256_of(self.path), *status
        except OSError as error:
            if is_the_systems(error):
                raise
            return "", 0, 0

    def status(self) -> tuple[int, int]:
        """Return bytes and modification time in ns of the file; OSError where there is none."""
        status = os.stat(f"{self.root}/{self.key}")
        return status.st_size, status.st_mtime_ns


class ImageSource:
    """The image files of one split: ``ROOT/CLASS/FILE``, in chunks by the hash of their keys.

    A process lists the folder when it first has to, once for all copies of a source that were made by one
    scan: what is added to the folder later is not in it.
    """

    multi_label = False

    def __init__(
        self,
        split: str,
        root: Path,
        classes: tuple[str, ...],
        *,
        decoding: Decoding = PLAIN,
        scan: str = "",
    ) -> None:
        self.split, self.root, self.classes, self.decoding = split, root, classes, decoding
        self._scan = scan or uuid4().hex

    def __reduce__(self) -> tuple[Any, ...]:
        make = partial(ImageSource, decoding=self.decoding, scan=self._scan)
        return make, (self.split, self.root, self.classes)

    @property
    def listing(self) -> FolderListing:
        """The names of the files; UserError where a class has none, or two of one name."""
        return _listing_of(self._scan, self.root, self.classes)

    def __len__(self) -> int:
        return len(self.listing)

    def chunks(self) -> Sequence[Chunk]:
        """Return the chunks, with the size and time of every file in their identity."""
        return self.listing.key_chunks.chunks(self.listing.status_at())

    def list(self, chunk: str) -> Iterator[Listed]:
        """Yield the files of a chunk by key, as they are now; what is gone since the scan is left out."""
        images = self.listing.key_chunks.keys(chunk)
        status = self.listing.status_at(images).tolist()
        for key, (size, mtime_ns) in sorted(zip(self.listing.keys_at(images), status, strict=True)):
            if size != GONE:
                yield Listed(key, (key.partition("/")[0],), size, mtime_ns)

    def read(self, chunk: str, keys: Container[str] | None = None) -> Iterator[ImageSample]:
        """Yield the samples of a chunk by key, of ``keys`` alone where there are any."""
        for key in sorted(self.listing.keys_at(self.listing.key_chunks.keys(chunk))):
            if keys is None or key in keys:
                yield self._sample(key)

    def _sample(self, key: str) -> ImageSample:
        return ImageSample(key=key, root=self.root, decoding=self.decoding)

    def account(self) -> Account:
        """Return what is left out: nothing is counted yet."""
        return Account()

    def samples(self, keys: Sequence[str]) -> Iterator[ImageSample]:
        """Yield samples in the order of keys, whether their files are there or not.

        Raises
        ------
        KeyError
            If a key is of no class here, or could lie outside of it.
        """
        classes = set(self.classes)
        for key in keys:
            class_name, _, name = key.partition("/")
            if class_name not in classes or "/" in name or not is_image_name(name):
                raise KeyError(key)
            yield self._sample(key)

    def all(self) -> tuple[ImageSample, ...]:
        """Return every sample, sorted by key."""
        return self._all

    @cached_property
    def _all(self) -> tuple[ImageSample, ...]:
        return tuple(map(self._sample, sorted(self.listing.keys())))


class ImageFolder(DataFolder):
    """The image files of one data folder."""

    split_is = "folder {!r}"
    layout = "train/CLASS/FILE, val_on_train/CLASS/FILE (optional) and val/CLASS/FILE"

    @classmethod
    def scan(
        cls, path: Path, *, require: Iterable[str] = ("train", "ood_test"), decoding: Decoding = PLAIN
    ) -> ImageFolder:
        """List every image of every split below ``path``.

        Raises
        ------
        UserError
            If the folder or a required split is missing, or a class folder is empty or holds two
            images of one name.
        """
        path = Path(path)
        if not path.is_dir():
            raise UserError(
                f"the data folder {path} does not exist", fix="give the folder that holds train/."
            )
        folders = {name: path / FOLDERS[name] for name in SPLITS if (path / FOLDERS[name]).is_dir()}
        for name in require:
            if name not in folders:
                raise cls.missing(path, name)
        splits = {
            name: ImageSource(name, where, _classes_in(where), decoding=decoding)
            for name, where in folders.items()
        }
        for source in splits.values():
            len(source)  # which lists it, and raises
        return cls(path=path, splits=splits)


def open_image_folder(place: str, options: SourceOptions, split: str) -> dict[str, Source]:
    """Return the splits of a folder of pictures."""
    return dict(ImageFolder.scan(Path(place), require=(), decoding=options.decoding).splits)


def _classes_in(where: Path) -> tuple[str, ...]:
    with os.scandir(where) as entries:
        folders = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    if not folders:
        raise UserError(f"{where} has no class folders", fix=f"lay the images out as {where}/CLASS/FILE.")
    return tuple(folders)


@lru_cache(maxsize=8)
def _listing_of(scan: str, root: Path, classes: tuple[str, ...]) -> FolderListing:
    """Return the listing of a split's folder: one a process and ``scan``, so that tasks share it."""
    del scan
    return FolderListing(root, classes, _names_of_class)


def _names_of_class(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:  # which knows a file from a folder without asking the disk again
        names = [entry.name for entry in entries if is_image_name(entry.name) and entry.is_file()]
    if not names:
        raise UserError(
            f"the class folder {folder} holds no image",
            fix=f"add images ({', '.join(sorted(ENDINGS))}) or remove the folder.",
        )
    # Samples of a tar are named by the stem, so in two tars two endings of one stem would have one name.
    if len({name.rpartition(".")[0] for name in names}) < len(names):
        one, other = _of_one_stem(sorted(names))
        raise UserError(
            f"two images in {folder} have one name: {one} and {other}",
            fix="rename or remove one of them.",
        )
    return names


def _of_one_stem(names: Sequence[str]) -> tuple[str, str]:
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(os.path.splitext(name)[0], name)
        if other != name:
            return other, name
    raise AssertionError("no two names are of one stem")


def is_image_name(name: str) -> bool:
    """Say whether a file of this name is taken as an image: a known ending, not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in ENDINGS
