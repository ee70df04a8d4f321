"""Reads the :class:`DataIdentity` of a run from its cache and its data folder, each split once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import EmbeddingCache
from cache.changed_images import Contents, contents_of, refuse_changed
from cache.reader import SplitRows
from cache.runtime.atomic_files import digest
from cache.runtime.errors import some_of
from cache.runtime.progress import Progress
from cache.sources.samples import DataFolder, Sample, Source, labels_of
from cache.sources.splits import MAIN_TEACHER
from cache.store.spec import IMPORTED
from distill.config import RunConfig
from distill.data_identity import DataIdentity, SplitIdentity, digest_of

ROWS_AT_ONCE = 4096


@dataclass(kw_only=True)
class IdentityReader:
    """What there is of images, joined to the rows of ``cache``, and their identities.

    Files are looked at once, however many runs ask: see :func:`cache.changed_images.contents_of`.
    """

    cache: EmbeddingCache
    folder: DataFolder
    _contents: dict[tuple[str, str], Contents] = field(default_factory=dict)
    _splits: dict[str, SplitIdentity] = field(default_factory=dict)
    _teachers: dict[str, EmbeddingCache] = field(default_factory=dict)
    _captions: dict[tuple[str, str], str] = field(default_factory=dict)

    def refuse_changed_images(self, teachers: Sequence[str]) -> None:
        """Refuse images that are not what their rows of some teachers were made from.

        CacheMismatch if there is one; the message names its split and the first keys.
        """
        for teacher in teachers:
            for name in self.folder.splits:
                refuse_changed(
                    self.changed(name, teacher),
                    split=name,
                    data=self.folder.path,
                    cache=self._teacher(teacher).path,
                )

    def changed(self, name: str, teacher: str = MAIN_TEACHER) -> tuple[str, ...]:
        """Return the keys of the images of a split that are not what a teacher's rows were made from."""
        return self._content(self._teacher(teacher), name).changed

    def of(self, config: RunConfig) -> DataIdentity:
        """Return the identity of a run of this config.

        UserError if the cache has no such teacher, or an image that changed is joined to a row of it.
        """
        self.refuse_changed_images(config.teachers)
        first = self._teacher(config.teachers[0])
        captioned = (("train", "ood_test") if config.fewshot.shots else ("train",)) if config.loss.cap else ()
        return replace(
            self.tools(config),
            learnt_from={"train": self.split("train")},
            judged_on={name: self.split(name) for name in self.folder.splits if name != "train"},
            captions={name: own for name in captioned if (own := self._captions_of(first, name))},
            views=_views(first, config),
            pixels=_pixels(self.cache, config),
        )

    def tools(self, config: RunConfig) -> DataIdentity:
        """Return the identity of the teachers and texts alone that a run of this config is judged with.

        UserError if the cache has no such teacher.
        """
        own = {name: self._teacher(name) for name in config.teachers}
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
        """Return the identity of a split: of ``train`` the images that have a row, else all of them."""
        if name not in self._splits:
            samples, rows = self._samples(self.cache, name), _rows(self.cache, name)
            content = self._content(self.cache, name).sha256
            imported = rows is not None and _is_imported(self.cache)
            self._splits[name] = split_identity(
                self.folder.split(name), samples, content, rows if imported else None
            )
        return self._splits[name]

    def _teacher(self, name: str) -> EmbeddingCache:
        if name not in self._teachers:
            self._teachers[name] = self.cache.teacher_cache(name)
        return self._teachers[name]

    def _samples(self, cache: EmbeddingCache, name: str) -> list[Sample]:
        """Return the images of a split that count: of tests all, else those with a row."""
        images = list(self.folder.split(name).all())
        if name != "train" and cache is self.cache:
            return images
        rows = _rows(cache, name)
        return [image for image in images if image.key in rows.position] if rows is not None else []

    def _content(self, cache: EmbeddingCache, name: str) -> Contents:
        place = (str(cache.path), name)
        if place not in self._contents:
            self._contents[place] = contents_of(self._samples(cache, name), _rows(cache, name))
        return self._contents[place]

    def _captions_of(self, cache: EmbeddingCache, name: str) -> str:
        place, rows = (str(cache.path), name), _rows(cache, name)
        if rows is None or rows.captions is None or rows.caption_embeddings is None:
            return ""
        if place not in self._captions:
            # Those that were embedded elsewhere have no text.
            texts = rows.captions if any(rows.captions) else None
            hashes = (
                _hashes(rows.caption_embeddings, range(len(rows))) if texts is None else map(_as_bytes, texts)
            )
            pairs = zip(map(_as_bytes, rows.keys), hashes, strict=True)
            self._captions[place] = digest_of([part for pair in pairs for part in pair])
        return self._captions[place]


