"""What each of several processes has finished, until the manifest lists it: ``ranks/00001/manifest.json``.

Only one process writes a manifest. So each has one of its own, and the first joins them, at the end or, after
a process was lost, at the start of the next run.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from cache.store.manifest import NAME, Manifest

FOLDER = "ranks"


def folder_of_rank(out: Path, rank: int) -> Path:
    """Return where a rank of the cache ``out`` keeps its manifest."""
    return out / FOLDER / f"{rank:05d}"


def join_ranks(manifest: Manifest, out: Path) -> Manifest:
    """Return the manifest with what every rank has finished, saved; the ranks' own are removed."""
    of_ranks = sorted((out / FOLDER).glob(f"*/{NAME}"))
    for path in of_ranks:
        manifest = _joined(manifest, Manifest.load(path.parent))
    if of_ranks:
        manifest.save(out)
    shutil.rmtree(out / FOLDER, ignore_errors=True)
    return manifest


def _joined(manifest: Manifest, own: Manifest) -> Manifest:
    if manifest.spec.differences(own.spec):
        return manifest
    for name, split in own.splits.items():
        whole = manifest.splits.get(name)
        if whole is None or whole.class_names != split.class_names:
            continue
        listed = {shard.file for shard in whole.shards}
        for shard in split.shards:
            if shard.file not in listed:
                manifest = manifest.with_shard(name, shard)
        manifest = manifest.with_skipped(name, split.skipped)
    return manifest
