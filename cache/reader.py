"""What stage 2 reads: ``EmbeddingCache.open(path)`` gives embeddings, texts and neighbours, by key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import UserError, nearest_names
from cache.runtime.json_values import value_of
from cache.sources.episode_keys import RESEARCH_KEYS, EpisodeKeys
from cache.sources.splits import MAIN_TEACHER, split_name
from cache.store.column_lines import column_name, lacking
from cache.store.crop_views import COLUMN as CROP_VIEWS
from cache.store.crop_views import CropViewsSettings, StoredCropViews
from cache.store.journal import Journal
from cache.store.journal_lines import FileLine
from cache.store.manifest import CONVERT, EPISODES, FEATURES, IMPORT, Manifest
from cache.store.manifest import NAME as MANIFEST
from cache.store.manifest_lines import ListedBank, ListedFile
from cache.store.mapped_arrays import MappedRows
from cache.store.pixels import COLUMN as PIXELS
from cache.store.pixels import PixelsSettings, StoredPixels
from cache.store.projections import listed_projection
from cache.store.read_errors import REPAIR
from cache.store.spec import IMPORTED, WEBDATASET, CacheSpec, TeacherSpec
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
Settings = TypeVar("Settings")


class EmbeddingCache:
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
        self.path, self.manifest, self.journal = path, manifest, journal
        self.teacher_name, self.check = teacher, check
        self._own = manifest.of_teacher(teacher)
        self._splits: dict[str, SplitRows] = {}
        self._checked: set[str] = set()

    def __repr__(self) -> str:
        rows = ", ".join(f"{name} {self.journal.rows(name):,}" for name in self.split_names)
        scheme, colon, place = self.teacher_spec.model.rpartition(":")
        model = f"{scheme}{colon}{Path(place).name}" if scheme == "local-dir" else self.teacher_spec.model
        return f"EmbeddingCache({str(self.path)!r}: {model}, rows of {self.embed_dim}: {rows or 'none'})"

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

    @property
    def teacher_spec(self) -> TeacherSpec:
        """What made the rows."""
        return self.manifest.teacher_specs[self.teacher_name]

    @property
    def spec(self) -> CacheSpec:
        """The teacher, and how its rows are stored."""
        return replace(self.manifest.spec, teacher=self.teacher_spec)

    @property
    def fingerprint(self) -> str:
        """Name of the teacher, its preprocessing and the dtype."""
        return self.spec.fingerprint()

    @property
    def embed_dim(self) -> int:
        """D, the length of every embedding."""
        return self._own.embed_dim

    @property
    def teacher(self) -> dict[str, Any]:
        """The teacher in words."""
        return asdict(self.teacher_spec)

    @property
    def is_imported(self) -> bool:
        """Whether the rows were made elsewhere: then they are no function of the images that we know."""
        return self.teacher_spec.pretrained == IMPORTED

    @property
    def text_tower(self) -> tuple[ListedFile, ...]:
        """The files of the teacher's text tower, where the cache keeps it."""
        return self._own.text_tower

    @property
    def teacher_names(self) -> tuple[str, ...]:
        """The teachers whose rows are here: ``main``, then those that were added, sorted."""
        return (MAIN_TEACHER, *sorted(self.manifest.teachers))

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

    def column_name(self, column: str) -> str:
        """Return what a column of this teacher's is called on the disk."""
        return column_name(column, self.teacher_name)

    def column_settings(self, column: str) -> dict[str, Any] | None:
        """Return how a column of this teacher's is made; None where the cache keeps none."""
        listed = self.manifest.columns.get(self.column_name(column))
        return listed.settings if listed else None

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits that have rows."""
        return tuple(name for name in self.manifest.splits if self.journal.rows(name))

    def class_names(self, split: str) -> tuple[str, ...]:
        """Return the classes of a split, in label order."""
        return self.manifest.splits[split_name(split)]

    @property
    def holds_episodes(self) -> bool:
        """Whether a row can have several labels, those of an episode's objects, where a photo has one."""
        return self.manifest.several_labels

    @property
    def episode_keys(self) -> EpisodeKeys:
        """What the files of its episodes call their parts."""
        return self.manifest.spec.episode_keys or RESEARCH_KEYS

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

    @property
    def bank_names(self) -> tuple[str, ...]:
        """The text banks."""
        return tuple(self._own.banks)

    def listed_bank(self, name: str) -> ListedBank:
        """Return what the manifest lists of one text bank; UserError with the nearest name for none."""
        if name not in self._own.banks:
            choices = f"{nearest_names(name, self.bank_names)}choose from {', '.join(self.bank_names)}."
            command = f"distill cache add-texts {self.path} --bank {name} --text-file FILE"
            add_one = f"add one: {command}, of lines CLASS<TAB>TEXT; or class means, --from-images."
            raise UserError(
                f"the cache {self.path} has no text bank {name!r}",
                fix=choices if self.bank_names else add_one,
            )
        return self._own.banks[name]

    def text_bank(self, name: str) -> TextBank:
        """Return one text bank; UserError with the nearest name when there is none called so."""
        bank = self.listed_bank(name)
        return load_bank(self.path / bank.file, name, sha256=bank.sha256)

    @cached_property
    def rows(self) -> int:
        """How many images of all splits have a row."""
        return sum(map(self.journal.rows, self.split_names))

    def neighbours(self, split: str, bank: str, k: int) -> StoredNeighbours | None:
        """Return every image's k nearest class texts: int32 [N, k] class labels and float32 [N, k] cosines.

        Rows are those of ``split(...)``, best first; k is cut to the number of classes. None where the cache
        does not keep so many of every image, of this very bank and these classes: then they are taken from
        rows and texts, see :func:`cache.store.neighbours.nearest_texts`.
        """
        rows, listed = self.split(split), self.listed_bank(bank)
        column, k = self.column_name(column_of(bank)), min(k, len(rows.class_names))
        settings = self._settings(column, NeighboursSettings)
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
        settings = self._settings(column, SupportViewsSettings)
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
        settings, without = self._settings(column, CropViewsSettings), self._lacking(rows.groups, column)
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
        settings = self._settings(PIXELS, PixelsSettings)
        if settings is None or settings.side != side or split_name(split) not in self.split_names:
            return None
        rows = self.split(split)
        return None if self._lacking(rows.groups, PIXELS) else StoredPixels(rows, PIXELS, settings)

    def _settings(self, column: str, form: type[Settings]) -> Settings | None:
        """Return how a column is made, checked; None where the cache keeps none."""
        listed = self.manifest.columns.get(column)
        try:
            return None if listed is None else value_of(form, listed.settings, name=column)
        except ValueError as error:
            raise UserError(f"{self.path / MANIFEST} is damaged ({error})", fix=REPAIR) from error

    def _lacking(self, groups: SplitGroups, column: str, *, of: str | None = None) -> int:
        """Return how many rows of a split have no such column, made as the manifest says."""
        listed = self.manifest.columns.get(column)
        if listed is None:
            return len(groups.index)
        return lacking(groups.groups, column, listed.settings, of=of)
