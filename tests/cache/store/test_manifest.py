"""Versions and checksums: what this version reads, and what it refuses of a manifest."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from cache import EmbeddingCache
from cache.runtime.errors import CacheMismatch, UserError
from cache.store.checksums import append_checksum, has_its_checksum, with_checksum
from cache.store.manifest import Manifest
from distill.checkpoint import read_checkpoint


def test_a_text_with_its_checksum_notices_any_changed_byte():
    text = with_checksum({"a": 1, "b": ["ü", {"sha256": "0" * 64}]})
    assert has_its_checksum(text)
    assert has_its_checksum(text + "\n")
    for i in range(len(text)):
        assert not has_its_checksum(text[:i] + chr(ord(text[i]) ^ 1) + text[i + 1 :])
    assert not has_its_checksum("{}")
    assert not has_its_checksum("")


def test_what_an_older_version_wrote_is_refused_as_that(whole, tmp_path):
    cache, run = tmp_path / "cache", tmp_path / "last.pt"
    shutil.copytree(whole / "hdf5", cache)
    value = json.loads((cache / "manifest.json").read_text())
    del value["sha256"]
    (cache / "manifest.json").write_text(json.dumps({**value, "schema_version": 1}))  # as the first versions
    torch.save({"schema_version": 1}, run)
    for read in (lambda: EmbeddingCache.open(cache), lambda: read_checkpoint(run)):
        with pytest.raises(UserError, match=r"no checksum: it was cut short, or an older distill wrote it"):
            read()
    (cache / "manifest.json").write_text(with_checksum({**value, "schema_version": 1}))
    append_checksum(run)
    for read in (lambda: EmbeddingCache.open(cache), lambda: read_checkpoint(run)):
        with pytest.raises(
            CacheMismatch, match=r"schema version 1, .*an older distill wrote it: make it again"
        ):
            read()


def test_what_a_newer_version_wrote_is_refused_with_the_command_that_upgrades(whole, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(whole / "hdf5", cache)
    value = json.loads((cache / "manifest.json").read_text())
    del value["sha256"]
    (cache / "manifest.json").write_text(with_checksum({**value, "schema_version": 99}))
    with pytest.raises(CacheMismatch, match=r"schema version 99.*bring yours up to date"):
        EmbeddingCache.open(cache)
    torch.save({"schema_version": 99}, tmp_path / "last.pt")
    append_checksum(tmp_path / "last.pt")
    with pytest.raises(UserError, match=r"schema version 99.*bring yours up to date"):
        read_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize(
    "file",
    [
        "/etc/passwd",
        "texts/../../x.h5",
        "texts/..",
        "texts\\x.h5",
        "elsewhere/x.h5",
        "texts/a/b.h5",
        "rows/x.h5",
    ],
)
def test_a_manifest_cannot_name_files_outside_of_its_cache(whole, tmp_path, file):
    shutil.copytree(whole / "hdf5", tmp_path / "cache")
    value = json.loads((tmp_path / "cache" / "manifest.json").read_text())
    del value["sha256"]
    value["banks"]["labels"]["file"] = file
    (tmp_path / "cache" / "manifest.json").write_text(with_checksum(value))
    with pytest.raises(UserError, match="is no file of a cache"):
        Manifest.load(tmp_path / "cache")
