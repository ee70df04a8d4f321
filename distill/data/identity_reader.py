"""Reads the :class:`DataIdentity` of a run from its cache and its data folder, each split once.

What names the rows of a cache is read off its journal. Only images that have no row, or that the journal does
not tell, are looked into.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cache import EmbeddingCache
from cache.changed_images import Contents, contents_of, refuse_changed
from cache.runtime.atomic_files import digest
from cache.runtime.errors import UserError, some_of
from cache.runtime.progress import Progress
from cache.sources.samples import DataFolder, Source, labels_of
from cache.sources.splits import POOL, TESTS
from cache.store.digests import NONE, Digests, added, digest_of_values
from cache.store.journal_lines import CAPTIONS, IMAGES
from cache.store.mapped_arrays import MappedRows
from cache.store.split_rows import SplitRows
from cache.store.text_banks import image_hashes
from distill.config import RunConfig
from distill.data.pool import learnt_splits
from distill.data.replayed_views import replayed_views
from distill.data.teacher_texts import images_of_texts
from distill.data_identity import DataIdentity, SplitIdentity, digest_of

ROWS_AT_ONCE = 4096
# Splits that are learnt from.
LEARNT = ("train", POOL)
# Of the images that are gone so many keys are read, for those that a message names.
NAMED = 1000


@dataclass(kw_only=True)
class IdentityReader:
    """What there is of images, joined to the rows of ``cache``, and their identities.

    Files are looked at once, however many runs ask: see :func:`cache.changed_images.contents_of`.
    """

    cache: EmbeddingCache
    folder: DataFolder
    _joined: dict[str, Contents] = field(default_factory=dict)
    _splits: dict[str, SplitIdentity] = field(default_factory=dict)
    _captions: dict[tuple[str, str], str] = field(default_factory=dict)

    def joined(self, name: str) -> Contents:
        """Return which row each image of a split of the folder has, and what there is of it now."""
        if name not in self._joined:
            self._joined[name] = contents_of(self.folder.split(name).all(), _rows(self.cache, name))
        return self._joined[name]

    def changed(self, name: str) -> tuple[str, ...]:
        """Return the keys of the images of a split that are not what their rows were made from."""
        return self.joined(name).changed

    def refuse_changed_images(self, config: RunConfig | None = None) -> None:
        """Refuse images that are not what their rows were made from.

        CacheMismatch if there is one; the message names its split and the first keys. A pool is looked at
        where a run of this config learns from it.
        """
        for name in (name for name in self.folder.splits if name != POOL or self._learns(config, name)):
            refuse_changed(self.changed(name), split=name, data=self.folder.path, cache=self.cache.path)

    def _learns(self, config: RunConfig | None, name: str) -> bool:
        return config is not None and name in learnt_splits(config, self.cache, [name])

    def note_gone(self, progress: Progress, config: RunConfig | None = None) -> None:
        """Name the images that the cache has rows of and the folder has not any more, split by split.

        Those of a pool where a run of this config would learn from them.
        """
        for name in (name for name in self.cache.split_names if name != POOL or self._learns(config, name)):
            rows = self.cache.split(name)
            gone = np.ones(len(rows), dtype=bool)
            if name in self.folder.splits:
                row_of = self.joined(name).row_of
                gone[row_of[row_of >= 0]] = False
            if count := int(gone.sum()):
                named = sorted(rows.keys[row] for row in np.flatnonzero(gone)[:NAMED])
                progress.note(
                    f"{count:,} of {len(rows):,} images of {name} that {self.cache.path} has rows of are not "
                    f"in {self.folder.path} any more: {some_of(named, of=count)}"
                )

    def of(self, config: RunConfig) -> DataIdentity:
        """Return the identity of a run of this config.

        UserError if the cache has no such teacher, or an image that changed is joined to a row of it.
        """
        self.refuse_changed_images(config)
        first = self.cache.teacher_cache(config.teachers[0])
        learnt = learnt_splits(config, self.cache, [*self.folder.splits])
        captioned = (*learnt, *(("ood_test",) if config.fewshot.shots else ())) if config.loss.cap else ()
        return replace(
            self.tools(config),
            learnt_from={name: self.split(name) for name in learnt},
            judged_on={name: self.judged(name, config) for name in TESTS if name in self.folder.splits},
            captions={name: own for name in captioned if (own := self._captions_of(first, name))},
            views=_views(self.cache, config, learnt),
            pixels=_pixels(self.cache, config),
        )

    def tools(self, config: RunConfig) -> DataIdentity:
        """Return the identity of the teachers and texts alone that a run of this config is judged with.

        UserError if the cache has no such teacher.
        """
        own = {name: self.cache.teacher_cache(name) for name in config.teachers}
        return DataIdentity(
            teachers={name: cache.fingerprint for name, cache in own.items()},
            texts={
                f"{teacher}/{bank}": texts_of(cache, bank, self.folder.class_names)
                for teacher, cache in own.items()
                for bank in self._banks(config)
                if bank in cache.bank_names
            },
        )

    def _banks(self, config: RunConfig) -> tuple[str, ...]:
        """Return the banks that a run classifies with; for episodes there is a negative one too."""
        return (config.text, config.robotics.negative_text) if self.cache.holds_episodes else (config.text,)

    def split(self, name: str) -> SplitIdentity:
        """Return the identity of a split: of train and the pool the images with a row, else all of them."""
        if name not in self._splits:
            rows = _rows(self.cache, name)
            own = split_identity(self.folder.split(name), self.joined(name), rows, with_row=name in LEARNT)
            if rows is not None:
                row_of = self.joined(name).row_of
                own = replace(own, rows=self.rows_digest(rows, row_of[row_of >= 0]))
            self._splits[name] = own
        return self._splits[name]

    def judged(self, name: str, config: RunConfig) -> SplitIdentity:
        """Return the identity of a split as a run of this config is judged on it."""
        own, made_of = self.split(name), images_of_texts(self.cache, config.text, config.teachers)
        if name not in TESTS or not len(made_of):
            return own
        keys = [image.key for image in self.folder.split(name).all()]
        hashes = image_hashes(name, keys, np.arange(len(keys)))
        left_out = np.sort(hashes[np.isin(hashes, made_of)])
        return replace(own, left_out=digest_of([left_out.tobytes()]) if len(left_out) else "")

    def rows_digest(self, rows: SplitRows, at: NDArray[np.int64]) -> str:
        """Return what names the rows ``at`` of a split that were made elsewhere; '' for others."""
        if not self.cache.is_imported:
            return ""
        read = partial(bytes_of_rows, rows.embeddings)
        return digest_of([digest_of_column(rows, IMAGES, at, read).encode()])

    def _captions_of(self, cache: EmbeddingCache, name: str) -> str:
        place, rows = (cache.teacher_name, name), _rows(cache, name)
        if rows is None or rows.captions is None or rows.caption_embeddings is None:
            return ""
        if place not in self._captions:
            # Those that were embedded elsewhere have no text.
            texts = rows.captions if rows.captions[0] else None
            read = (
                partial(bytes_of_rows, rows.caption_embeddings)
                if texts is None
                else partial(_bytes_of_texts, texts)
            )
            column = cache.column_name(CAPTIONS)
            digest = digest_of_column(rows, column, np.arange(len(rows)), read)
            self._captions[place] = digest_of([digest.encode()])
        return self._captions[place]


def texts_of(cache: EmbeddingCache, bank: str, class_names: Sequence[str]) -> dict[str, str]:
    """Return a digest of every class's texts in a bank, in any order, for those classes that have one.

    Where the texts do not tell their rows (embedded elsewhere, or learnt), these are part of it.
    """
    texts = cache.text_bank(bank)
    owners = [texts.class_folders[i] if i >= 0 else "" for i in texts.class_index.tolist()]
    told = cache.listed_bank(bank).made_from == digest([texts.texts, owners]) and not cache.is_imported
    of_class: dict[str, list[bytes]] = {}
    for text, owner, row in zip(texts.texts, owners, texts.embeddings, strict=True):
        of_class.setdefault(owner, []).append(_as_bytes(text) + (b"" if told else row.tobytes()))
    return {name: digest_of(sorted(of_class[name])) for name in class_names if name in of_class}


def split_identity(
    source: Source, contents: Contents, rows: SplitRows | None = None, *, with_row: bool = False
) -> SplitIdentity:
    """Return the identity of all images of a source, or of those ``with_row``.

    It depends on the images alone; ``rows`` are what they are joined to.
    """
    samples, row_of = source.all(), contents.row_of
    counts = row_of >= 0 if with_row else np.ones(len(samples), dtype=bool)
    told = _told_by_rows(source, contents, rows) if rows is not None else np.zeros_like(counts)
    digests = rows.digests_of(row_of[counts & told]) if rows is not None else NONE
    others = np.flatnonzero(counts & ~told).tolist()
    digests += Digests.of(
        [samples[i].key for i in others],
        [_content(i, contents, rows) for i in others],
        [samples[i].labels for i in others],
    )
    return identity_of(digests, images=int(counts.sum()), class_names=source.classes)


def identity_of(digests: Digests, *, images: int, class_names: tuple[str, ...]) -> SplitIdentity:
    """Return the identity of so many images with these digests."""
    short = {name: digest_of([own.encode()]) for name, own in asdict(digests).items()}
    return SplitIdentity(images=images, class_names=class_names, **short)


def _told_by_rows(source: Source, contents: Contents, rows: SplitRows) -> NDArray[np.bool_]:
    """Say of every image of a source whether it is what its row says: content and labels, bool [N]."""
    told: NDArray[np.bool_] = contents.row_of >= 0
    told[list(contents.read)] = False
    # A class that only one of both has is no label of the other's.
    classes = tuple(dict.fromkeys([*rows.class_names, *source.classes]))
    now = labels_of(source.all(), classes, multi_label=source.multi_label)
    then = rows.labels[contents.row_of]
    if now.ndim == 1:
        return told & (now == then)
    count = len(rows.class_names)
    return told & (now[:, :count] == then).all(axis=1) & ~now[:, count:].any(axis=1)


def _content(image: int, contents: Contents, rows: SplitRows | None) -> bytes:
    """Return the SHA-256 of an image: of its file, or where that is the same of what its row was made of."""
    if image in contents.read or rows is None:
        return contents.read[image]
    return bytes(rows.files.content[contents.row_of[image]])


def digest_of_column(
    rows: SplitRows,
    column: str,
    at: NDArray[np.int64],
    read: Callable[[NDArray[np.int64]], Iterable[bytes]],
) -> str:
    """Return the digest of a column's values of the rows ``at``, 64 hexadecimal digits.

    It is read off the lines of those row groups that ``at`` has all rows of; of the others the values are,
    by ``read``.
    """
    groups = rows.groups.groups
    group_of, _ = rows.group_of(at)
    here = np.bincount(group_of, minlength=len(groups))
    told = [
        group.digest_of(column) if count == group.rows else ""
        for group, count in zip(groups, here.tolist(), strict=True)
    ]
    others = at[~np.array([bool(own) for own in told])[group_of]]
    blocks = (others[start : start + ROWS_AT_ONCE] for start in range(0, len(others), ROWS_AT_ONCE))
    read_of = (digest_of_values([rows.keys[row] for row in block], read(block)) for block in blocks)
    return added([*filter(None, told), *read_of])


def bytes_of_rows(column: MappedRows, at: NDArray[np.int64]) -> Iterable[bytes]:
    """Return the bytes of each of some rows."""
    return (row.tobytes() for row in column[at])


def _bytes_of_texts(texts: Sequence[str], at: NDArray[np.int64]) -> Iterable[bytes]:
    return (_as_bytes(texts[row]) for row in at)


def _rows(cache: EmbeddingCache, name: str) -> SplitRows | None:
    return cache.split(name) if name in cache.split_names else None


def _views(cache: EmbeddingCache, config: RunConfig, splits: Sequence[str]) -> str:
    try:
        return replayed_views(cache, config, splits).words
    except UserError:  # which a run says itself that learns from them; others are judged without
        return ""


def _pixels(cache: EmbeddingCache, config: RunConfig) -> str:
    """Return how the cache's own training images differ from their files; '' where they do not."""
    if config.data.pixels != "auto" or cache.column_settings("pixels") is None:
        return ""
    # Here, because it imports torch, which a plan of a sweep does without.
    from distill.data.augment import resize_size

    pixels = cache.pixels("train", side=resize_size(config.student.image_size))
    return f"JPEG of {pixels.side} px" if pixels is not None and pixels.encoding != "raw" else ""


def _as_bytes(text: str) -> bytes:
    # Names of files may be no UTF-8.
    return text.encode("utf-8", "surrogateescape")
