"""Any ``torch.utils.data.Dataset`` of (picture, label) as a source, from Python.

A picture is a PIL image, or a uint8 tensor or array, [H, W, 3] or [3, H, W]. A label is a number (of
``dataset.classes``, or of given names), a name, or several of these; of no label it is None or -1. Numbers
are taken from ``dataset.targets`` where there are any; else every item is read once, picture and all. A key
is the path of the item where the dataset has ``samples`` of paths, as torchvision's ImageFolder, else its
index.

The dataset stays in the process that has it; workers that are forked have it too. What its pictures hold is
not known until they are read: one that has no file and changes is not noticed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from weakref import WeakValueDictionary

import numpy as np
from PIL import Image

from cache.runtime.errors import UserError
from cache.runtime.system_errors import is_the_systems
from cache.sources.accounts import Account, Reason
from cache.sources.chunk_looks import ChunkListing
from cache.sources.class_numbers import class_name
from cache.sources.decoding import UnreadableImage, reading_picture
from cache.sources.grey_depth import grey_of
from cache.sources.listed_chunks import ListedChunks
from cache.sources.pictures import PictureSample
from cache.sources.places import read_bytes, status_of
from cache.sources.records import NO_NUMBER, Labels, is_key, key_of_path
from cache.sources.samples import Chunk, Source
from cache.sources.source_options import SourceOptions

# Items of a chunk.
CHUNK_ITEMS = 4096
# What this process has of datasets, by their sources' tokens: a sample in a worker names its own.
_ITEMS: WeakValueDictionary[str, _Items] = WeakValueDictionary()


@runtime_checkable
class PictureDataset(Protocol):
    """What is read by index, as torch's map-style datasets are."""

    def __getitem__(self, index: int, /) -> Any:
        """Return (picture, label)."""

    def __len__(self) -> int:
        """Return how many items there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSample(PictureSample):
    """An item of a dataset; its ``place`` is the file where it has one, else the dataset's type."""

    token: str
    index: int
    has_file: bool

    def pictures(self) -> tuple[Image.Image, ...]:
        """Return the item's picture as RGB; UnreadableImage where it is none."""
        items = _ITEMS.get(self.token)
        if items is None:
            raise UserError(
                f"the dataset of {self.place} is not in this process",
                fix="give workers=0: processes that are started anew have not what Python holds.",
            )
        with reading_picture(self.key):  # which is decoded here, by whatever the dataset does it with
            return (as_rgb(items.dataset[self.index][0]),)

    def content(self) -> bytes:
        """Return the bytes of the item's file, b'' where it has none."""
        return read_bytes(self.place) if self.has_file else b""

    def identity(self) -> tuple[str, int, int]:
        """Return (SHA-256, bytes, time) of the file; without one the hash is that of the pixels."""
        try:
            if self.has_file:
                return sha256(self.content()).hexdigest(), *self.status()
            picture = self.pictures()[0]
        except (OSError, UnreadableImage) as error:
            if isinstance(error, OSError) and is_the_systems(error):
                raise
            return "", 0, 0
        return sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest(), 0, 0

    def status(self) -> tuple[int, int]:
        """Return bytes and modification time of the file, zeros without one; else OSError."""
        return status_of(self.place) if self.has_file else (0, 0)


