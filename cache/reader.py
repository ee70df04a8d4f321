"""What stage 2 reads: ``EmbeddingCache.open(path)`` gives embeddings, texts and neighbours, by key."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.runtime.atomic_files import digest
from cache.runtime.errors import UserError, nearest_names
from cache.sources.episode_keys import RESEARCH_KEYS, EpisodeKeys
from cache.sources.names import is_plain_name
from cache.sources.splits import MAIN_TEACHER, split_name
from cache.store.crop_views import ADD_VIEWS, StoredCropViews
from cache.store.image_files import ImageFiles
from cache.store.manifest import NAME as MANIFEST
from cache.store.manifest import Manifest
from cache.store.manifest_lines import ListedBank
from cache.store.mapped_arrays import MappedRows
from cache.store.neighbours import StoredNeighbours, load_neighbours, nearest_texts, save_neighbours
from cache.store.pixels import StoredPixels
from cache.store.shard_formats import read_shard
from cache.store.shard_rows import ShardRows
from cache.store.support_views import read_support_views
from cache.store.text_banks import TextBank, load_bank

TEACHERS = "teachers"


@dataclass(frozen=True, kw_only=True)
class SplitRows:
    """One split's rows, sorted by key.

    ``labels`` [N] int64 index ``class_names``, or are [N, C] of 0 and 1; ``embeddings`` and
    ``caption_embeddings`` are [N, D], raw, in the cache's dtype; ``more`` are further columns by name;
    ``files`` tell a changed image from an unchanged one.
    """

    name: str
    keys: list[str]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    embeddings: MappedRows
    captions: list[str] | None
    caption_embeddings: MappedRows | None
    more: dict[str, MappedRows] = field(default_factory=dict)
    files: ImageFiles | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def position(self) -> dict[str, int]:
        """Row number of each key."""
        return {key: i for i, key in enumerate(self.keys)}


class EmbeddingCache:
    """A finished cache folder, open for reading. Safe to share between processes."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """Use :meth:`open`."""
        self.path = path
        self.manifest = manifest
        self._splits: dict[str, SplitRows] = {}

    @classmethod
    def open(cls, path: Path | str) -> EmbeddingCache:
        """Open a cache folder; UserError if the folder is no cache, or its build has not finished."""
        path = Path(path)
        manifest = Manifest.load(path)
        if not manifest.complete:
            raise UserError(
                f"the cache {path} is not finished ({manifest.rows:,} rows so far)",
                fix="run the same 'distill cache-features' command again: it continues.",
            )
        return cls(path, manifest)

    @property
    def fingerprint(self) -> str:
        """Name of the teacher, its preprocessing and the dtype."""
        return self.manifest.spec.fingerprint()

    @property
    def embed_dim(self) -> int:
        """D, the length of every embedding."""
        return self.manifest.embed_dim

    @property
    def teacher(self) -> dict[str, Any]:
        """The teacher in words."""
        return dict(self.manifest.spec.to_json()["teacher"])

    @property
    def teacher_names(self) -> tuple[str, ...]:
        """The teachers whose rows are here: ``main``, then those that were added, sorted."""
        names = {path.parent.name for path in (self.path / TEACHERS).glob(f"*/{MANIFEST}")}
        return (MAIN_TEACHER, *sorted(filter(is_plain_name, names)))

    def teacher_cache(self, name: str) -> EmbeddingCache:
        """Return the cache of one teacher: itself for ``main``, else the one added under that name.

        Raises
        ------
        UserError
            If there is none of that name.
        """
        if name == MAIN_TEACHER:
            return self
        if name not in self.teacher_names:
            raise UserError(
                f"the cache {self.path} has no teacher {name!r}",
                fix=f"{nearest_names(name, self.teacher_names)}choose from {', '.join(self.teacher_names)}, "
                f"or add it: cache-features --teacher {name}.",
            )
        return EmbeddingCache.open(self.path / TEACHERS / name)

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits that have rows."""
        return tuple(name for name, split in self.manifest.splits.items() if split.rows)

    @cached_property
    def holds_episodes(self) -> bool:
        """Whether a row can have several labels, those of an episode's objects, where a photo has one."""
        splits = {name: split for name, split in self.manifest.splits.items() if split.shards}
        first = next(iter(splits), None)
        if first is None:
            return False
        return read_shard(self.path, splits[first].shards[0], self.manifest, first).labels.ndim == 2

    @property
    def episode_keys(self) -> EpisodeKeys:
        """What the files of its episodes call their parts."""
        return self.manifest.spec.episode_keys or RESEARCH_KEYS

    @property
    def bank_names(self) -> tuple[str, ...]:
        """The text banks."""
        return tuple(self.manifest.banks)

    def split(self, name: str) -> SplitRows:
        """Return a split's rows by either of its names; UserError when there are none or one is damaged."""
        name = split_name(name)
        if name not in self.split_names:
            raise UserError(
                f"the cache {self.path} has no split {name} (it has {', '.join(self.split_names) or 'none'})",
                fix="add the folder to the data and run cache-features again.",
            )
        if name not in self._splits:
            self._splits[name] = self._read_split(name)
        return self._splits[name]

    def _read_split(self, name: str) -> SplitRows:
        listed = self.manifest.splits[name]
        shards: list[ShardRows] = []
        files: list[ImageFiles] = []
        for shard in listed.shards:
            rows = read_shard(self.path, shard, self.manifest, name)
            files.append(ImageFiles.of(rows))
            # As texts the hashes of a million rows are a tenth of a gigabyte, as bytes 32 megabytes.
            shards.append(replace(rows, file_sha256=[""] * len(rows)))
        keys = [key for rows in shards for key in rows.keys]
        order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
        captioned = all(rows.captions is not None for rows in shards)
        captions = [text for rows in shards for text in rows.captions or ()] if captioned else None
        return SplitRows(
            name=name,
            keys=[keys[i] for i in order],
            labels=np.concatenate([rows.labels for rows in shards])[order],
            class_names=listed.class_names,
            embeddings=MappedRows([rows.image_embedding for rows in shards], order),
            captions=[captions[i] for i in order] if captions is not None else None,
            caption_embeddings=(
                MappedRows([s.caption_embedding for s in shards if s.caption_embedding is not None], order)
                if captioned
                else None
            ),
            more={
                column: MappedRows([rows.more[column] for rows in shards], order) for column in shards[0].more
            },
            files=ImageFiles.joined(files, order),
        )

    def text_bank(self, name: str) -> TextBank:
        """Return one text bank; UserError with the nearest name when there is none called so."""
        bank = self._listed_bank(name)
        return load_bank(self.path / bank.file, name, sha256=bank.sha256)

    def _listed_bank(self, name: str) -> ListedBank:
        if name not in self.manifest.banks:
            choices = ", ".join(self.bank_names) or "none"
            raise UserError(
                f"the cache {self.path} has no text bank {name!r}",
                fix=f"{nearest_names(name, self.bank_names)}choose from {choices}.",
            )
        return self.manifest.banks[name]

    def neighbours(self, split: str, bank: str, k: int) -> StoredNeighbours:
        """Return every image's k nearest class texts: int32 [N, k] class labels and float32 [N, k] cosines.

        Rows are in the order of ``split(...).keys``, best first; k is cut to the number of classes.
        What is stored is mapped, and checked when it is read; what is not is computed and, where the folder
        can be written, kept.
        """
        rows = self.split(split)
        self._listed_bank(bank)  # before a file is named by it
        k = min(k, len(rows.class_names))
        path = self.path / "neighbours" / f"{rows.name}--{bank}.h5"
        made_from = self.neighbours_source(rows.name, bank)
        stored = load_neighbours(path, made_from=made_from, k=k, rows=len(rows))
        if stored is not None:
            return stored
        neighbours = nearest_texts(rows.embeddings, self.text_bank(bank).class_texts(rows.class_names), k)
        # A cache that we may only read is still a good cache.
        with contextlib.suppress(UserError):
            save_neighbours(path, neighbours, made_from=made_from)
        return MappedRows.of(neighbours[0]), MappedRows.of(neighbours[1])

    def support_views(self, split: str, keys: Sequence[str], *, views: int | None = None) -> NDArray[Any]:
        """Return V views of each image, [n, V, D] float32, raw: the plain row, then its augmented copies.

        ``views`` None gives all that are kept; 1 gives the plain rows alone, which every cache has.

        Raises
        ------
        UserError
            If the cache keeps fewer views of one of the images; the message names the command that adds them.
        """
        rows = self.split(split)
        plain = np.stack([rows.embeddings[rows.position[key]] for key in keys]).astype(np.float32)[:, None]
        if views == 1:
            return plain
        return np.concatenate(
            [plain, read_support_views(self.path, self.manifest, rows.name, keys, views)], axis=1
        )

    def crop_views(self, split: str) -> StoredCropViews:
        """Return the crops of a split's images that training replays; see :mod:`cache.store.crop_views`.

        Raises
        ------
        UserError
            If the cache keeps none, or a shard is damaged; the message names the command that adds them.
        """
        column = self.manifest.crop_views.get(split_name(split))
        if column is None or not column.shards:
            raise UserError(f"the cache {self.path} keeps no views of {split_name(split)}", fix=ADD_VIEWS)
        return StoredCropViews(self.path, column)

    def pixels(self, split: str, *, side: int) -> StoredPixels | None:
        """Return a split's images of that side, None where none are kept; see :mod:`cache.store.pixels`."""
        column = self.manifest.pixels.get(split_name(split))
        return StoredPixels(self.path, column) if column and column.side == side and column.shards else None

    def neighbours_source(self, split: str, bank: str) -> str:
        """Return what names the rows and texts that stored neighbours are of."""
        rows, text = self.manifest.splits[split], self.manifest.banks.get(bank)
        return digest(
            [[shard.sha256 for shard in rows.shards], rows.class_names, text.sha256 if text else ""]
        )
