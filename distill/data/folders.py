"""The data folder that a cache has rows of: of photos, one label each, or of episodes, which have several."""

from __future__ import annotations

from pathlib import Path

from cache import EmbeddingCache
from cache.sources.episodes import EpisodeFolder
from cache.sources.image_folder import ImageFolder
from cache.sources.open_set import check_apart, check_trained
from cache.sources.samples import DataFolder


def open_folder(
    cache: EmbeddingCache, path: Path, *, shared_classes: bool, complete: bool, fix: str
) -> DataFolder:
    """List a data folder of what a cache has rows of; ``complete`` has at least train and the OOD test.

    UserError if a split is missing or wrong, or unless ``shared_classes`` a class is in train and in the OOD
    test.
    """
    if cache.holds_episodes:  # whose OOD test shows trained objects as well
        return EpisodeFolder.scan(path, cache.episode_keys)
    folder = ImageFolder.scan(path, require=("train", "ood_test") if complete else ())
    check_trained(path, folder.classes)
    if not shared_classes:
        check_apart(folder, fix=fix)
    return folder
