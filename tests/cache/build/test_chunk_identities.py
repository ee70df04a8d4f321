"""A split whose chunks are as they were is not listed again; what cannot be read is listed."""

from __future__ import annotations

import pytest

from cache.build.chunk_identities import forget_chunks, keep_chunks, unchanged_since
from cache.sources.samples import Chunk

CHUNKS = [Chunk(id="0*", rows=3, identity="a" * 64), Chunk(id="1*", rows=2, identity="b" * 64)]
OTHER = [
    CHUNKS[:1],
    [*CHUNKS, Chunk(id="11*", rows=1, identity="c" * 64)],
    [CHUNKS[0], Chunk(id="1*", rows=2, identity="c" * 64)],
]


def test_only_the_same_chunks_are_unchanged(tmp_path):
    assert not unchanged_since(tmp_path, "train", CHUNKS)
    keep_chunks(tmp_path, "train", CHUNKS)
    assert unchanged_since(tmp_path, "train", CHUNKS[::-1])
    assert not unchanged_since(tmp_path, "id_test", CHUNKS)
    assert not any(unchanged_since(tmp_path, "train", chunks) for chunks in OTHER)
    forget_chunks(tmp_path, ["train", "id_test"])
    assert not unchanged_since(tmp_path, "train", CHUNKS)


@pytest.mark.parametrize("damage", [b"", b"[", b"[]", b"\xff\xfe", b"[" * 100_000, None])
def test_a_damaged_file_has_its_split_listed(tmp_path, damage):
    keep_chunks(tmp_path, "train", CHUNKS)
    (path,) = (tmp_path / "index").iterdir()
    path.unlink() if damage is None else path.write_bytes(damage)
    assert not unchanged_since(tmp_path, "train", CHUNKS)
