"""What stage 2 reads: ``EmbeddingCache.open(path)`` gives embeddings, texts and neighbours, by key."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cache.runtime.errors import UserError, nearest_names
from cache.sources.episode_keys import RESEARCH_KEYS, EpisodeKeys
from cache.sources.splits import MAIN_TEACHER, split_name
from cache.store.journal import FileLine, Journal
from cache.store.manifest import Manifest
from cache.store.manifest_lines import ListedBank, ListedFile
from cache.store.mapped_arrays import MappedRows
from cache.store.read_errors import REPAIR
from cache.store.spec import IMPORTED, CacheSpec, TeacherSpec
from cache.store.split_rows import SplitGroups, SplitRows
from cache.store.text_banks import TextBank, load_bank
from cache.store.webdataset import read_embeddings

__all__ = ["EmbeddingCache", "SplitRows"]


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
            raise UserError(
                f"the cache {path} is not finished ({rows:,} rows so far)",
                fix="run the same 'distill cache-features' command again: it continues.",
            )
        return cls(path, manifest, journal, check=check)

    @property
    def teacher_spec(self) -> TeacherSpec:
        """What made the rows."""
        return self.manifest.spec.teacher if self._own is self.manifest else self._own.spec  # type: ignore[return-value]

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
        return dict(self.spec.to_json()["teacher"])

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
        return column if self.teacher_name == MAIN_TEACHER else f"{self.teacher_name}.{column}"

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
        return SplitGroups(self.path, split, self.journal.groups(split), self._look)

    def _embeddings(self, groups: SplitGroups, column: str) -> MappedRows:
        """Return one of the teacher's columns of embeddings, mapped, or of a WebDataset read."""
        name, ndim = self.column_name(column), ((3,) if "region" in column else (2,))
        if self.manifest.spec.format == "webdataset":
            rows = read_embeddings(groups, name)
        else:
            rows = groups.column(name, "embedding", ndim=ndim)
        if rows.shape[-1] != self.embed_dim or str(rows.dtype) != self.manifest.spec.dtype:
            raise UserError(
                f"{name} of {self.path} holds {rows.dtype} rows of {rows.shape[-1]} numbers, "
                f"the manifest says {self.manifest.spec.dtype} of {self.embed_dim}",
                fix=REPAIR,
            )
        return rows

    def _look(self, line: FileLine) -> None:
        """Compare a file with its checksum, where that was asked for, once."""
        if self.check and line.file not in self._checked:
            if not line.is_sound(self.path):
                raise UserError(f"{self.path / line.file} differs from its checksum", fix=REPAIR)
            self._checked.add(line.file)

    @property
    def bank_names(self) -> tuple[str, ...]:
        """The text banks."""
        return tuple(self._own.banks)

    def listed_bank(self, name: str) -> ListedBank:
        """Return what the manifest lists of one text bank; UserError with the nearest name for none."""
        if name not in self._own.banks:
            choices = ", ".join(self.bank_names) or "none"
            raise UserError(
                f"the cache {self.path} has no text bank {name!r}",
                fix=f"{nearest_names(name, self.bank_names)}choose from {choices}.",
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
