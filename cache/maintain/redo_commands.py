"""Which commands make what a cache lacks, in our own words: no text of its manifest's is among them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from cache.runtime.json_values import value_of
from cache.sources.splits import MAIN_TEACHER
from cache.store import crop_views, pixels, stored_neighbours, support_views
from cache.store.column_lines import column_name, lacking
from cache.store.crop_views import CropViewsSettings
from cache.store.journal import Journal
from cache.store.manifest import CONVERT, EPISODES, FEATURES, IMPORT, Manifest
from cache.store.pixels import PixelsSettings
from cache.store.spec import PRECISIONS, SQUASH, TeacherSpec
from cache.store.stored_neighbours import NeighboursSettings
from cache.store.support_views import SupportViewsSettings

Settings = TypeVar("Settings")


def commands_of(cache: Path, manifest: Manifest, journal: Journal, *, before: Journal) -> tuple[str, ...]:
    """Return the commands that make a cache whole again, none where it is.

    They have capitals in the place of what only the user knows: DATA, MODEL, WEIGHTS, FILE. ``before`` lists
    what was taken out, too.
    """
    if manifest.complete:
        return ()
    where = shlex.quote(str(cache))
    if manifest.command == CONVERT:
        return (f"distill cache convert CACHE --to {manifest.spec.format} --out {where}",)
    if manifest.command == IMPORT:
        return (f"distill cache import --out {where} --images FILE --keys FILE --texts FILE --classes FILE",)
    command = f"distill {EPISODES if manifest.command == EPISODES else FEATURES} DATA --out {where}"
    teachers = [name for name in manifest.teachers if _lacks(cache, manifest, journal, name)]
    return tuple(
        " ".join([command, "--model MODEL --pretrained WEIGHTS", *_options(manifest, before, teacher)])
        for teacher in (MAIN_TEACHER, *teachers)
    )


def _lacks(cache: Path, manifest: Manifest, journal: Journal, teacher: str) -> bool:
    """Say whether a cache lacks something of an added teacher's."""
    own = manifest.teachers[teacher]
    files = (*own.banks.values(), *own.text_tower, *own.projection)
    columns = {name: of for name, of in manifest.columns.items() if name.startswith(column_name("", teacher))}
    return not all((cache / one.file).exists() for one in files) or any(
        lacking(journal.groups(split), name, column.settings)
        for name, column in columns.items()
        for split in column.splits
    )


def _options(manifest: Manifest, before: Journal, teacher: str) -> Iterator[str]:
    """Yield the options without which a build would make another cache, or leave a part of it out."""
    spec = manifest.spec  # whose words are among ours, or it would not have been read
    of_teacher: TeacherSpec = spec.teacher if teacher == MAIN_TEACHER else manifest.teachers[teacher].spec
    if of_teacher.preprocessing == SQUASH:
        yield f"--preprocess {SQUASH}"
    if of_teacher.precision in PRECISIONS:
        yield f"--precision {of_teacher.precision}"
    yield f"--dtype {spec.dtype} --format {spec.format}"
    if spec.regions:
        yield "--regions"
    yield from _column_options(manifest, before, teacher)
    if manifest.of_teacher(teacher).text_tower:
        yield "--keep-text-tower"
    if teacher != MAIN_TEACHER:
        yield f"--teacher {teacher}"  # a plain name, or the manifest would not have been read


def _column_options(manifest: Manifest, before: Journal, teacher: str) -> Iterator[str]:
    if kept := _settings(manifest, pixels.COLUMN, PixelsSettings):
        yield f"--pixels {kept.side:d} --pixels-format {kept.encoding}"
    if crops := _settings(manifest, column_name(crop_views.COLUMN, teacher), CropViewsSettings):
        yield crops.command
    support = column_name(support_views.COLUMN, teacher)
    if views := _settings(manifest, support, SupportViewsSettings):
        yield f"--support-views {views.views:d}"
        if shots := _shots(before, support):
            yield f"--support-shots {shots:d}"
    start = column_name(stored_neighbours.column_of(""), teacher)
    of_bank = next((name for name in manifest.columns if name.startswith(start)), "")
    if nearest := _settings(manifest, of_bank, NeighboursSettings):
        yield f"--neighbours {nearest.k:d}"


def _settings(manifest: Manifest, column: str, form: type[Settings]) -> Settings | None:
    """Return how a column is made; None where there is none, or its settings are none of ours."""
    listed = manifest.columns.get(column)
    try:
        return value_of(form, listed.settings, name=column) if listed else None
    except ValueError:
        return None


def _shots(before: Journal, column: str) -> int:
    """Return of how many images a class there are support views, as their lines say it; 0 for all."""
    lines = [group.lines[column] for group in before.all_groups if column in group.lines]
    shots: list[Any] = [line.about.get("shots") for line in lines]
    return max((number for number in shots if isinstance(number, int) and 0 < number < 2**31), default=0)
