"""What stage 1 embeds: samples of one or more pictures, and the sources that list and read them."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.runtime.errors import UserError
from cache.sources.accounts import Account
from cache.sources.splits import FOLDERS, split_name


class Sample(Protocol):
    """One row of a cache: a key, the names of its classes, and its pictures. Small, and picklable."""

    @property
    def key(self) -> str:
        """Its name within its split."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of its classes: one of a photo, none of one in the pool, any number of an episode."""

    @property
    def caption(self) -> str | None:
        """What its source says of it in words; None where that says nothing."""

    @property
    def where(self) -> str:
        """The file or address, and the place in it where that is needed, for messages."""

    @property
    def views(self) -> tuple[str, ...]:
        """What each picture is called; the first is ``image``. Columns are ``VIEW_embedding``."""

    def pictures(self) -> Sequence[Image.Image]:
        """Return one RGB picture a view; UnreadableImage when there is none to be had."""

    def content(self) -> bytes:
        """Return the bytes of the picture's file as they are; b'' where there is no such file, or OSError."""

    def identity(self) -> tuple[str, int, int]:
        """Return (SHA-256 of the content, bytes and modification time in ns of the file)."""

    def status(self) -> tuple[int, int]:
        """Return bytes and modification time of :meth:`identity`, at the cost of one look; else OSError.

        What a server does not tell is 0.
        """


class Listed(NamedTuple):
    """A sample that is listed and not opened. A tuple, because ten million of them are made in a row.

    ``bytes`` and ``mtime_ns`` are those of its :meth:`Sample.identity`.
    """

    key: str
    labels: tuple[str, ...]
    bytes: int
    mtime_ns: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A part of a source that is listed and read by itself: a tar, lines of a list, files by hashes of keys.

    ``identity`` is a digest of what is cheap to compare; it differs where a sample was added, taken out or
    written again.
    """

    id: str
    identity: str


class Source(Protocol):
    """Where the samples of one split come from. Picklable and small: each process lists for itself."""

    @property
    def split(self) -> str:
        """The name of its split."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of its classes, in their order; none of one without labels."""

    @property
    def multi_label(self) -> bool:
        """Whether a sample may have several classes, or none."""

    def __len__(self) -> int:
        """Return how many samples there are."""

    def chunks(self) -> Sequence[Chunk]:
        """Return all its chunks, at the cost of one look at each file of several samples."""

    def list(self, chunk: str) -> Iterator[Listed]:
        """Yield what is in a chunk, in the chunk's own order, without decoding a picture."""

    def read(self, chunk: str, keys: Container[str] | None = None) -> Iterator[Sample]:
        """Yield the samples of a chunk in the order of :meth:`list`, those of ``keys`` alone where given."""

    def account(self) -> Account:
        """Return what is left out of it; what has not been listed is listed first."""

    def samples(self, keys: Sequence[str]) -> Iterator[Sample]:
        """Yield the samples of some keys in their order; KeyError for one that cannot be in this source."""

    def all(self) -> tuple[Sample, ...]:
        """Return every sample, sorted by key: for whoever holds a whole split, as stage 2 does."""


class Opened(dict[str, Source]):
    """The sources of a place by split, with ``notes`` on how it was understood.

    What does not say its split is under '', and what is called ``val``, which may be the ID or the OOD test,
    under that.
    """

    def __init__(self, sources: Mapping[str, Source], notes: Sequence[str] = ()) -> None:
        super().__init__(sources)
        self.notes = tuple(notes)


@dataclass(frozen=True, kw_only=True)
class DataFolder:
    """The splits of the data that were named, by name.

    ``path`` is the folder where files of texts are looked for; ``notes`` say how the data were understood,
    where that is not plain; ``given`` are the sources as they are named from any working folder, none of a
    cache's own images. ``split_is`` and ``layout`` say what holds a split, for messages.
    """

    split_is: ClassVar[str] = "folder {!r}"
    layout: ClassVar[str] = "train/CLASS/FILE, val_on_train/CLASS/FILE, val/CLASS/FILE, or say SPLIT=PLACE"
    path: Path
    splits: Mapping[str, Source]
    notes: tuple[str, ...] = ()
    given: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Every class of every split, sorted, once."""
        return tuple(sorted({name for split in self.splits.values() for name in split.classes}))

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """The classes of every split, by its name."""
        return {name: split.classes for name, split in self.splits.items()}

    @classmethod
    def missing(cls, path: Path, name: str) -> UserError:
        """Return the error of a data folder without that split; it names some of what is there."""
        children = path.iterdir() if path.is_dir() else ()
        there = sorted(child.name for child in children if not child.name.startswith("."))[:8]
        return UserError(
            f"{path} has no {cls.split_is.format(FOLDERS[name])}, which holds the split {name} "
            f"(it has {', '.join(there) or 'nothing'})",
            fix=f"lay the data out as {cls.layout}.",
        )

    def split(self, name: str) -> Source:
        """Return one split by either of its names; UserError when there is none."""
        name = split_name(name)
        if name not in self.splits:
            raise self.missing(self.path, name)
        return self.splits[name]


def labels_of(
    samples: Sequence[Sample], class_names: Sequence[str], *, multi_label: bool = False
) -> NDArray[np.int64]:
    """Return the numbers of samples' classes among ``class_names``: int64 [N], or 0 and 1 [N, C].

    -1 is a sample without a label.

    Raises
    ------
    ValueError
        If a sample has a class that is not among them, or without ``multi_label`` more than one.
    """
    place = {name: number for number, name in enumerate(class_names)}
    for sample in samples:
        odd = [name for name in sample.labels if name not in place]
        if odd or (len(sample.labels) > 1 and not multi_label):
            some = "some" if multi_label else "one"
            raise ValueError(
                f"{sample.where} is of {sample.labels}, not {some} of {len(class_names)} classes"
            )
    if not multi_label:
        own = (place[sample.labels[0]] if sample.labels else -1 for sample in samples)
        return np.fromiter(own, dtype=np.int64, count=len(samples))
    numbers = np.zeros((len(samples), len(class_names)), dtype=np.int64)
    for row, sample in zip(numbers, samples, strict=True):
        row[[place[name] for name in sample.labels]] = 1
    return numbers
