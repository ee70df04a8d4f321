"""One cache in the other format, number for number."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cache.build.pipeline import open_manifest
from cache.build.shard_writer import write_shard
from cache.reader import TEACHERS, EmbeddingCache
from cache.runtime.atomic_files import remove_temporaries, replacing
from cache.runtime.errors import UserError
from cache.runtime.locks import only_writer
from cache.sources.image_folder import ImageFolder
from cache.store.manifest import CONVERT, Manifest
from cache.store.manifest_lines import COLUMNS, ListedSplit
from cache.store.shard_formats import FORMATS, read_shard


def convert_cache(
    source: Path,
    out: Path,
    *,
    format: str,
    folder: ImageFolder | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Manifest:
    """Write the finished cache ``source`` to ``out`` in another format; what is there is continued.

    ``folder`` gives a WebDataset its pictures; without it the rows carry embeddings alone. The
    fingerprint stays: a format changes no number.

    Raises
    ------
    UserError
        If ``source`` has that format already, or ``out`` holds another cache.
    """
    cache = EmbeddingCache.open(source)
    old = cache.manifest
    if old.spec.format == format:
        raise UserError(f"{source} has the format {format} already", fix="choose the other format.")
    with only_writer(out):
        manifest = _converted(cache, out, format, folder, on_rows)
        for name in cache.teacher_names[1:]:
            there = Path(TEACHERS) / name
            convert_cache(source / there, out / there, format=format, folder=folder, on_rows=on_rows)
    return manifest


def _converted(
    cache: EmbeddingCache, out: Path, format: str, folder: ImageFolder | None, on_rows: Callable[[int], None]
) -> Manifest:
    source, old = cache.path, cache.manifest
    manifest = open_manifest(
        out,
        replace(old.spec, format=format),
        old.embed_dim,
        rebuild=False,
        replaced_by="move that folder away",
    )
    if manifest.complete:
        return manifest
    remove_temporaries(out, below=True)
    manifest = replace(manifest, command=CONVERT)
    manifest.save(out)  # before the first shard: a folder that holds one and no manifest is nobody's cache
    for name, split in old.splits.items():
        new = manifest.splits.get(name, ListedSplit(class_names=split.class_names, skipped=split.skipped))
        manifest = manifest.with_split(name, new)
        paths = {image.key: image.path for image in folder.split(name).all()} if folder else {}
        for shard in split.shards:
            file = str(Path(shard.file).with_suffix(f".{FORMATS[format].ENDING}"))
            if file not in {done.file for done in new.shards}:
                rows = read_shard(source, shard, old, name).loaded()
                if folder and (absent := next((key for key in rows.keys if key not in paths), None)):
                    raise UserError(
                        f"{folder.path} has no image {absent!r}, which the cache holds",
                        fix="give the cache's own data folder.",
                    )
                images = [paths[key] for key in rows.keys] if folder else None
                written = write_shard(out, file, rows, format, images=images)
                same = {name: getattr(written, name) for name in ("file", "bytes", "sha256")}
                manifest = manifest.with_shard(name, replace(shard, **same))
                manifest.save(out)
            on_rows(shard.rows)
    for listed in (*old.banks.values(), *old.column_shards, *old.text_tower):
        with replacing(out / listed.file) as temporary:
            shutil.copyfile(source / listed.file, temporary)
    beside = {name: getattr(old, name) for name in ("banks", "text_tower", *COLUMNS)}
    manifest = replace(manifest, **beside, complete=True)
    manifest.save(out)
    return manifest
