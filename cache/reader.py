"""What stage 2 reads: ``EmbeddingCache.open(path)`` gives embeddings, texts and neighbours, by key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import UserError, nearest_names
from cache.sources.splits import MAIN_TEACHER, split_name
from cache.store.column_lines import lacking
from cache.store.crop_views import COLUMN as CROP_VIEWS
from cache.store.crop_views import CropViewsSettings, StoredCropViews
from cache.store.journal import Journal
from cache.store.journal_lines import FileLine
from cache.store.listed_cache import ListedCache
from cache.store.manifest import CONVERT, EPISODES, FEATURES, IMPORT, Manifest
from cache.store.mapped_arrays import MappedRows
from cache.store.pixels import COLUMN as PIXELS
from cache.store.pixels import PixelsSettings, StoredPixels
from cache.store.projections import listed_projection
from cache.store.read_errors import REPAIR
from cache.store.spec import WEBDATASET
from cache.store.split_rows import SplitGroups, SplitRows
from cache.store.stored_neighbours import (
    NeighboursSettings,
    StoredNeighbours,
    column_of,
    source_of,
    stored_neighbours,
)
from cache.store.support_views import COLUMN as SUPPORT_VIEWS
from cache.store.support_views import SupportViewsSettings, read_support_views
from cache.store.text_banks import TextBank, load_bank
from cache.store.webdataset import read_embeddings

__all__ = ["EmbeddingCache", "SplitRows"]


class EmbeddingCache(ListedCache):
    """A finished cache folder as one of its teachers sees it, open for reading. Processes may share it."""

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        journal: Journal,
        *,
        teacher: str = MAIN_TEACHER,
        check: bool = False,
    ) -> None:
        """Use :meth:`open`."""
        super().__init__(path, manifest, journal, teacher=teacher)
        self.check = check
        self._splits: dict[str, SplitRows] = {}
        self._checked: set[str] = set()

    @classmethod
    def open(cls, path: Path | str, *, check: bool = False) -> EmbeddingCache:
        """Open a cache folder; with ``check`` every file is compared with its checksum when first opened.

        Raises
        ------
        UserError
            If the folder is no cache, or its build has not finished.
        """
        path = Path(path)
        manifest, journal = Manifest.load(path), Journal.load(path)
        if not manifest.complete:
            rows = sum(map(journal.rows, journal.splits))
            # In our own words: nothing of a file is repeated as a command.
            command = next(
                (name for name in (CONVERT, IMPORT, EPISODES) if name == manifest.command), FEATURES
            )
            raise UserError(
                f"the cache {path} is not finished ({rows:,} rows so far)",
                fix=f"run the same 'distill {command}' command again: it continues.",
            )
        journal.check_lists(path, manifest.rows)
        return cls(path, manifest, journal, check=check)

    def teacher_cache(self, name: str) -> EmbeddingCache:
        """Return the cache as one of its teachers sees it.

        Raises
        ------
        UserError
            If there is none of that name.
        """
        if name == self.teacher_name:
            return self
        if name not in self.teacher_names:
            raise UserError(
                f"the cache {self.path} has no teacher {name!r}",
                fix=f"{nearest_names(name, self.teacher_names)}choose from {', '.join(self.teacher_names)}, "
                f"or add it: cache-features --teacher {name}.",
            )
        return EmbeddingCache(self.path, self.manifest, self.journal, teacher=name, check=self.check)

    def split(self, name: str) -> SplitRows:
        """Return a split's rows by either of its names; UserError when there are none or one is damaged."""
        name = split_name(name)
        if name not in self.split_names:
            raise UserError(
                f"the cache {self.path} has no split {name} (it has {', '.join(self.split_names) or 'none'})",
                fix="add the folder to the data and run cache-features again.",
            )
        if name not in self._splits:
            groups = self._groups(name)
            self._splits[name] = SplitRows(
                groups,
                self.manifest.splits[name],
                several_labels=self.manifest.several_labels,
                embeddings=lambda column: self._embeddings(groups, column),
                prefix=self.column_name(""),
            )
        return self._splits[name]

    def _groups(self, split: str) -> SplitGroups:
        check = self._look if self.check else None
        return SplitGroups(self.path, split, self.journal.live_groups(split), check)

    def _embeddings(self, groups: SplitGroups, column: str) -> MappedRows:
        """Return one of the teacher's columns of embeddings, mapped, or of a WebDataset read."""
        name = self.column_name(column)
        if without := self._lacking(groups, name) if self.teacher_name != MAIN_TEACHER else 0:
            raise UserError(
                f"the teacher {self.teacher_name} of {self.path} has no {column} of {without:,} of "
                f"{len(groups.index):,} images of {groups.split}",
                fix=f"add them: the same cache-features command with --teacher {self.teacher_name}.",
            )
        if self.manifest.spec.format == WEBDATASET and self.teacher_name == MAIN_TEACHER:
            rows = read_embeddings(groups, name)
        else:
            rows = groups.column(name, "embedding", ("f", (3,) if "region" in column else (2,)))
        if rows.shape[-1] != self.embed_dim or str(rows.dtype) != self.manifest.spec.dtype:
            raise UserError(
                f"{name} of {self.path} holds {rows.dtype} rows of {rows.shape[-1]} numbers, "
                f"the manifest says {self.manifest.spec.dtype} of {self.embed_dim}",
                fix=REPAIR,
            )
        return rows

    def _look(self, line: FileLine) -> None:
        """Compare a file with its checksum, once."""
        if line.file not in self._checked:
            if not line.is_sound(self.path):
                path = self.path / line.file
                problem = "differs from its checksum" if path.exists() else "is missing"
                raise UserError(f"{path} {problem}", fix=REPAIR)
            self._checked.add(line.file)

    def text_bank(self, name: str) -> TextBank:
        """Return one text bank; UserError with the nearest name when there is none called so."""
        bank = self.listed_bank(name)
        return load_bank(self.path / bank.file, name, sha256=bank.sha256)

    def neighbours(self, split: str, bank: str, k: int) -> StoredNeighbours | None:
        """Return every image's k nearest class texts: int32 [N, k] class labels and float32 [N, k] cosines.

        Rows are those of ``split(...)``, best first; k is cut to the number of classes. None where the cache
        does not keep so many of every image, of this very bank and these classes: then they are taken from
        rows and texts, see :func:`cache.store.neighbours.nearest_texts`.
        """
        rows, listed = self.split(split), self.listed_bank(bank)
        column, k = self.column_name(column_of(bank)), min(k, len(rows.class_names))
        settings = self.settings_of(column, NeighboursSettings)
        of = source_of(rows.class_names, listed.sha256)
        if settings is None or settings.k < k or self._lacking(rows.groups, column, of=of):
            return None
        return stored_neighbours(rows, column, k)

    def support_views(self, split: str, keys: Sequence[str], *, views: int | None = None) -> NDArray[Any]:
        """Return V views of each image, [n, V, D] float32, raw: the plain row, then its augmented copies.

        ``views`` None gives all that are kept; 1 gives the plain rows alone, which every cache has.

        Raises
        ------
        UserError
            If the cache keeps fewer views of one of the images; the message names the command that adds them.
        KeyError
            If an image has no row.
        """
        rows, column = self.split(split), self.column_name(SUPPORT_VIEWS)
        at = rows.find(keys)
        if (at < 0).any():
            raise KeyError(keys[int((at < 0).argmax())])
        plain = rows.embeddings[at].astype(np.float32)[:, None]
        if views == 1:
            return plain
        settings = self.settings_of(column, SupportViewsSettings)
        return np.concatenate([plain, read_support_views(rows, column, settings, keys, views)], axis=1)

    def crop_views(self, split: str) -> StoredCropViews:
        """Return the views of a split's images that training replays; see :mod:`cache.store.crop_views`.

        UserError as :meth:`crop_views_settings`, or where a file is damaged.
        """
        settings = self.crop_views_settings(split)
        by = settings.projection and listed_projection(
            self.path, self._own.projection, sha256=settings.projection, embed_dim=self.embed_dim
        )
        return StoredCropViews(self.split(split), self.column_name(CROP_VIEWS), settings, by or None)

    def crop_views_settings(self, split: str) -> CropViewsSettings:
        """Return how the views of a split's images are made.

        Raises
        ------
        UserError
            If the cache does not keep them of every image; the message names the command that adds them.
        """
        rows, column = self.split(split), self.column_name(CROP_VIEWS)
        settings, without = self.settings_of(column, CropViewsSettings), self._lacking(rows.groups, column)
        if settings is not None and not without:
            return settings
        how_many = f" {without:,} of {len(rows):,} images of" if 0 < without < len(rows) else ""
        wanted = settings.command if settings else "--views V, 8 for example"
        of_teacher = f" --teacher {self.teacher_name}" if self.teacher_name != MAIN_TEACHER else ""
        raise UserError(
            f"the cache {self.path} keeps no views of{how_many} {rows.name}"
            + (f" by the teacher {self.teacher_name}" if of_teacher else ""),
            fix=f"add them: the same cache-features command with {wanted}{of_teacher}.",
        )

    def pixels(self, split: str, *, side: int) -> StoredPixels | None:
        """Return a split's images of that side, whichever teacher's; see :mod:`cache.store.pixels`.

        None where the cache does not keep them of every image: then they are read from their files.
        """
        settings = self.settings_of(PIXELS, PixelsSettings)
        if settings is None or settings.side != side or split_name(split) not in self.split_names:
            return None
        rows = self.split(split)
        return None if self._lacking(rows.groups, PIXELS) else StoredPixels(rows, PIXELS, settings)

    def _lacking(self, groups: SplitGroups, column: str, *, of: str | None = None) -> int:
        """Return how many rows of a split have no such column, made as the manifest says."""
        listed = self.manifest.columns.get(column)
        if listed is None:
            return len(groups.index)
        return lacking(groups.groups, column, listed.settings, of=of)