class DatasetSource(ListedChunks):
    """The items of a dataset that are of one split: all with a label, or all without."""

    def __init__(self, split: str, items: _Items, options: SourceOptions, indices: Sequence[int]) -> None:
        super().__init__()
        self.split, self._items, self._options = split, items, options
        self._indices = np.asarray(indices, dtype=np.int64)
        labels = {items.labels(index) for index in indices} if split != "pool" else set()
        self.classes = tuple(sorted({name for own in labels for name in own}))
        self.multi_label = any(len(own) > 1 for own in labels)
        _ITEMS[self._token] = items

    def chunks(self) -> Sequence[Chunk]:
        """Return the items in blocks; keys, labels, and the size and time of files are in their identity."""
        starts = range(0, len(self._indices), CHUNK_ITEMS)
        return [Chunk(id=f"{start:08d}", identity=self._identity(f"{start:08d}")) for start in starts]

    def _identity(self, chunk: str) -> str:
        table = [(s.key, s.labels, s.file_bytes, s.mtime_ns) for s in self._listed(chunk).samples]
        return sha256(repr(table).encode("utf-8", "surrogateescape")).hexdigest()

    def listing(self, chunk: str) -> ChunkListing:
        """List some items."""
        start = int(chunk)
        samples: dict[str, PictureSample] = {}
        left_out = []
        for index in self._indices[start : start + CHUNK_ITEMS].tolist():
            sample = self._sample(index)
            if not sample.labels and self.split != "pool" and not self.multi_label:
                left_out.append((Reason.NO_LABEL, sample.key))
            elif not is_key(sample.key):
                left_out.append((Reason.NAME, sample.key))
            elif sample.key in samples:
                left_out.append((Reason.DUPLICATE, sample.key))
            else:
                samples[sample.key] = sample
        return ChunkListing(samples=tuple(samples.values()), account=Account.of(left_out))

    def _sample(self, index: int) -> DatasetSample:
        path = self._items.path(index)
        try:
            size, mtime_ns = status_of(path) if path else (0, 0)
        except OSError as error:
            if is_the_systems(error):
                raise
            path, size, mtime_ns = "", 0, 0  # as where a dataset knows its files by other names
        return DatasetSample(
            key=self._items.key(index),
            place=path or f"{type(self._items.dataset).__name__}[{index}]",
            labels=() if self.split == "pool" else self._items.labels(index),
            file_bytes=size,
            mtime_ns=mtime_ns,
            token=self._token,
            index=index,
            has_file=bool(path),
        )

    def __copy__(self) -> DatasetSource:
        copied = object.__new__(type(self))
        vars(copied).update(vars(self))
        return copied

    def __getstate__(self) -> dict[str, object]:
        # The dataset itself may be gigabytes, and whoever shares this process's memory has it.
        return {name: value for name, value in super().__getstate__().items() if name != "_items"}


@dataclass(frozen=True, kw_only=True)
class _Items:
    """What a dataset says of its items without reading them: ``targets``, and ``paths`` below ``root``."""

    dataset: PictureDataset
    names: tuple[str, ...]
    targets: Sequence[Any]
    paths: Sequence[str]
    root: str

    @classmethod
    def of(cls, dataset: PictureDataset, names: tuple[str, ...]) -> _Items:
        inner: Any = dataset
        indices: Sequence[int] = range(len(dataset))
        # torch's Subset, which random_split makes.
        while hasattr(inner, "indices") and isinstance(getattr(inner, "dataset", None), PictureDataset):
            indices = [int(inner.indices[i]) for i in indices]
            inner = inner.dataset
        if parts := _parts(inner):
            return cls._joined(dataset, [cls.of(part, names) for part in parts], indices)
        listed = _sized(inner, "samples") or _sized(inner, "imgs")
        paths = [
            one[0] for one in listed if isinstance(one, tuple) and one and isinstance(one[0], str | Path)
        ]
        paths = paths if len(paths) == len(listed) else []
        targets = None if getattr(inner, "target_transform", None) else _sized(inner, "targets")
        own = [targets[i] for i in indices] if targets is not None and len(targets) else None
        files = [os.path.abspath(paths[i]) for i in indices] if paths else []
        classes = getattr(inner, "classes", None) or ()
        return cls(
            dataset=dataset,
            names=names or tuple(map(str, classes)),
            targets=[_label(dataset, i) for i in range(len(dataset))] if own is None else own,
            paths=files,
            root=_root(inner, files),
        )

    @classmethod
    def _joined(cls, dataset: PictureDataset, parts: Sequence[_Items], indices: Sequence[int]) -> _Items:
        """Return the items of parts one after the other, each label by the names of its own part."""
        labels = [part.labels(i) for part in parts for i in range(len(part.dataset))]
        paths = [path for part in parts for path in part.paths]
        files = [paths[i] for i in indices] if len(paths) == len(labels) else []
        return cls(
            dataset=dataset,
            names=(),
            targets=[labels[i] for i in indices],
            paths=files,
            root=_root(None, files),
        )

    def path(self, index: int) -> str:
        """Return the file of an item; '' where it has none."""
        return self.paths[index] if self.paths else ""

    def key(self, index: int) -> str:
        """Return the path of an item's file below the root, else its index."""
        return key_of_path(self.path(index), self.root) if self.paths else f"{index:08d}"

    def labels(self, index: int) -> Labels:
        """Return the names of an item's classes; UserError where it has none that can be meant."""
        label, where = self.targets[index], f"{type(self.dataset).__name__}[{index}]"
        label = label.tolist() if hasattr(label, "tolist") else label
        labels = label if isinstance(label, list | tuple) else [label]
        if any(isinstance(one, bool | float | Mapping) for one in labels):
            raise UserError(f"{where} has the label {label!r:.60}", fix="give a number, a name, or several.")
        return tuple(
            dict.fromkeys(
                class_name(str(one), self.names, where)
                for one in labels
                if one is not None and str(one) != NO_NUMBER
            )
        )


