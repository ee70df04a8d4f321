"""The data that a cache has rows of: photos, one label each, episodes, which have several, or own tars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cache import EmbeddingCache
from cache.runtime.errors import UserError
from cache.sources.data import open_data
from cache.sources.episodes import EpisodeFolder
from cache.sources.open_set import check_apart, check_trained
from cache.sources.samples import DataFolder
from cache.store.tar_folder import TarFolder


def open_folder(
    cache: EmbeddingCache, path: Path | None, *, shared_classes: bool, complete: bool, fix: str
) -> DataFolder:
    """List a data folder of what a cache has rows of; ``complete`` has at least train and the OOD test.

    With no ``path`` the data are the cache's own pictures, which the format webdataset has. UserError if a
    split is missing or wrong, or unless ``shared_classes`` a class is in train and in the OOD test.
    """
    if cache.holds_episodes and path is not None:  # whose OOD test shows trained objects as well
        return EpisodeFolder.scan(path, cache.episode_keys)
    required = ("train", "ood_test") if complete else ()
    folder = open_data([path]) if path is not None else _own_tars(cache, required)
    check_trained(folder.path, folder.classes)
    if not shared_classes:
        check_apart(folder, fix=fix)
    return folder


def _own_tars(cache: EmbeddingCache, required: Sequence[str]) -> TarFolder:
    if cache.spec.format != "webdataset":
        raise UserError(
            f"the cache {cache.path} has no pictures, and no data folder was given",
            fix="give the folder of its images with --data, or make it with --format webdataset.",
        )
    folder = TarFolder.of(cache.path, cache.manifest, cache.journal)
    for name in required:
        folder.split(name)
    return folder
