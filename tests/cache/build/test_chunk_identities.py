"""A split whose chunks are as they were is not listed again; what cannot be read is listed."""

from __future__ import annotations

import pytest

from cache.build.chunk_identities import forget_chunks, keep_chunks, rows_when_done
from cache.sources.samples import Chunk

CHUNKS = [Chunk(id="0*", identity="a" * 64), Chunk(id="1*", identity="b" * 64)]
OTHER = [
    CHUNKS[:1],
    [*CHUNKS, Chunk(id="11*", identity="c" * 64)],
    [CHUNKS[0], Chunk(id="1*", identity="c" * 64)],
]


def test_only_the_same_chunks_are_unchanged(tmp_path):
    assert rows_when_done(tmp_path, "train", CHUNKS) is None
    keep_chunks(tmp_path, "train", CHUNKS, 5)
    assert rows_when_done(tmp_path, "train", CHUNKS[::-1]) == 5
    assert rows_when_done(tmp_path, "id_test", CHUNKS) is None
    assert {rows_when_done(tmp_path, "train", chunks) for chunks in OTHER} == {None}
    forget_chunks(tmp_path, ["train", "id_test"])
    assert rows_when_done(tmp_path, "train", CHUNKS) is None


@pytest.mark.parametrize(
    "damage", [b"", b"[", b"[]", b"{}", b'{"chunks": {}, "rows": 5}', b"\xff\xfe", b"[" * 100_000, None]
)
def test_a_damaged_file_has_its_split_listed(tmp_path, damage):
    keep_chunks(tmp_path, "train", CHUNKS, 5)
    (path,) = (tmp_path / "index").iterdir()
    path.unlink() if damage is None else path.write_bytes(damage)
    assert rows_when_done(tmp_path, "train", CHUNKS) is None
