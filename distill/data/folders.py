"""The data that a cache has rows of: photos, one label each, episodes, which have several, or own tars."""

from __future__ import annotations

from pathlib import Path

from cache import EmbeddingCache
from cache.runtime.errors import UserError
from cache.sources.data import open_data
from cache.sources.episodes import EpisodeFolder
from cache.sources.open_set import check_apart, check_trained
from cache.sources.samples import DataFolder
from cache.sources.source_options import SourceOptions
from cache.store.spec import WEBDATASET
from cache.store.tar_folder import TarFolder
from distill.config import RunConfig


def open_folder(
    cache: EmbeddingCache, path: Path | None, *, shared_classes: bool, complete: bool, fix: str
) -> DataFolder:
    """List a data folder of what a cache has rows of; ``complete`` has at least train.

    With no ``path`` the data are the cache's own pictures, which the format webdataset has. UserError if a
    split is missing or wrong, or unless ``shared_classes`` a class is in train and in the OOD test.
    """
    if cache.holds_episodes and path is not None:  # whose OOD test shows trained objects as well
        return EpisodeFolder.scan(path, cache.episode_keys)
    required = ("train",) if complete else ()
    if path is None:
        folder: DataFolder = _own_tars(cache)
    else:
        folder = open_data([path], SourceOptions(decoding=cache.spec.decoding))
    for name in required:
        folder.split(name)
    check_trained(folder.path, folder.classes)
    if not shared_classes:
        check_apart(folder, fix=fix)
    return folder


def folder_to_train(config: RunConfig, cache: EmbeddingCache, path: Path | None) -> DataFolder:
    """Return the data that a run of this config trains on; raises as :func:`open_folder`."""
    shared, fix = config.data.shared_classes, "set data.shared_classes=true."
    return open_folder(cache, path, shared_classes=shared, complete=True, fix=fix)


def _own_tars(cache: EmbeddingCache) -> TarFolder:
    if cache.spec.format != WEBDATASET:
        raise UserError(
            f"the cache {cache.path} has no pictures, and no data folder was given",
            fix="give the folder of its images with --data, or make it with --format webdataset.",
        )
    return TarFolder.of(cache.path, cache.manifest, cache.journal)
