"""What a source holds now, as arrays: 36 bytes a sample, and no object of each is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import UserError
from cache.sources.key_hashes import hash_of_key, hashes_of
from cache.sources.samples import Chunk, Listed, Source


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitListing:
    """The N samples of a split, in the order of the hashes of their keys.

    ``hashes`` uint64 [N]; ``bytes`` and ``mtime_ns`` int64 [N]; ``labels`` uint64 [N], a code of each one's
    classes (see :meth:`cache.store.row_group.KeysFile.label_codes`); ``chunk`` int32 [N] is the number of
    its chunk in ``chunks``.
    """

    hashes: NDArray[np.uint64]
    bytes: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]
    labels: NDArray[np.uint64]
    chunk: NDArray[np.int32]
    chunks: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.hashes)


def list_split(source: Source, chunks: Sequence[Chunk]) -> SplitListing:
    """List every sample of some chunks of a source.

    Raises
    ------
    UserError
        If two keys have one hash, by which rows are looked up.
    """
    seen: dict[tuple[str, ...], int] = {}
    listed = [_list_chunk(source, chunk.id, seen) for chunk in chunks]
    hashes = np.concatenate([np.empty(0, np.uint64), *(part[0] for part in listed)])
    numbers = np.concatenate([np.empty((0, 3), np.int64), *(part[1] for part in listed)])
    chunk = np.repeat(np.arange(len(listed), dtype=np.int32), [len(part[0]) for part in listed])
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    if len(hashes) and (same := hashes[1:] == hashes[:-1]).any():
        _refuse_one_hash(source, chunks, int(hashes[1:][same][0]))
    return SplitListing(
        hashes=hashes,
        bytes=numbers[order, 0],
        mtime_ns=numbers[order, 1],
        labels=numbers[order, 2].view(np.uint64),
        chunk=chunk[order],
        chunks=tuple(chunk.id for chunk in chunks),
    )


def _list_chunk(
    source: Source, chunk: str, seen: dict[tuple[str, ...], int]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the hashes [n] of a chunk's keys and [n, 3]: bytes, mtime_ns and code of labels."""
    listed = list(source.list(chunk))
    for labels in {one.labels for one in listed} - seen.keys():
        # As a signed number, for the three are one array.
        code = sum(map(hash_of_key, labels)) % 2**64
        seen[labels] = code - 2**64 if code >= 2**63 else code
    table = [(one.bytes, one.mtime_ns, seen[one.labels]) for one in listed]
    hashes = hashes_of([one.key for one in listed])
    return hashes, np.array(table, dtype=np.int64).reshape(-1, 3)


def _refuse_one_hash(source: Source, chunks: Sequence[Chunk], code: int) -> None:
    def is_it(one: Listed) -> bool:
        return hash_of_key(one.key) == code

    keys = [one.key for chunk in chunks for one in source.list(chunk.id) if is_it(one)]
    if len({*keys}) == 1:
        places = [one.where for chunk in chunks for one in source.read(chunk.id, {*keys})]
        raise UserError(
            f"{source.split} has the key {keys[0]} twice: {' and '.join(places)}",
            fix="take one of them out, or call one otherwise: each row has a key of its own.",
        )
    raise UserError(
        f"{source.split} has {' and '.join(keys)}, whose names have one hash of 64 bits",
        fix="rename one of them.",
    )
