"""Is a cache what its manifest says? Every checksum, every row count, every text bank."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cache.reader import TEACHERS, EmbeddingCache
from cache.runtime.atomic_files import sha256_of
from cache.runtime.errors import UserError
from cache.store.hdf5_columns import damaged_rows
from cache.store.manifest import BACKUP, NAME, Manifest
from cache.store.neighbours import damage_of
from cache.store.read_errors import damaged_shard
from cache.store.shard_formats import FORMATS, read_shard
from cache.store.shard_rows import Damage
from cache.store.text_banks import load_bank

FindDamage = Callable[[Path], Damage]


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """What was found of one file; ``problem`` is empty when it is sound.

    ``damaged`` are the numbers of the rows that are not what was written, of ``rows``; none where the damage
    lies beside the rows.
    """

    file: str
    rows: int
    problem: str
    damaged: tuple[int, ...] = ()


def verify_cache(folder: Path, *, on_file: Callable[[str], None] = lambda file: None) -> list[Check]:
    """Check every file of a cache against its manifest.

    Raises
    ------
    UserError
        If there is no readable manifest.
    """
    manifest = Manifest.load(folder)
    checks = []
    for check in (*_listed(folder, manifest), *_unlisted(folder, manifest)):
        on_file(check.file)
        checks.append(check)
    for name in EmbeddingCache(folder, manifest).teacher_names[1:]:
        where = f"{TEACHERS}/{name}"
        try:
            found = verify_cache(folder / where, on_file=on_file)
        except UserError as error:
            found = [Check(file=NAME, rows=0, problem=error.problem)]
        checks += [replace(check, file=f"{where}/{check.file}") for check in found]
    return checks


def _listed(folder: Path, manifest: Manifest) -> Iterator[Check]:
    """Check what the manifest has a checksum of."""
    of_format = FORMATS[manifest.spec.format].damage
    content: Callable[[], object]
    for split, shard in manifest.shard_entries:
        content = partial(read_shard, folder, shard, manifest, split)
        yield _check(folder, shard.file, shard.rows, shard.sha256, of_format, content)
    for name, bank in manifest.banks.items():
        content = partial(_read_bank, folder / bank.file, name, bank.sha256, (bank.texts, manifest.embed_dim))
        yield _check(folder, bank.file, bank.texts, bank.sha256, _of_columns, content)
    for shard in manifest.side_shards:
        yield _check(folder, shard.file, shard.rows, shard.sha256, _of_columns)
    for file in manifest.text_tower:
        yield _check(folder, file.file, 0, file.sha256, _of_nothing)


def _unlisted(folder: Path, manifest: Manifest) -> Iterator[Check]:
    """Check what carries its own checksum, and say what is no part of a finished cache."""
    cache = EmbeddingCache(folder, manifest)
    for path in sorted((folder / "neighbours").glob("*.h5")):
        split, _, bank = path.stem.partition("--")
        known = split in manifest.splits and bank in manifest.banks
        made_from = cache.neighbours_source(split, bank) if known else None
        problem = damage_of(path, made_from=made_from, unsealed=manifest.schema_version == 1)
        yield Check(file=f"neighbours/{path.name}", rows=0, problem=problem)
    if manifest.schema_version > 1:
        copy = folder / BACKUP
        same = copy.is_file() and copy.read_bytes() == (folder / NAME).read_bytes()
        yield Check(file=BACKUP, rows=0, problem="" if same else f"it is no copy of {NAME}")
    if manifest.left_out:
        problem = f"it lists a text bank called {manifest.left_out[0]!r:.80}, which is none"
        yield Check(file=NAME, rows=0, problem=problem)
    if not manifest.complete:
        yield Check(file=NAME, rows=0, problem="the build has not finished; run it again")


def _check(
    folder: Path,
    file: str,
    rows: int,
    sha256: str,
    find: FindDamage,
    content: Callable[[], object] = lambda: None,
) -> Check:
    """Compare a file with its checksum; say which rows are damaged, or read the content of a sound one."""
    path = folder / file
    if not path.is_file():
        return Check(file=file, rows=rows, problem="missing", damaged=tuple(range(rows)))
    if sha256_of(path) != sha256:
        return _damage(path, file, rows, find)
    try:
        content()
    except UserError as error:
        return Check(file=file, rows=rows, problem=error.problem, damaged=tuple(range(rows)))
    return Check(file=file, rows=rows, problem="")


def _damage(path: Path, file: str, rows: int, find: FindDamage) -> Check:
    said = "it differs from its checksum"
    try:
        found = find(path)
    except UserError as error:
        said, found = error.problem, Damage(rows=list(range(rows)), names=[])
    # Rows behind a place where a file cannot be read are as lost as those that differ.
    unread = range(len(found.names), rows) if found.names else ()
    damaged = sorted({*found.rows, *unread} & set(range(rows)))
    if rows:
        said += f": {_named(damaged, found.names, rows)}"
    return Check(file=file, rows=rows, problem=said, damaged=tuple(damaged))


def _named(damaged: Sequence[int], names: Sequence[str], rows: int, n: int = 5) -> str:
    if not damaged:
        return f"none of its {rows:,} rows is damaged"
    some = [f"{row} ({names[row]})" if row < len(names) else str(row) for row in damaged[:n]]
    more = f" and {len(damaged) - n:,} more" if len(damaged) > n else ""
    return f"{len(damaged):,} of {rows:,} rows are damaged: {', '.join(some)}{more}"


def _of_columns(path: Path) -> Damage:
    with damaged_shard(path, what="the file"):
        rows, names = damaged_rows(path)
    return Damage(rows=rows, names=names)


def _of_nothing(path: Path) -> Damage:
    return Damage(rows=[], names=[])


def _read_bank(path: Path, name: str, sha256: str, shape: tuple[int, int]) -> None:
    found = load_bank(path, name, sha256=sha256).embeddings.shape
    if found != shape:
        raise UserError(f"it holds {found}, the manifest says {shape}", fix="run cache-features again.")
