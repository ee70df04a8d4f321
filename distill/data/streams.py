"""The stream of a run: of images in a data folder, or of a cache's own tars."""

from __future__ import annotations

from pathlib import Path

from cache import EmbeddingCache
from cache.store.spec import WEBDATASET
from distill.config import RunConfig
from distill.data.folders import Data, given_of
from distill.data.stream import Stream
from distill.data.tar_stream import TarStream


def open_stream(
    config: RunConfig, *, cache_dir: Path, data_dir: Data, check: bool = False
) -> Stream | TarStream:
    """Open the stream of a run: of a data folder's images, or without one of those in the cache's tars.

    With ``check`` the cache's files are compared with their checksums. UserError if the cache, the data and
    the config do not fit each other, or an image is not what its rows were made from.
    """
    cache = EmbeddingCache.open(cache_dir, check=check)
    own_tars = not given_of(data_dir) and cache.spec.format == WEBDATASET
    return TarStream.of(config, cache) if own_tars else Stream.of(config, cache, data_dir)
