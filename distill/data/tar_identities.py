"""What a run is made from where its images are a cache's own tars: read off the journal alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cache import EmbeddingCache
from cache.runtime.progress import Progress
from cache.sources.samples import DataFolder
from cache.store.tar_folder import TarFolder
from distill.config import RunConfig
from distill.data.identity_reader import IdentityReader, identity_of
from distill.data_identity import DataIdentity, SplitIdentity


def identities_of(cache: EmbeddingCache, folder: DataFolder) -> IdentityReader:
    """Return what reads the identities of a folder's images, which may be the cache's own."""
    return (TarIdentities if isinstance(folder, TarFolder) else IdentityReader)(cache=cache, folder=folder)


@dataclass(kw_only=True)
class TarIdentities(IdentityReader):
    """The identities of what a cache has in its tars: every picture there is what its row was made from."""

    def changed(self, name: str) -> tuple[str, ...]:
        """Return none."""
        del name
        return ()

    def note_gone(self, progress: Progress, config: RunConfig | None = None) -> None:
        """Note none."""

    def of(self, config: RunConfig) -> DataIdentity:
        """Return the identity of a run of this config; its images are those in the tars."""
        return replace(super().of(config), pixels="", views="")

    def split(self, name: str) -> SplitIdentity:
        """Return the identity of a split, as a folder of the same images has it."""
        rows = self.cache.split(name)
        own = identity_of(rows.digests, images=len(rows), class_names=rows.class_names)
        return replace(own, rows=self.rows_digest(rows, np.arange(len(rows))))
