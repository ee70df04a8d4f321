"""What a cache says of itself, as one of its teachers sees it: no file of rows is opened."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from cache.runtime.errors import UserError, nearest_names
from cache.runtime.json_values import value_of
from cache.sources.episode_keys import RESEARCH_KEYS, EpisodeKeys
from cache.sources.splits import MAIN_TEACHER, split_name
from cache.store.column_lines import column_name
from cache.store.journal import Journal
from cache.store.manifest import NAME, Manifest
from cache.store.manifest_lines import ListedBank, ListedFile
from cache.store.read_errors import REPAIR
from cache.store.spec import IMPORTED, CacheSpec, TeacherSpec

Settings = TypeVar("Settings")


class ListedCache:
    """What manifest and journal of a finished cache list, of all teachers and of the one that looks."""

    def __init__(
        self, path: Path, manifest: Manifest, journal: Journal, *, teacher: str = MAIN_TEACHER
    ) -> None:
        self.path, self.manifest, self.journal = path, manifest, journal
        self.teacher_name, self._own = teacher, manifest.of_teacher(teacher)

    def __repr__(self) -> str:
        rows = ", ".join(f"{name} {self.journal.rows(name):,}" for name in self.split_names)
        scheme, colon, place = self.teacher_spec.model.rpartition(":")
        model = f"{scheme}{colon}{Path(place).name}" if scheme == "local-dir" else self.teacher_spec.model
        return f"EmbeddingCache({str(self.path)!r}: {model}, rows of {self.embed_dim}: {rows or 'none'})"

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

    @cached_property
    def rows(self) -> int:
        """How many images of all splits have a row."""
        return sum(map(self.journal.rows, self.split_names))

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

    def settings_of(self, column: str, form: type[Settings]) -> Settings | None:
        """Return how a column is made, checked; None where the cache keeps none."""
        listed = self.manifest.columns.get(column)
        try:
            return None if listed is None else value_of(form, listed.settings, name=column)
        except ValueError as error:
            raise UserError(f"{self.path / NAME} is damaged ({error})", fix=REPAIR) from error
