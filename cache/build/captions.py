"""One caption an image: from JSON lines, embedded by the teacher, or from the original code's tensor.

``caption_embedding``: ``caption``, n texts, and ``embedding`` [n, D], the teacher's rows of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.build.columns import Column, GroupRows, Made, TeacherSettings, Tools, Wanted
from cache.runtime.atomic_files import digest, sha256_of
from cache.runtime.errors import UserError, shortened
from cache.runtime.torchrun import speaks
from cache.sources.arrays import keys_in_original_order, load_array
from cache.sources.class_texts import (
    MISSING_CAPTION,
    caption_key,
    caption_of,
    name_of_captions,
    read_captions,
)
from cache.sources.samples import DataFolder, Source
from cache.sources.splits import MAIN_TEACHER
from cache.store.column_lines import FILE, MISSING, OF, TRUNCATED, column_name, count_of, left_out_of
from cache.store.hdf5_columns import Column as Values
from cache.store.hdf5_columns import texts as as_texts
from cache.store.journal import Journal, RowGroup
from cache.store.journal_lines import CAPTIONS
from cache.store.row_group import read_keys, told_of
from cache.teacher.sanity import check_texts, stored

# Whether samples bring captions is seen by so many of the first chunks, and so many of each.
LOOKED_AT_CHUNKS, LOOKED_AT = 2, 512


@dataclass(frozen=True, kw_only=True)
class Captions:
    """Captions by key: texts that the teacher embeds, or embeddings that are there already.

    ``sha256`` names their content. ``source`` is their file; ``unused`` are its keys that are no image's.
    Where the samples bring them there are neither texts nor embeddings here, but the ``samples`` of the
    splits that have such, which are asked for those of a row group.
    """

    sha256: str
    texts: Mapping[str, str] = field(default_factory=dict)
    embeddings: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    source: str = ""
    unused: tuple[str, ...] = ()
    samples: Mapping[str, Source] = field(default_factory=dict)

    def of_images(self, split: str, keys: Sequence[str]) -> list[str | None]:
        """Return the caption of some images of a split, None for one that has none."""
        if not self.samples:
            return [caption_of(self.texts, split, key) for key in keys]
        source = self.samples[split]
        try:
            return [sample.caption for sample in source.samples(keys)]
        except KeyError:  # of rows whose image is gone
            return [_caption_of_one(source, key) for key in keys]

    def only(self, split: str, keys: Sequence[str]) -> Captions:
        """Return the captions of some images of a split, with the name of the whole."""
        if self.samples:
            return replace(self, samples={split: self.samples[split]})
        texts = {f"{split}/{key}": caption_of(self.texts, split, key) for key in keys}
        return replace(
            self,
            texts={name: text for name, text in texts.items() if text is not None},
            embeddings={name: self.embeddings[name] for name in texts if name in self.embeddings},
            unused=(),
        )

    def source_of(self, split: str, keys: Sequence[str]) -> str | None:
        """Return what names the captions of some images of a split; None where these have none.

        Ready-made embeddings may cover the training images alone, as the original code's do: rows of other
        splits stay without captions.
        """
        if self.samples and split not in self.samples:
            return None
        if not self.embeddings:
            return name_of_captions(self.of_images(split, keys))
        return self.sha256 if all(f"{split}/{key}" in self.embeddings for key in keys) else None


def _caption_of_one(source: Source, key: str) -> str | None:
    try:
        return next(iter(source.samples([key]))).caption
    except KeyError:
        return None


@dataclass(frozen=True, kw_only=True)
class CaptionRows(Column):
    """The captions of every image, and a teacher's rows of them."""

    BASE = CAPTIONS
    of: TeacherSettings
    captions: Captions

    def wanted(self, cache: Path, groups: Sequence[RowGroup]) -> Sequence[Wanted | None]:
        """Return of each group its captions, for all groups of a split or for none."""
        sources = [self._source(cache, group) for group in groups]
        if any(source is None for source in sources):
            return [None for _ in groups]
        return [Wanted(of=source) for source in sources if source is not None]

    def _source(self, cache: Path, group: RowGroup) -> str | None:
        line = group.lines.get(self.name)
        is_whole = line is not None and group.removed.issuperset(left_out_of(line))
        if line is not None and is_whole and line.about.get(FILE) == self.captions.sha256:
            return str(line.about.get(OF, ""))
        keys = read_keys(cache, group.keys).keys

        def of(removed: frozenset[int]) -> str | None:
            own = [key for row, key in enumerate(keys) if row not in removed]
            return self.captions.source_of(group.split, own)

        # What was removed since keeps the caption that it had.
        before = of(left_out_of(line)) if line is not None and is_whole else None
        return before if line is not None and before == line.about.get(OF) else of(group.removed)

    def only(self, group: GroupRows) -> CaptionRows:
        """Return the column with the captions of a group alone."""
        return replace(self, captions=self.captions.only(group.group.split, group.keys.keys))

    def rows(self, group: GroupRows, tools: Tools) -> Made:
        """Embed the captions of a group's images; UserError where one does not fit the cache's dtype."""
        split, keys = group.group.split, group.keys.keys
        missing = truncated = 0
        if self.captions.embeddings:
            texts = [""] * len(keys)
            ready = [self.captions.embeddings[f"{split}/{key}"] for key in keys]
            rows = np.array(ready).reshape(len(keys), -1 if keys else 0)
        else:
            assert tools.teacher is not None
            own = self.captions.of_images(split, keys)
            texts, missing = [text or MISSING_CAPTION for text in own], own.count(None)
            embedded, truncated = tools.teacher.embed_texts(texts)
            if texts:
                check_texts(embedded, texts)
            rows = embedded.numpy()
        kept = stored(rows, tools.dtype, lambda i: f"the caption {shortened(texts[i] or keys[i])}")
        tools.progress.advance(len(keys))
        of_group = [""] * group.group.rows
        for row, text in zip(group.at.tolist(), texts, strict=True):
            of_group[row] = text
        datasets: dict[str, Values] = {"caption": as_texts(of_group), "embedding": group.spread(kept)}
        about: dict[str, Any] = {FILE: self.captions.sha256, MISSING: missing, TRUNCATED: truncated}
        # Of a group that had rows removed it would tell nothing.
        return datasets, about | (told_of(keys, datasets) if len(keys) == group.group.rows else {})