def note_gone(cache: EmbeddingCache, folder: DataFolder, progress: Progress) -> None:
    """Name the images that a cache has rows of and the folder has not any more, split by split."""
    for name in cache.split_names:
        here = {image.key for image in folder.splits[name].all()} if name in folder.splits else set()
        rows = cache.split(name)
        gone = [key for key in rows.keys if key not in here]
        if gone:
            progress.note(
                f"{len(gone):,} of {len(rows):,} images of {name} that {cache.path} has rows of are not in "
                f"{folder.path} any more: {some_of(gone)}"
            )


def texts_of(cache: EmbeddingCache, bank: str, class_names: Sequence[str]) -> dict[str, str]:
    """Return a digest of every class's texts in a bank, in any order, for those classes that have one.

    Where the texts do not tell their rows (embedded elsewhere, or learnt), these are part of it.
    """
    texts = cache.text_bank(bank)
    owners = [texts.class_folders[i] if i >= 0 else "" for i in texts.class_index.tolist()]
    told = cache.manifest.banks[bank].made_from == digest([texts.texts, owners]) and not _is_imported(cache)
    parts: dict[str, list[bytes]] = {}
    for text, owner, row in zip(texts.texts, owners, texts.embeddings, strict=True):
        parts.setdefault(owner, []).append(_as_bytes(text) + (b"" if told else row.tobytes()))
    return {name: digest_of(sorted(parts[name])) for name in class_names if name in parts}


def split_identity(
    source: Source,
    samples: Sequence[Sample],
    content: NDArray[np.uint8],
    rows: SplitRows | None = None,
) -> SplitIdentity:
    """Return the identity of some images of a source, in any order; ``content`` are their hashes.

    ``rows`` are the teacher's where they are no function of the images.
    """
    order = sorted(range(len(samples)), key=lambda i: samples[i].key)
    keys = [_as_bytes(samples[i].key) for i in order]
    joined = [part for i, key in zip(order, keys, strict=True) for part in (key, content[i].tobytes())]
    labels = labels_of(samples, source.classes, multi_label=True)[order] if source.multi_label else ()
    places = [rows.position[samples[i].key] for i in order if rows and samples[i].key in rows.position]
    return SplitIdentity(
        images=len(samples),
        class_names=source.classes,
        keys=digest_of(keys),
        content=digest_of(joined),
        labels=digest_of([row.astype(np.uint8).tobytes() for row in labels]) if len(labels) else "",
        rows=digest_of(_hashes(rows.embeddings, places)) if rows else "",
    )


def _hashes(column: Any, places: Sequence[int]) -> list[bytes]:
    """Return the hash of some rows of a column, read a few at a time."""
    at = np.array(places, dtype=np.int64)
    chunks = (column[at[start : start + ROWS_AT_ONCE]] for start in range(0, len(at), ROWS_AT_ONCE))
    return [sha256(row.tobytes()).digest() for chunk in chunks for row in chunk]


def _is_imported(cache: EmbeddingCache) -> bool:
    return cache.manifest.spec.teacher.pretrained == IMPORTED


def _rows(cache: EmbeddingCache, name: str) -> SplitRows | None:
    return cache.split(name) if name in cache.split_names else None


def _views(cache: EmbeddingCache, config: RunConfig) -> str:
    crops = cache.manifest.crop_views.get("train")
    return f"{crops.views} crops of at least {crops.scale:g}" if config.data.views and crops else ""


def _pixels(cache: EmbeddingCache, config: RunConfig) -> str:
    """Return how the cache's own training images differ from their files; '' where they do not."""
    pixels = cache.manifest.pixels.get("train")
    if pixels is None or pixels.encoding == "raw" or config.data.pixels != "auto":
        return ""
    # Here, because it imports torch, which a plan of a sweep does without.
    from distill.data.augment import resize_size

    return f"JPEG of {pixels.side} px" if pixels.side == resize_size(config.student.image_size) else ""


def _as_bytes(text: str) -> bytes:
    # Names of files may be no UTF-8.
    return text.encode("utf-8", "surrogateescape")
