"""Is a cache what its manifest and its journal say? Every checksum, every key, every text bank."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from cache.maintain.column_files import ColumnFile
from cache.maintain.listed_files import Check, sound_journal, unlisted_files
from cache.runtime.amounts import BYTES
from cache.runtime.atomic_files import sha256_of
from cache.runtime.errors import Refused, UserError
from cache.runtime.progress import Progress, Silent
from cache.runtime.system_errors import read_error
from cache.sources.names import check_inner
from cache.store import key_index
from cache.store.journal import FOLDER, Journal, RowGroup
from cache.store.journal_lines import KEYS, SAMPLES, FileLine
from cache.store.key_index import KeyIndex
from cache.store.manifest import NAME, Manifest
from cache.store.manifest_lines import ListedBank, ListedFile
from cache.store.projections import load_projection
from cache.store.read_errors import reading
from cache.store.row_group import KeysFile
from cache.store.tar_rows import TarRows
from cache.store.text_banks import load_bank

MISSING = "it is missing"
# Files that are looked at side by side: checksums leave Python's lock alone, and disks like a queue.
THREADS = min(8, os.cpu_count() or 1)


def verify_cache(folder: Path, *, progress: Progress | None = None) -> list[Check]:
    """Check every file of a cache: what is listed, what is made from that, what nobody lists.

    Raises
    ------
    UserError
        If there is no readable manifest, or the system refuses to read a file.
    """
    return [*checks_of(folder, Manifest.load(folder), progress=progress)]


def checks_of(folder: Path, manifest: Manifest, *, progress: Progress | None = None) -> Iterator[Check]:
    """Check what the journal and the manifest list, the index, whether the build is done."""
    progress = progress or Silent()
    journal, problems = sound_journal(folder)
    yield from problems
    yield from _of_rows(folder, manifest, journal)
    pairs = [(group, line) for group in journal.all_groups for line in group.lines.values()]
    progress.start(sum(line.bytes for _, line in pairs), "checking files", BYTES)
    of_rows = []
    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        for (_, line), check in zip(
            pairs, pool.map(lambda pair: _of_line(folder, *pair), pairs), strict=True
        ):
            of_rows.append(check)
            progress.advance(line.bytes)
    yield from of_rows
    for teacher in manifest.every_teacher.values():
        for name, bank in teacher.banks.items():
            yield _check(folder, bank, bank.texts, partial(_read_bank, folder, name, bank, teacher.embed_dim))
        for file in teacher.text_tower:
            yield _check(folder, file, 0)
        for file in teacher.projection:
            yield _check(folder, file, 0, partial(_read_projection, folder, file, teacher.embed_dim))
    damaged = {check.file for check in of_rows if check.problem}
    for split in journal.splits:
        if damaged.isdisjoint(group.keys.file for group in journal.groups(split)):
            yield from _of_index(folder, journal, split)
    for name in unlisted_files(folder, manifest, journal):
        yield Check(file=name, problem="nobody lists it")
    if not manifest.complete:
        yield Check(file=NAME, problem="the build has not finished; run it again")


def _of_rows(folder: Path, manifest: Manifest, journal: Journal) -> Iterator[Check]:
    try:
        journal.check_lists(folder, manifest.rows)
    except UserError as error:
        yield Check(
            file=FOLDER, problem=f"{error.problem}; a copy of it has the others, repair gives them up"
        )
    for split, rows in journal.rows_of_splits.items() if manifest.complete and manifest.rows else ():
        if rows > manifest.rows.get(split, 0):
            yield Check(file=FOLDER, problem=f"it lists {rows:,} rows of {split}, of which some were removed")


def _of_line(folder: Path, group: RowGroup, line: FileLine) -> Check:
    if line.column == KEYS:
        return _check(folder, line, line.rows, partial(_read_keys, folder, line))
    if line.column == SAMPLES:
        return _check(folder, line, line.rows, lambda: TarRows.of(folder, group, line).offsets)
    return _check(folder, line, line.rows, partial(ColumnFile.open, folder, line))


def _check(
    folder: Path, listed: ListedFile, rows: int, content: Callable[[], object] = lambda: None
) -> Check:
    """Compare a file with its size and checksum; read the ``content`` of a sound one."""
    problem = _problem_of_bytes(folder / listed.file, listed)
    if not problem:
        try:
            content()
        except Refused:  # a disk that cannot be read now says nothing of the file
            raise
        except UserError as error:
            problem = error.problem
    return Check(file=listed.file, rows=rows, problem=problem)


def _problem_of_bytes(path: Path, listed: ListedFile) -> str:
    try:
        size = path.stat().st_size
        if size != listed.bytes:
            return f"it has {size:,} bytes, {listed.bytes:,} were written"
        return "" if sha256_of(path) == listed.sha256 else "it differs from its checksum"
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    except IsADirectoryError:
        return "it is a folder"
    except OSError as error:
        raise read_error(path, error) or error from error


def _read_keys(folder: Path, line: FileLine) -> None:
    """Look at what keys are; not at their hashes, which only a forged journal could fit to others."""
    keys = KeysFile(folder, line).all_keys()
    with reading(folder / line.file):
        check_inner("a row", keys)


def _read_bank(folder: Path, name: str, bank: ListedBank, embed_dim: int) -> None:
    shape = load_bank(folder / bank.file, name, sha256=bank.sha256).embeddings.shape
    if shape != (bank.texts, embed_dim):
        raise UserError(
            f"it holds {shape}, the manifest says {(bank.texts, embed_dim)}", fix="run cache-features again."
        )


def _read_projection(folder: Path, file: ListedFile, embed_dim: int) -> None:
    load_projection(folder / file.file, sha256=file.sha256, embed_dim=embed_dim)


def _of_index(folder: Path, journal: Journal, split: str) -> Iterator[Check]:
    """Compare a split's index, where there is one, with what its row groups say."""
    groups, file = journal.live_groups(split), f"{key_index.FOLDER}/{split}.h5"
    if not (folder / file).exists():
        return
    here, problem = KeyIndex.load(folder, split, groups), ""
    if here is None:
        problem = "it is of other row groups, or damaged"
    else:
        expected = KeyIndex.of(groups, lambda group: KeysFile(folder, group.keys))
        if not here.is_same(expected):
            problem = "it is not what the row groups say"
    yield Check(file=file, rows=journal.rows(split), problem=problem)
