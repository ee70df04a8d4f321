"""Mend a cache as far as it can be mended from itself, and take out what cannot, so that a build redoes it.

Whose teacher and data a cache is of, its manifest says; it may be anybody's, and so nothing is loaded by it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache.maintain.verify import Check, verify_cache
from cache.reader import TEACHERS, EmbeddingCache
from cache.runtime.atomic_files import check_own_folders
from cache.runtime.errors import UserError
from cache.runtime.locks import only_writer
from cache.sources.names import is_plain_name
from cache.store.manifest import BACKUP, CONVERT, EPISODES, IMPORT, NAME, Manifest
from cache.store.neighbours import NEAREST
from cache.store.spec import PRECISIONS, SQUASH

NEIGHBOURS = "neighbours/"


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What was done: files that are sound again, files that were taken out, and what brings those back.

    ``commands`` have capitals in the place of what only the user knows: DATA, MODEL, WEIGHTS, FILE.
    """

    redone: tuple[Check, ...] = ()
    removed: tuple[Check, ...] = ()
    commands: tuple[str, ...] = ()


def repair_cache(folder: Path) -> Repair:
    """Redo what needs neither teacher nor images, and take every other damaged file out of a cache.

    The manifest's copy and the neighbours are redone. A cache that lacks something then is unfinished: the
    command that made it redoes that and nothing else.

    Raises
    ------
    UserError
        If there is neither a manifest nor a copy, or a folder of the cache is a link.
    """
    with only_writer(folder):
        return _repaired(folder, folder)


def _repaired(folder: Path, whole: Path) -> Repair:
    check_own_folders(folder)
    restored = _restored_manifest(folder)
    before = manifest = Manifest.load(folder)
    bad = [check for check in verify_cache(folder) if check.problem]
    bad = [check for check in bad if not check.file.startswith(f"{TEACHERS}/")]
    removed = [check for check in bad if not check.file.startswith((NEIGHBOURS, BACKUP, NAME))]
    if removed:
        manifest = _without(manifest, {check.file for check in removed})
        manifest.save(folder)  # first: a file that is not listed does not exist
    for check in (*removed, *(check for check in bad if check.file.startswith(NEIGHBOURS))):
        (folder / check.file).unlink(missing_ok=True)
    redone = [check for check in bad if check.file == BACKUP or (check.file == NAME and manifest.left_out)]
    if redone:
        manifest.save(folder)
    redone += _store_neighbours(folder, manifest, bad)
    found = Repair(
        redone=(*restored, *redone),
        removed=tuple(removed),
        commands=() if manifest.complete else (_command(before, whole, folder),),
    )
    for name in _teachers(folder):
        found = _joined(found, _repaired(folder / TEACHERS / name, whole), f"{TEACHERS}/{name}/")
    return found


def _joined(one: Repair, other: Repair, below: str) -> Repair:
    def placed(checks: Sequence[Check]) -> tuple[Check, ...]:
        return tuple(replace(check, file=f"{below}{check.file}") for check in checks)

    return Repair(
        redone=one.redone + placed(other.redone),
        removed=one.removed + placed(other.removed),
        commands=one.commands + other.commands,
    )


def _restored_manifest(folder: Path) -> list[Check]:
    """Put the manifest's copy in the place of a damaged one."""
    try:
        Manifest.load(folder)
    except UserError as error:
        try:
            copy = Manifest.load(folder, name=BACKUP)
        except UserError:
            raise error from None
        copy.save(folder)
        return [Check(file=NAME, rows=0, problem=error.problem)]
    return []


def _teachers(folder: Path) -> list[str]:
    """Return the added teachers, also one whose manifest is gone and has a copy."""
    found = {path.parent.name for file in (NAME, BACKUP) for path in (folder / TEACHERS).glob(f"*/{file}")}
    return sorted(filter(is_plain_name, found))


def _without(manifest: Manifest, files: set[str]) -> Manifest:
    """Return a manifest that lists none of some files, and is not complete.

    Text banks stay listed, as missing: a build that would give them other texts is refused by what is said
    of them.
    """
    for name, split in manifest.splits.items():
        kept = tuple(shard for shard in split.shards if shard.file not in files)
        manifest = manifest.with_split(name, replace(split, shards=kept))
    beside: dict[str, Any] = {}
    for kind in ("support", "views", "pixels"):
        beside[kind] = {}
        for name, entry in getattr(manifest, kind).items():
            pairs = zip(entry.shards, entry.made_from, strict=True)
            kept_pairs = [(shard, made) for shard, made in pairs if shard.file not in files]
            beside[kind][name] = replace(
                entry,
                shards=tuple(shard for shard, _ in kept_pairs),
                made_from=tuple(made for _, made in kept_pairs),
            )
    tower = () if any(file.file in files for file in manifest.text_tower) else manifest.text_tower
    return replace(manifest, text_tower=tower, complete=False, **beside)


def _store_neighbours(folder: Path, manifest: Manifest, bad: Sequence[Check]) -> list[Check]:
    """Compute the damaged neighbours again, where the rows and texts that they are of are all here."""
    cache, redone = EmbeddingCache(folder, manifest), []
    for check in bad if manifest.complete else ():
        split, dashes, bank = Path(check.file).stem.partition("--")
        known = split in cache.split_names and bank in cache.bank_names
        if check.file.startswith(NEIGHBOURS) and dashes and known:
            cache.neighbours(split, bank, NEAREST)
        if check.file.startswith(NEIGHBOURS):
            redone.append(check)
    return redone


def _command(manifest: Manifest, whole: Path, folder: Path) -> str:
    """Return the command that redoes what a cache lacks, in our own words: no text of the manifest's."""
    out = shlex.quote(str(whole))
    if manifest.made_by == CONVERT:
        return f"distill cache convert CACHE --to {manifest.spec.format} --out {out}"
    if manifest.made_by == IMPORT:
        return f"distill cache import --out {out} --images FILE --keys FILE --texts FILE --classes FILE"
    name = EPISODES if manifest.made_by == EPISODES else "cache-features"
    words = [f"distill {name} DATA --out {out} --model MODEL --pretrained WEIGHTS", *_options(manifest)]
    if folder != whole:
        words.append(f"--teacher {folder.name}")
    return " ".join(words)


def _options(manifest: Manifest) -> Iterator[str]:
    """Yield the options without which a build would make another cache, or leave a part of it out."""
    spec = manifest.spec  # whose words are among ours, or it would not have been read
    if spec.teacher.preprocessing == SQUASH:
        yield f"--preprocess {SQUASH}"
    if spec.teacher.precision in PRECISIONS:
        yield f"--precision {spec.teacher.precision}"
    yield f"--dtype {spec.dtype} --format {spec.format} --rows-per-shard {spec.rows_per_shard:d}"
    if spec.regions:
        yield "--regions"
    if pixels := next(iter(manifest.pixels.values()), None):
        yield f"--pixels {pixels.side:d} --pixels-format {pixels.kind}"
    if views := next(iter(manifest.views.values()), None):
        yield f"--views {views.views:d} --views-scale {views.scale:g}"
    if support := next(iter(manifest.support.values()), None):
        yield f"--support-views {support.views:d}"
    if manifest.text_tower:
        yield "--keep-text-tower"
