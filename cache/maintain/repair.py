"""Take out of a cache what is damaged, so that the command that made it redoes that and nothing else.

Whose teacher and data a cache is of, its manifest says; it may be anybody's, and so nothing is loaded by it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache.maintain.verify import NEIGHBOURS, Check, checks_of
from cache.reader import TEACHERS, EmbeddingCache
from cache.runtime.atomic_files import check_own_folders
from cache.runtime.locks import only_writer
from cache.sources.splits import MAIN_TEACHER
from cache.store.manifest import CONVERT, EPISODES, FEATURES, IMPORT, NAME, Manifest
from cache.store.manifest_lines import COLUMNS
from cache.store.spec import PRECISIONS, SQUASH


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What was done: the files that were taken out, and what brings them back.

    ``commands`` have capitals in the place of what only the user knows: DATA, MODEL, WEIGHTS, FILE.
    """

    removed: tuple[Check, ...]
    commands: tuple[str, ...]


def repair_cache(folder: Path) -> Repair:
    """Take every damaged file out of a cache, which is unfinished then; but neighbours, which readers redo.

    Raises
    ------
    UserError
        If a manifest is missing or damaged, or a folder of the cache is a link.
    """
    removed: list[Check] = []
    commands = []
    with only_writer(folder):
        for name in EmbeddingCache(folder, Manifest.load(folder)).teacher_names:
            below = f"{TEACHERS}/{name}/" if name != MAIN_TEACHER else ""
            manifest, taken = _without_damaged(folder / below)
            removed += [replace(check, file=f"{below}{check.file}") for check in taken]
            if not manifest.complete:
                more = f" --teacher {name}" if below else ""
                commands.append(_command(manifest, folder) + more)
    return Repair(removed=tuple(removed), commands=tuple(commands))


def _without_damaged(folder: Path) -> tuple[Manifest, list[Check]]:
    """Unlist and remove a cache's damaged files; return its manifest and what was wrong with them.

    Text banks and the text tower stay listed, as missing: a build that would give a bank other texts is
    refused by its line, and the command is printed with what is lacking.
    """
    check_own_folders(folder)
    manifest = Manifest.load(folder)
    damaged = [check for check in checks_of(folder, manifest) if check.problem and check.file != NAME]
    files = {check.file for check in damaged if not check.file.startswith(NEIGHBOURS)}
    if files:
        manifest = _listing_none_of(files, manifest)
        manifest.save(folder)  # first: a file that is not listed does not exist
    for check in damaged:
        (folder / check.file).unlink(missing_ok=True)
    return manifest, damaged


def _listing_none_of(files: set[str], manifest: Manifest) -> Manifest:
    for name, split in manifest.splits.items():
        kept = tuple(shard for shard in split.shards if shard.file not in files)
        manifest = manifest.with_split(name, replace(split, shards=kept))
    columns: dict[str, Any] = {
        name: {
            split: column.keeping(lambda shard, _: shard.file not in files)
            for split, column in getattr(manifest, name).items()
        }
        for name in COLUMNS
    }
    return replace(manifest, complete=False, **columns)


def _command(manifest: Manifest, out: Path) -> str:
    """Return the command that redoes what a cache lacks, in our own words: no text of the manifest's."""
    where = shlex.quote(str(out))
    if manifest.command == CONVERT:
        return f"distill cache convert CACHE --to {manifest.spec.format} --out {where}"
    if manifest.command == IMPORT:
        return f"distill cache import --out {where} --images FILE --keys FILE --texts FILE --classes FILE"
    name = EPISODES if manifest.command == EPISODES else FEATURES
    return " ".join(
        [f"distill {name} DATA --out {where} --model MODEL --pretrained WEIGHTS", *_options(manifest)]
    )


def _options(manifest: Manifest) -> Iterator[str]:
    """Yield the options without which a build would make another cache, or leave a part of it out."""
    spec = manifest.spec  # whose words are among ours, or it would not have been read
    if spec.teacher.preprocessing == SQUASH:
        yield f"--preprocess {SQUASH}"
    if spec.teacher.precision in PRECISIONS:
        yield f"--precision {spec.teacher.precision}"
    yield f"--dtype {spec.dtype} --format {spec.format}"
    if spec.regions:
        yield "--regions"
    if pixels := next(iter(manifest.pixels.values()), None):
        yield f"--pixels {pixels.side:d} --pixels-format {pixels.encoding}"
    if crops := next(iter(manifest.crop_views.values()), None):
        yield f"--views {crops.views:d} --views-scale {crops.scale:g}"
    if support := next(iter(manifest.support_views.values()), None):
        yield f"--support-views {support.views:d}"
    if manifest.text_tower:
        yield "--keep-text-tower"
