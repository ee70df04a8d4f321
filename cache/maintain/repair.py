"""Take out of a cache what is damaged, so that the command that made it redoes that and nothing else.

The unit is the file. A column that was added to row groups goes alone; without its keys, or what is made in
one go with them, a row group goes as a whole. Whose teacher and data a cache is of, its manifest says; it may
be anybody's, and so nothing is loaded by it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cache.build.lost_files import remove_unlisted
from cache.maintain.listed_files import Check, listed_files, sound_journal
from cache.maintain.redo_commands import commands_of
from cache.maintain.verify import checks_of
from cache.runtime.atomic_files import check_own_folders, remove_temporaries
from cache.runtime.locks import only_writer
from cache.runtime.progress import Progress
from cache.sources.splits import SPLITS
from cache.store import key_index
from cache.store.journal import FOLDER, Journal, consolidate
from cache.store.journal_lines import KEYS, DroppedFile, FileLine, group_of
from cache.store.manifest import NAME, Manifest


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What was done: the files that were taken out, and what brings them back.

    ``commands`` have capitals in the place of what only the user knows: DATA, MODEL, WEIGHTS, FILE.
    """

    removed: tuple[Check, ...]
    commands: tuple[str, ...]


def repair_cache(folder: Path, *, progress: Progress | None = None) -> Repair:
    """Take every damaged file out of a cache, which is unfinished then; but what readers make themselves.

    Raises
    ------
    UserError
        If the manifest is missing or damaged, or a folder of the cache is a link.
    """
    with only_writer(folder):
        check_own_folders(folder)
        manifest = Manifest.load(folder)
        damaged = [
            check
            for check in checks_of(folder, manifest, progress=progress)
            if check.problem and check.file != NAME
        ]
        (before, _), (journal, _) = sound_journal(folder), sound_journal(folder)
        lost = _lost_lines(manifest, journal, {check.file for check in damaged})
        derived = {check.file for check in damaged if _is_derived(manifest, journal, check.file)}
        if any(check.file not in derived for check in damaged):
            for line in lost:
                journal.add(DroppedFile(file=line.file))
            rows = {split: min(count, journal.rows(split)) for split, count in manifest.rows.items()}
            manifest = replace(manifest, rows=rows, complete=False)
            manifest.save(folder)  # first: what follows leaves less than a finished cache has
            _forget_index(folder)
        if lost or any(check.file.startswith(FOLDER) for check in damaged):
            consolidate(folder, journal)
        gone = {line.file for line in lost} | {check.file for check in damaged}
        for file in gone:
            if not file.startswith(FOLDER):
                (folder / file).unlink(missing_ok=True)
        remove_temporaries(folder, below=True)
        remove_unlisted(folder, manifest, journal)
    return Repair(removed=tuple(damaged), commands=commands_of(folder, manifest, journal, before=before))


def _lost_lines(manifest: Manifest, journal: Journal, damaged: set[str]) -> list[FileLine]:
    """Return the lines that are to go: of damaged files, and of the rest of a group that needs them."""
    lost: list[FileLine] = []
    for group in journal.all_groups:
        bad = [line for line in group.lines.values() if line.file in damaged]
        # What the manifest names is added to rows that are there; keys, rows and pictures are made together.
        whole = any(line.column not in manifest.columns for line in bad)
        lines = group.lines.values() if whole else bad
        lost += sorted(lines, key=lambda line: line.column == KEYS)
    return lost


def _is_derived(manifest: Manifest, journal: Journal, file: str) -> bool:
    """Say whether a cache lacks nothing without a file: readers make it, or nobody lists it.

    A column of a row group that is listed, of which nobody lists the file, has lost its line or got none.
    """
    if file.startswith(FOLDER) or file in listed_files(manifest, journal):
        return False
    try:
        group = group_of(file)
    except ValueError:
        return True
    return all(group != one.name for one in journal.all_groups)


def _forget_index(folder: Path) -> None:
    """Forget where rows are and which pieces of the data were finished: some of them may be gone."""
    index = folder / key_index.FOLDER
    for path in (*index.glob("*.json"), *(index / f"{split}.h5" for split in SPLITS)):
        path.unlink(missing_ok=True)