def open_dataset(dataset: PictureDataset, options: SourceOptions, split: str) -> dict[str, Source]:
    """Return the splits of a dataset: items without a label are ``pool``, and all of it ``split`` if given.

    Raises
    ------
    UserError
        If it is empty, its items are not (picture, label), or a label cannot be meant.
    """
    name = type(dataset).__name__
    if not len(dataset):
        raise UserError(f"the dataset {name} is empty", fix="give one with pictures.")
    first = dataset[0]
    if not isinstance(first, tuple | list) or len(first) != 2:
        raise UserError(f"the items of {name} are no (picture, label)", fix="wrap it in one whose are.")
    try:
        as_rgb(first[0])
    except UnreadableImage as error:
        raise UserError(
            f"the pictures of {name} cannot be taken: {error}",
            fix="leave out its transforms: a picture is a PIL image, or uint8 [H, W, 3] or [3, H, W].",
        ) from error
    items = _Items.of(dataset, options.names)
    indices: dict[str, list[int]] = {}
    for index in range(len(dataset)):
        own = split or ("" if items.labels(index) else "pool")
        indices.setdefault(own, []).append(index)
    return {own: DatasetSource(own, items, options, some) for own, some in indices.items()}


def as_rgb(picture: Any) -> Image.Image:
    """Return a PIL image, or a uint8 tensor or array, as RGB; UnreadableImage where it is none of them."""
    if isinstance(picture, Image.Image):
        grey = picture.mode == "F" or picture.mode.startswith("I")
        return (grey_of(picture) if grey else picture).convert("RGB")
    pixels = np.asarray(picture)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise UnreadableImage(f"{type(picture).__name__} of {pixels.dtype} {[*pixels.shape]}")
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3):
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3):
        raise UnreadableImage(f"{type(picture).__name__} of {pixels.dtype} {[*np.shape(picture)]}")
    pixels = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")


def _parts(dataset: Any) -> Sequence[PictureDataset]:
    """Return the parts of torch's ConcatDataset; of any other none."""
    parts: Any = getattr(dataset, "datasets", None)
    if not isinstance(parts, list) or not all(isinstance(one, PictureDataset) for one in parts):
        return ()
    return parts if sum(map(len, parts)) == len(dataset) else ()


def _label(dataset: PictureDataset, index: int) -> Any:
    item = dataset[index]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise UserError(
            f"{type(dataset).__name__}[{index}] is no (picture, label)",
            fix="give None as the label of what has none.",
        )
    return item[1]


def _sized(dataset: Any, name: str) -> Sequence[Any]:
    """Return an attribute that has something of each item, else nothing."""
    value = getattr(dataset, name, None)
    length: Callable[[], int] | None = getattr(value, "__len__", None)
    return value if length and value is not None and length() == len(dataset) else ()


def _root(dataset: Any, files: Sequence[str]) -> str:
    root = os.path.abspath(os.fspath(getattr(dataset, "root", "") or os.curdir))
    return (
        root if not files or all(path.startswith(f"{root}/") for path in files) else os.path.commonpath(files)
    )
