"""The sources of a cache as its manifest keeps them, so that they are opened again without being named."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cache.sources.data import Data, Given, open_data
from cache.sources.decoding import Decoding
from cache.sources.places import expanded, is_remote
from cache.sources.samples import DataFolder
from cache.sources.source_options import AS_THEY_ARE, SourceOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptSources:
    """Sources as they were ``given``, each found from any working folder, and how they are read."""

    given: tuple[str, ...]
    options: SourceOptions = AS_THEY_ARE

    @classmethod
    def of(cls, data: Data, options: SourceOptions) -> KeptSources | None:
        """Keep sources as a user names them; None where one is a dataset, which this process alone has."""
        given = Given.all_of(data)
        if any(one.dataset is not None for one in given):
            return None
        return cls(given=tuple(one.anywhere().text for one in given), options=options)

    @classmethod
    def unknown(cls, decoding: Decoding) -> KeptSources:
        """Return what is kept where no place is: how pictures are decoded."""
        return cls(given=(), options=SourceOptions(decoding=decoding))

    @property
    def gone(self) -> tuple[str, ...]:
        """The places of this machine that are not there any more; of addresses it is not asked."""
        places = (Given.parse(one).place for one in self.given)
        return tuple(place for place in places if not _is_there(place))

    def at(self, given: Sequence[str | Path]) -> KeptSources:
        """Return them in another place: what names its splits needs no rule that makes them."""
        named = [Given.parse(str(one)) for one in given]
        options = replace(self.options, rule=None) if any(one.split for one in named) else self.options
        return KeptSources(given=tuple(one.anywhere().text for one in named), options=options)

    def open(self) -> DataFolder:
        """Return their splits; UserError as :func:`open_data`."""
        return open_data(self.given, self.options)


def _is_there(place: str) -> bool:
    return is_remote(place) or os.path.exists(place) or any(map(os.path.exists, expanded(place)))