def caption_counts(groups: Iterable[RowGroup], *, teacher: str = MAIN_TEACHER) -> tuple[int, int, int]:
    """Return how many rows of groups have a caption of their own, how many none, and how many were cut.

    Rows of groups without captions are none of the three; what was removed since is counted as it was.
    """
    column = column_name(CAPTIONS, teacher)
    having = [(group.live, group.lines[column]) for group in groups if column in group.lines]
    own = sum(min(live, line.rows - count_of(line, MISSING)) for live, line in having)
    missing, truncated = (sum(count_of(line, name) for _, line in having) for name in (MISSING, TRUNCATED))
    return own, missing, truncated


def notes_on_captions(before: Journal, after: Journal, *, source: str, cache: Path) -> list[str]:
    """Return lines on the captions that were replaced by those of ``source``, and on those that are lost."""
    then = {group.name: group for group in before.all_groups if CAPTIONS in group.lines}
    now = [group for group in after.all_groups if CAPTIONS in group.lines and group.name in then]
    replaced = [one for one in now if one.lines[CAPTIONS].sha256 != then[one.name].lines[CAPTIONS].sha256]
    if not replaced:
        return []
    lost = caption_counts(then[group.name] for group in replaced)[0] - caption_counts(replaced)[0]
    rows = sum(group.live for group in replaced)
    notes = [f"{source} is not what {cache} was made with: the captions of {rows:,} images are replaced"]
    if lost > 0:
        notes.append(f"{lost:,} images had a caption of their own, and have none in it")
    return notes


def load_captions(path: Path, folder: DataFolder, *, embed_dim: int) -> Captions:
    """Read JSON lines, or a tensor in the original code's order.

    The first process of several looks for keys that are no image's.

    Raises
    ------
    UserError
        If no key matches an image, or the tensor has not one row an image of ``embed_dim`` numbers.
    """
    if path.suffix.lower() in (".pt", ".pth", ".npy"):
        return _from_tensor(path, folder, embed_dim)
    texts = read_captions(path)
    unused = _unused(texts, folder) if speaks() else ()
    if len(unused) == len(texts):
        source = next(iter(folder.splits.values()))
        example = next(one.key for chunk in source.chunks() for one in source.list(chunk.id))
        raise UserError(
            f"{path}: none of its {len(texts)} keys is an image of {folder.path}",
            fix=f"write keys like {example!r}.",
        )
    return Captions(sha256=digest(texts), texts=texts, embeddings={}, source=path.name, unused=unused)


def _unused(texts: Mapping[str, str], folder: DataFolder) -> tuple[str, ...]:
    """Return the keys of captions that are no image's; one chunk of images is listed after the other."""
    unused: dict[str | None, None] = dict.fromkeys(texts)
    for name, source in folder.splits.items():
        for chunk in source.chunks():
            for one in source.list(chunk.id):
                unused.pop(caption_key(texts, name, one.key), None)
    return tuple(key for key in unused if key is not None)


def captions_of_samples(folder: DataFolder) -> Captions | None:
    """Return the captions that samples bring themselves; None where none of the first ones has one.

    They are named by what their sources look like: only where that changed are they read again.
    """
    samples = {split: source for split, source in folder.splits.items() if _brings_captions(source)}
    if not samples:
        return None
    chunks = {split: [(one.id, one.identity) for one in source.chunks()] for split, source in samples.items()}
    return Captions(sha256=digest(chunks), source="what the samples bring", samples=samples)


def _brings_captions(source: Source) -> bool:
    chunks = source.chunks()[:LOOKED_AT_CHUNKS]
    return any(sample.caption for one in chunks for sample in islice(source.read(one.id), LOOKED_AT))


def _from_tensor(path: Path, folder: DataFolder, embed_dim: int) -> Captions:
    rows = load_array(str(path))
    keys = keys_in_original_order(folder, len(rows), source=str(path))
    if rows.ndim != 2 or rows.shape[1] != embed_dim:
        raise UserError(
            f"{path} has shape {rows.shape}, expected ({len(keys)}, {embed_dim})",
            fix="give the captions that this very teacher embedded.",
        )
    return Captions(
        sha256=sha256_of(path), texts={}, embeddings=dict(zip(keys, rows, strict=True)), source=path.name
    )
