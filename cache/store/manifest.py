"""What a cache is: ``manifest.json``, a page that a person can read. Its size does not grow with its rows.

Which row groups there are, the journal says.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from cache.runtime.atomic_files import is_leftover, replacing
from cache.runtime.errors import NO_CHECKSUM, UserError, other_schema, reason_of
from cache.runtime.folder_kinds import is_instead
from cache.runtime.json_values import value_of
from cache.runtime.system_errors import read_error
from cache.sources.accounts import LeftOut
from cache.sources.kept_sources import KeptSources
from cache.sources.names import check_class_names, is_plain_name
from cache.sources.splits import MAIN_TEACHER, SPLITS
from cache.store.checksums import has_its_checksum, with_checksum
from cache.store.manifest_lines import AddedTeacher, ColumnSettings, ListedBank, ListedFile
from cache.store.spec import CacheSpec, TeacherSpec

NAME = "manifest.json"
SCHEMA_VERSION = 3
FEATURES, EPISODES = "cache-features", "robotics cache-features"
IMPORT, CONVERT = "cache import", "cache convert"


def is_cache(folder: Path) -> bool:
    """Say whether a folder is a cache, finished or not."""
    return (folder / NAME).is_file()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The make of a cache folder. Every change is a new value, saved whole.

    ``splits`` have their class names, in label order; ``left_out`` is what their sources left out, by reason;
    ``sources`` are where its images come from, None where that is not known;
    ``several_labels`` says whether an image can have any
    number of them. ``columns`` are what every row group of some splits has beside its rows. ``command`` is
    the one that makes the cache, '' where that is not known. Of each split the journal lists so many ``rows``
    where the cache is complete, and not fewer where it is not: a journal that lost lines is known by that.
    """

    spec: CacheSpec
    embed_dim: int
    splits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, dict[str, LeftOut]] = field(default_factory=dict)
    several_labels: bool = False
    columns: dict[str, ColumnSettings] = field(default_factory=dict)
    banks: dict[str, ListedBank] = field(default_factory=dict)
    text_tower: tuple[ListedFile, ...] = ()
    projection: tuple[ListedFile, ...] = ()
    teachers: dict[str, AddedTeacher] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""
    sources: KeptSources | None = None
    complete: bool = False

    def save(self, folder: Path) -> None:
        """Write the manifest, whole or not at all."""
        value = {"schema_version": SCHEMA_VERSION, "fingerprint": self.spec.fingerprint(), **asdict(self)}
        with replacing(folder / NAME) as temporary:
            temporary.write_text(with_checksum(value) + "\n", encoding="utf-8", errors="surrogateescape")

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read a cache folder's manifest.

        Raises
        ------
        UserError
            If there is none, it is damaged, or another version wrote it.
        """
        path = folder / NAME
        try:
            return cls._parsed(path, path.read_text(encoding="utf-8", errors="surrogateescape"))
        except OSError as error:
            if refused := read_error(path, error):
                raise refused from error
            raise UserError(
                f"{folder} is not a cache{is_instead(folder)}: it has no readable {NAME}",
                fix="give the folder that 'distill cache-features --out' wrote.",
            ) from error
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{path} is damaged ({' '.join(reason_of(error).split())})",
                fix="restore it from a copy, or move the cache away and make it again.",
            ) from error

    @classmethod
    def _parsed(cls, path: Path, text: str) -> Manifest:
        sound = has_its_checksum(text)
        if not sound:
            raise ValueError(NO_CHECKSUM if sound is None else "its text differs from its checksum")
        value: dict[str, Any] = json.loads(text)
        version = value.get("schema_version")
        if version != SCHEMA_VERSION:
            raise other_schema(path, version, SCHEMA_VERSION)
        ours = {f.name for f in fields(cls)}
        manifest = value_of(cls, {name: value[name] for name in value if name in ours}, name="it")
        manifest._check_names()
        return manifest

    def _check_names(self) -> None:
        """Raise a ValueError if a name leads out of the folder where it is made a path."""
        for name in {*self.splits, *(split for column in self.columns.values() for split in column.splits)}:
            if name not in SPLITS:
                raise ValueError(f"{name!r:.80} is no split")
        for class_names in self.splits.values():
            check_class_names(class_names)
            if len(set(class_names)) < len(class_names):
                raise ValueError("it has a class twice")
        banks = [*self.banks, *(name for teacher in self.teachers.values() for name in teacher.banks)]
        for what, names in (
            ("a text bank", banks),
            ("a teacher", self.teachers),
            ("a column", self.columns),
        ):
            for name in names:
                if not is_plain_name(name):
                    raise ValueError(f"{what} is called {name!r:.80}")

    @property
    def teacher_specs(self) -> dict[str, TeacherSpec]:
        """Every teacher whose rows are here, by name."""
        return {MAIN_TEACHER: self.spec.teacher, **{name: own.spec for name, own in self.teachers.items()}}

    @property
    def every_teacher(self) -> dict[str, Manifest | AddedTeacher]:
        """What has the ``embed_dim``, ``banks`` and files of each teacher, by name."""
        return {MAIN_TEACHER: self, **self.teachers}

    @property
    def files(self) -> list[ListedFile]:
        """The files of all teachers' text banks, text towers and projections."""
        own = self.every_teacher.values()
        return [file for one in own for file in (*one.banks.values(), *one.text_tower, *one.projection)]

    def of_teacher(self, name: str) -> Manifest | AddedTeacher:
        """Return what has the ``embed_dim``, ``banks`` and files of a teacher; KeyError for none."""
        return self if name == MAIN_TEACHER else self.teachers[name]

    def with_bank(self, name: str, bank: ListedBank, *, teacher: str = MAIN_TEACHER) -> Manifest:
        """Return a manifest that lists one more text bank of a teacher."""
        return self._with(teacher, banks={**self.of_teacher(teacher).banks, name: bank})

    def with_text_tower(self, files: tuple[ListedFile, ...], *, teacher: str = MAIN_TEACHER) -> Manifest:
        """Return a manifest that lists a teacher's text tower."""
        return self._with(teacher, text_tower=files)

    def with_projection(self, file: ListedFile, *, teacher: str = MAIN_TEACHER) -> Manifest:
        """Return a manifest that lists what a teacher's rows are projected by."""
        return self._with(teacher, projection=(file,))

    def _with(self, teacher: str, **changed: Any) -> Manifest:
        if teacher == MAIN_TEACHER:
            return replace(self, **changed)
        own = replace(self.teachers[teacher], **changed)
        return replace(self, teachers={**self.teachers, teacher: own})


def check_is_cache_or_empty(folder: Path) -> None:
    """Make sure that a cache can be written to a folder: it is new, empty, or one already; UserError else."""
    if (folder / NAME).exists():
        return
    if folder.is_file() or (folder.is_dir() and not all(map(is_leftover, folder.iterdir()))):
        raise UserError(
            f"{folder} exists and is not a cache{is_instead(folder)}: it has no {NAME}",
            fix="choose a new folder for --out.",
        )
