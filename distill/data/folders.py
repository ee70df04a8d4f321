"""The one door to the data that a cache has rows of: where they were, where they are now, or its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cache import EmbeddingCache
from cache.changed_images import contents_of
from cache.runtime.errors import UserError, some_of
from cache.runtime.locks import only_writer
from cache.runtime.torchrun import speaks
from cache.sources.episodes import EpisodeFolder
from cache.sources.kept_sources import KeptSources
from cache.sources.open_set import check_apart, check_trained
from cache.sources.samples import DataFolder
from cache.sources.splits import POOL
from cache.store.kept_rows import KeptFolder
from cache.store.manifest import Manifest
from cache.store.pixels import COLUMN
from cache.store.spec import WEBDATASET
from cache.store.tar_folder import TarFolder
from distill.config import RunConfig

Data = str | Path | Sequence[str | Path] | None
"""Sources as a user names them, each ``SOURCE`` or ``SPLIT=SOURCE``; None or none: the cache's own."""


def given_of(data: Data) -> tuple[str, ...]:
    """Return sources as texts, one or several."""
    return (str(data),) if isinstance(data, (str, Path)) else tuple(map(str, data or ()))


def open_folder(
    cache: EmbeddingCache, data: Data, *, shared_classes: bool, complete: bool, fix: str
) -> DataFolder:
    """Open the data that a cache has rows of; ``complete`` has train, or a pool alone.

    With no ``data`` these are the cache's own pictures, which the format webdataset has, else its sources
    where they were, else the pixels that it keeps. Data in another place are remembered by the cache where
    they are what its rows were made from; where that cannot be written the folder's ``notes`` say so.

    Raises
    ------
    UserError
        If the data are gone, a split is missing or wrong, or unless ``shared_classes`` a class is in train
        and in the OOD test.
    """
    given = given_of(data)
    folder = _named(cache, given) if given else _own(cache)
    if cache.holds_episodes:  # whose OOD test shows trained objects as well
        return folder
    if complete:
        alone = POOL in cache.split_names and "train" not in (*cache.split_names, *folder.splits)
        folder.split(POOL if alone else "train")
    check_trained(folder.path, folder.classes)
    if not shared_classes:
        check_apart(folder, fix=fix)
    return folder


def folder_to_train(config: RunConfig, cache: EmbeddingCache, data: Data) -> DataFolder:
    """Return the data that a run of this config trains on; raises as :func:`open_folder`."""
    shared, fix = config.data.shared_classes, "set data.shared_classes=true."
    return open_folder(cache, data, shared_classes=shared, complete=True, fix=fix)


def check_there(cache: EmbeddingCache, data: Data) -> None:
    """Raise UserError where a run's data are gone: asked first, before weights are looked for."""
    given = given_of(data)
    if gone := sources_of(cache).at(given).gone:
        raise UserError(f"the data folder {gone[0]} does not exist", fix="check --data.")
    if not given and (lost := _lost(cache)):
        raise lost


def sources_of(cache: EmbeddingCache) -> KeptSources:
    """Return the sources that a cache keeps; of one that keeps none, how its pictures are decoded."""
    return cache.manifest.sources or KeptSources.unknown(cache.spec.decoding)


def _named(cache: EmbeddingCache, given: tuple[str, ...]) -> DataFolder:
    there = sources_of(cache).at(given)
    folder = _opened(cache, there)
    # Of several processes one writes.
    if speaks() and there != cache.manifest.sources and _is_what_rows_say(cache, folder):
        return replace(folder, notes=_keep(cache, there))
    return folder


def _opened(cache: EmbeddingCache, sources: KeptSources) -> DataFolder:
    if not cache.holds_episodes:
        return replace(sources.open(), notes=())  # stage 1 has said them
    if len(sources.given) > 1:
        raise UserError("episodes lie in one folder, and several are given", fix="give one with --data.")
    folder = EpisodeFolder.scan(Path(sources.given[0]), cache.episode_keys)
    return replace(folder, given=sources.given)


def _own(cache: EmbeddingCache) -> DataFolder:
    if lost := _lost(cache):
        raise lost
    if cache.spec.format == WEBDATASET:
        return TarFolder.of(cache.path, cache.manifest, cache.journal)
    sources = sources_of(cache)
    if sources.given and not sources.gone:
        return _opened(cache, sources)
    return KeptFolder.of(cache.path, cache.manifest, cache.journal)


def _lost(cache: EmbeddingCache) -> UserError | None:
    """Return what is to be said where a cache's pictures are neither in it nor where they were."""
    sources = sources_of(cache)
    if cache.spec.format == WEBDATASET or (sources.given and not sources.gone):
        return None
    if not cache.holds_episodes and _keeps_pixels(cache):
        return None
    if not sources.given:
        return UserError(
            f"the cache {cache.path} has no pictures, and does not say where they are",
            fix="say where they are with --data; the cache keeps it.",
        )
    return UserError(
        f"the images of the cache {cache.path} are not in {some_of(sources.gone)} any more",
        fix="say once where they are now with --data; the cache keeps it.",
    )


def _keeps_pixels(cache: EmbeddingCache) -> bool:
    column = cache.manifest.columns.get(COLUMN)
    judged = [name for name in cache.split_names if name != POOL]
    return column is not None and all(
        COLUMN in group.lines for name in judged for group in cache.journal.live_groups(name)
    )


def _is_what_rows_say(cache: EmbeddingCache, folder: DataFolder) -> bool:
    """Say whether every row of a cache has its image in a folder, of the same classes, and none changed."""
    for name in cache.split_names:
        if name not in folder.splits or folder.splits[name].classes != cache.class_names(name):
            return False
        rows = cache.split(name)
        contents = contents_of(folder.split(name).all(), rows)
        if contents.changed or int((contents.row_of >= 0).sum()) < len(rows):
            return False
    return True


def _keep(cache: EmbeddingCache, sources: KeptSources) -> tuple[str, ...]:
    """Write where the images are now into a cache's manifest; return why that cannot be, where it cannot."""
    try:
        with only_writer(cache.path):
            replace(Manifest.load(cache.path), sources=sources).save(cache.path)
    except (OSError, UserError) as error:  # a cache that others own, or that another process writes
        reason = error.problem if isinstance(error, UserError) else error.strerror or error
        return (f"the cache does not keep where its images are now ({reason}): give --data again next time",)
    return ()
