"""Which files a cache lists, which nobody lists, and the lines of its journal that can be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cache.runtime.atomic_files import is_leftover
from cache.runtime.errors import reason_of
from cache.store.journal import FOLDER, Journal, writers
from cache.store.journal_lines import ROWS, TARS, read_lines
from cache.store.manifest import Manifest

# Where files of a cache lie that somebody lists; an added teacher's text tower lies in a folder of its own.
LISTED = (ROWS, TARS, "texts", "projections", "text_tower", "*.text_tower")


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One file of ``rows`` rows, and its ``problem``, which is empty when it is sound."""

    file: str
    rows: int = 0
    problem: str = ""


def sound_journal(cache: Path) -> tuple[Journal, list[Check]]:
    """Return what the sound lines of a journal say, and what is wrong with the others."""
    journal, problems = Journal(), list[Check]()
    for path in writers(cache):
        file, sound = f"{FOLDER}/{path.name}", set()
        for number, line in read_lines(path):
            sound.add(number)
            if isinstance(line, ValueError):
                problems.append(Check(file=file, problem=f"line {number} is damaged ({reason_of(line)})"))
            else:
                journal.add(line)
        # Readers pass over what a kill has cut short, and so a line that lost its end otherwise.
        texts = path.read_bytes().split(b"\n")
        cut = [number for number, text in enumerate(texts, start=1) if text and number not in sound]
        problems += [Check(file=file, problem=f"line {number} was cut short") for number in cut]
    return journal, [*problems, *_impossible(journal)]


def _impossible(journal: Journal) -> Iterator[Check]:
    """Take out what no cache can hold, and yield it."""
    for group, rows in list(journal.removed.items()):
        keys = journal.files.get(f"{ROWS}/{group}/keys.h5")
        if keys is not None and rows and not 0 <= min(rows) <= max(rows) < keys.rows:
            del journal.removed[group]
            journal.removed_digests.pop(group, None)
            yield Check(file=FOLDER, problem=f"it removes rows that {group} has not")


def listed_files(manifest: Manifest, journal: Journal) -> set[str]:
    """Return the files that manifest and journal list, of row groups that are there."""
    lines = (line for group in journal.all_groups for line in group.lines.values())
    return {one.file for one in (*lines, *manifest.files)}


def unlisted_files(cache: Path, manifest: Manifest, journal: Journal) -> list[str]:
    """Return the files in a cache's folders that neither manifest nor journal lists, sorted.

    They are what a killed writer, or somebody else, has left; no reader looks at them.
    """
    here = {
        path.relative_to(cache).as_posix()
        for folder in LISTED
        for path in cache.glob(f"{folder}/**/*")
        if not path.is_dir() and not is_leftover(path)
    }
    return sorted(here - listed_files(manifest, journal))
