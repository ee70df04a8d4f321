"""Is a cache what its manifest says? Every checksum, every row count, every text bank."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cache.reader import TEACHERS, EmbeddingCache
from cache.runtime.errors import Refused, UserError, some_of
from cache.store.hdf5_columns import wrong_rows_of
from cache.store.manifest import NAME, Manifest
from cache.store.manifest_lines import ListedBank, ListedFile
from cache.store.neighbours import problem_of
from cache.store.read_errors import reading
from cache.store.shard_formats import FORMATS, read_shard
from cache.store.shard_rows import WrongRows
from cache.store.text_banks import load_bank

NEIGHBOURS = "neighbours/"
FindRows = Callable[[Path], WrongRows]


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One file and its ``problem``, which is empty when it is sound.

    ``damaged`` are the numbers of the rows that are not what was written, of ``rows``; none where the damage
    lies beside the rows.
    """

    file: str
    rows: int
    problem: str
    damaged: tuple[int, ...] = ()


def verify_cache(folder: Path, *, on_file: Callable[[str], None] = lambda file: None) -> list[Check]:
    """Check every file of a cache against its manifest, and of the other teachers beside it.

    Raises
    ------
    UserError
        If there is no readable manifest.
    """
    manifest = Manifest.load(folder)
    checks = []
    for check in checks_of(folder, manifest):
        on_file(check.file)
        checks.append(check)
    for name in EmbeddingCache(folder, manifest).teacher_names[1:]:
        where = f"{TEACHERS}/{name}"
        try:
            of_teacher = verify_cache(folder / where, on_file=on_file)
        except Refused:
            raise
        except UserError as error:
            of_teacher = [Check(file=NAME, rows=0, problem=error.problem)]
        checks += [replace(check, file=f"{where}/{check.file}") for check in of_teacher]
    return checks


def checks_of(folder: Path, manifest: Manifest) -> Iterator[Check]:
    """Check what the manifest has a checksum of, what carries its own, whether the build is done."""
    of_format = FORMATS[manifest.spec.format].wrong_rows
    for split, shard in manifest.listed_shards:
        content = partial(read_shard, folder, shard, manifest, split)
        yield _check(folder, shard, shard.rows, of_format, content)
    for name, bank in manifest.banks.items():
        of_bank = partial(_read_bank, folder, name, bank, manifest.embed_dim)
        yield _check(folder, bank, bank.texts, _of_columns, of_bank)
    for shard in manifest.column_shards:
        yield _check(folder, shard, shard.rows, _of_columns)
    for file in manifest.text_tower:
        yield _check(folder, file, 0, _of_columns)
    cache = EmbeddingCache(folder, manifest)
    for path in sorted((folder / NEIGHBOURS).glob("*.h5")):
        split, _, bank_name = path.stem.partition("--")
        listed = split in manifest.splits and bank_name in manifest.banks
        made_from = cache.neighbours_source(split, bank_name) if listed else None
        problem = problem_of(path, made_from=made_from)
        yield Check(file=f"{NEIGHBOURS}{path.name}", rows=0, problem=problem)
    if not manifest.complete:
        yield Check(file=NAME, rows=0, problem="the build has not finished; run it again")


def _check(
    folder: Path,
    listed: ListedFile,
    rows: int,
    find: FindRows,
    content: Callable[[], object] = lambda: None,
) -> Check:
    """Compare a file with its checksum; say which rows are damaged, or read the content of a sound one."""
    file, path = listed.file, folder / listed.file
    if not path.is_file():
        return Check(file=file, rows=rows, problem="missing", damaged=tuple(range(rows)))
    if not listed.is_sound(folder):
        return _with_rows(path, file, rows, find)
    try:
        content()
    except Refused:  # a disk that cannot be read now says nothing of the file
        raise
    except UserError as error:
        return Check(file=file, rows=rows, problem=error.problem, damaged=tuple(range(rows)))
    return Check(file=file, rows=rows, problem="")


def _with_rows(path: Path, file: str, rows: int, find: FindRows) -> Check:
    problem = "it differs from its checksum"
    if not rows:
        return Check(file=file, rows=rows, problem=problem)
    try:
        wrong = find(path)
    except Refused:
        raise
    except UserError as error:
        problem, wrong = error.problem, WrongRows(rows=list(range(rows)), names=[])
    # Rows behind a place where a file cannot be read are as lost as those that differ.
    unread = range(len(wrong.names), rows) if wrong.names else ()
    damaged = sorted({*wrong.rows, *unread} & set(range(rows)))
    problem += f": {_named(damaged, wrong.names, rows)}"
    return Check(file=file, rows=rows, problem=problem, damaged=tuple(damaged))


def _named(damaged: Sequence[int], names: Sequence[str], rows: int) -> str:
    if not damaged:
        return f"none of its {rows:,} rows is damaged"
    told = [f"{row} ({names[row]})" if row < len(names) else str(row) for row in damaged]
    return f"{len(damaged):,} of {rows:,} rows are damaged: {some_of(told, 5)}"


def _of_columns(path: Path) -> WrongRows:
    with reading(path, what="the file"):
        return wrong_rows_of(path)


def _read_bank(folder: Path, name: str, bank: ListedBank, embed_dim: int) -> None:
    shape = load_bank(folder / bank.file, name, sha256=bank.sha256).embeddings.shape
    if shape != (bank.texts, embed_dim):
        raise UserError(
            f"it holds {shape}, the manifest says {(bank.texts, embed_dim)}", fix="run cache-features again."
        )
