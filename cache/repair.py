"""Redo what is broken in a cache, and nothing else: by the command that made it, which its manifest keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache.convert import convert_cache
from cache.errors import UserError
from cache.images import ImageFolder
from cache.locks import only_writer
from cache.made_by import options_of
from cache.manifest import BACKUP, NAME, Manifest
from cache.progress import Progress
from cache.reader import TEACHERS, EmbeddingCache
from cache.verify import Check, verify_cache

NEIGHBOURS = "neighbours/"


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where a cache is made from, where that is elsewhere than when it was made; None: as it was."""

    data: Path | None = None
    model: str | None = None
    pretrained: str | None = None
    device: str | None = None


def repair_cache(folder: Path, sources: Sources, *, progress: Progress | None = None) -> list[Check]:
    """Redo every damaged or missing file of a cache; return what was wrong with each of them.

    A damaged manifest is replaced by its copy first. What is redone holds the same rows as before, bit for
    bit where it is computed on the same kind of machine.

    Raises
    ------
    UserError
        If there is neither a manifest nor a copy, what the cache was made from is not there, or something
        is still damaged afterwards.
    """
    with only_writer(folder):
        return _repaired(folder, sources, progress)


def _repaired(folder: Path, sources: Sources, progress: Progress | None) -> list[Check]:
    restored = _restored_manifest(folder)
    bad = [check for check in verify_cache(folder) if check.problem]
    for name in _teachers(folder):
        mine = f"{TEACHERS}/{name}/"
        below = repair_cache(folder / mine, sources, progress=progress)
        restored += [replace(check, file=f"{mine}{check.file}") for check in below]
    bad = [check for check in bad if not check.file.startswith(f"{TEACHERS}/")]
    _remove_neighbours(folder, bad)
    if any(not check.file.startswith((NEIGHBOURS, BACKUP)) for check in bad):
        _again(folder, bad, sources, progress)
    manifest = Manifest.load(folder)
    if any(check.file == BACKUP for check in bad):
        manifest.save(folder)
    _store_neighbours(folder, manifest, bad)
    left = [check for check in verify_cache(folder) if check.problem]
    if left:
        raise UserError(
            f"{folder} is still damaged ({left[0].file}: {left[0].problem})",
            fix="run the command that made it, with --rebuild.",
        )
    return restored + bad


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
    found = (folder / TEACHERS).glob(f"*/{BACKUP}")
    return sorted({path.parent.name for path in found} | {*_cache(folder).teacher_names[1:]})


def _cache(folder: Path) -> EmbeddingCache:
    return EmbeddingCache(folder, Manifest.load(folder))


def _remove_neighbours(folder: Path, bad: Sequence[Check]) -> None:
    for check in bad:
        if check.file.startswith(NEIGHBOURS):
            (folder / check.file).unlink(missing_ok=True)


def _store_neighbours(folder: Path, manifest: Manifest, bad: Sequence[Check]) -> None:
    k = manifest.made_by.get("options", {}).get("neighbours") or 256
    cache = EmbeddingCache(folder, manifest)
    for check in bad:
        split, dashes, bank = Path(check.file).stem.partition("--")
        known = split in cache.split_names and bank in cache.bank_names
        if check.file.startswith(NEIGHBOURS) and dashes and known:
            cache.neighbours(split, bank, k)


def _again(folder: Path, bad: Sequence[Check], sources: Sources, progress: Progress | None) -> None:
    """Run the command that made the cache: it keeps what is sound."""
    manifest = Manifest.load(folder)
    commands = {
        "cache-features": _features,
        "robotics cache-features": _episodes,
        "cache import": _import,
        "cache convert": _convert,
    }
    made_by = manifest.made_by
    command = commands.get(made_by.get("command", ""))
    if command is None:
        raise UserError(
            f"{folder} does not say how it was made (an older distill wrote it), and "
            f"{bad[0].file} is damaged ({bad[0].problem})",
            fix="run the command that made it again: it redoes what is damaged.",
        )
    command(folder, manifest, {check.file for check in bad}, sources, progress)


def _data(made_by: dict[str, Any], sources: Sources) -> Path:
    data = sources.data or Path(made_by["data"])
    if not data.is_dir():
        raise UserError(f"the data folder {data} of this cache is not there", fix="give --data.")
    return data


def _features(
    folder: Path, manifest: Manifest, bad: set[str], sources: Sources, progress: Progress | None
) -> None:
    # Here, because it imports open_clip, which takes seconds.
    from cache.features import FeatureOptions, cache_features

    pixels = next(iter(manifest.pixels.values()), None)
    views = next(iter(manifest.views.values()), None)
    support = next(iter(manifest.support.values()), None)
    options = options_of(
        FeatureOptions,
        manifest.made_by,
        model=sources.model,
        pretrained=sources.pretrained,
        device=sources.device,
        # What an earlier command added stays, though the newest did not ask for it.
        pixels=pixels.side if pixels else None,
        pixels_format=pixels.kind if pixels else None,
        views=views.views if views else None,
        views_scale=views.scale if views else None,
        support_views=support.views if support else None,
        keep_text_tower=True if manifest.text_tower else None,
    )
    out = folder.parent.parent if folder.parent.name == TEACHERS else folder
    cache_features(_data(manifest.made_by, sources), out, options, progress=progress)


def _episodes(
    folder: Path, manifest: Manifest, bad: set[str], sources: Sources, progress: Progress | None
) -> None:
    from cache.episode_features import EpisodeOptions, cache_episode_features

    options = options_of(
        EpisodeOptions,
        manifest.made_by,
        model=sources.model,
        pretrained=sources.pretrained,
        device=sources.device,
        keep_text_tower=True if manifest.text_tower else None,
    )
    cache_episode_features(_data(manifest.made_by, sources), folder, options, progress=progress)


def _import(
    folder: Path, manifest: Manifest, bad: set[str], sources: Sources, progress: Progress | None
) -> None:
    from cache.import_files import import_files

    given = dict(manifest.made_by["options"])
    data = sources.data or given.pop("data", None)
    given.pop("data", None)
    import_files(folder, data=Path(data) if data else None, **given)


def _convert(
    folder: Path, manifest: Manifest, bad: set[str], sources: Sources, progress: Progress | None
) -> None:
    source = Path(manifest.made_by["source"])
    if not source.is_dir():
        raise UserError(
            f"the cache {source}, from which {folder} was converted, is not there", fix="bring it back."
        )
    data = sources.data or manifest.made_by.get("data")
    for name, split in manifest.splits.items():
        kept = tuple(shard for shard in split.shards if shard.file not in bad)
        manifest = manifest.with_split(name, replace(split, shards=kept))
    replace(manifest, complete=False).save(folder)
    convert_cache(
        source,
        folder,
        format=manifest.spec.format,
        folder=ImageFolder.scan(Path(data), require=()) if data else None,
    )
