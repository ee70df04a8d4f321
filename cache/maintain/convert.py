"""One cache in the other format, number for number; run again, it follows what its source has become."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from cache.build.outdated_tars import note_on_tars
from cache.build.preparation import changing_rows, open_manifest
from cache.maintain.converted_rows import FROM, Converted, name_of
from cache.maintain.copied_groups import (
    COPIED,
    Copy,
    Pictures,
    beside_columns,
    check_sound,
    copied_from,
    row_columns,
    write_added,
    write_copy,
)
from cache.maintain.joined_columns import Selection
from cache.reader import EmbeddingCache
from cache.runtime.atomic_files import replacing
from cache.runtime.errors import UserError
from cache.runtime.locks import only_writer
from cache.runtime.progress import Progress, Silent
from cache.sources.kept_sources import KeptSources
from cache.sources.samples import DataFolder
from cache.store.journal import Journal, JournalWriter
from cache.store.journal_lines import KEYS, SAMPLES, DroppedFile, FileLine
from cache.store.manifest import CONVERT, Manifest
from cache.store.manifest_lines import ListedFile
from cache.store.read_errors import REPAIR
from cache.store.row_group import GroupKeys
from cache.store.spec import WEBDATASET
from cache.store.webdataset import TarContent, content_of


def convert_cache(
    source: Path,
    out: Path,
    *,
    format: str,
    folder: DataFolder | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Write the finished cache ``source`` to ``out`` in another format; what is there is continued.

    ``folder`` gives a WebDataset its pictures; without it the rows carry embeddings alone. The fingerprint
    stays: a format changes no number. Rows that the source has no more, or has others of, are removed.

    Raises
    ------
    UserError
        If ``source`` has that format already or is damaged, ``out`` holds another cache, or a picture is not
        what its row was made from.
    """
    progress = progress or Silent()
    cache = EmbeddingCache.open(source)
    old = cache.manifest
    if old.spec.format == format:
        raise UserError(f"{source} has the format {format} already", fix="choose the other format.")
    with only_writer(out):
        spec = replace(old.spec, format=format)
        there = open_manifest(out, spec, old.embed_dim, replaced_by="move that folder away")
        _check_conversion(out, there)
        sources = _sources(old, there, folder)
        manifest = replace(old, spec=spec, sources=sources, rows={}, command=CONVERT, complete=False)
        # Before the first group: a folder that holds one and no manifest is nobody's cache.
        manifest.save(out)
        pictures = None if folder is None else _pictures_of(folder)
        copy = Copy(source=source, manifest=old, out=out, to_tar=format == WEBDATASET, pictures=pictures)
        with changing_rows(out, manifest) as journal:
            _follow(cache, copy, journal, progress)
        _copy_files(source, out, old.files)
        manifest = replace(manifest, rows=Journal.load(out).rows_of_splits, complete=True)
        manifest.save(out)
        if note := note_on_tars(out, manifest, Journal.load(out)):
            progress.note(note)
    return manifest


def _sources(old: Manifest, there: Manifest, folder: DataFolder | None) -> KeptSources | None:
    """Return where the images are: in the folder that is given, else where the source says, or ``there``."""
    own = old.sources or there.sources
    if folder is None or not folder.given:
        return own
    return (own or KeptSources.unknown(old.spec.decoding)).at(folder.given)


def _check_conversion(out: Path, there: Manifest) -> None:
    """Make sure that a folder's rows are a conversion's: what the source lacks is removed."""
    if there.splits and there.command != CONVERT:
        raise UserError(
            f"{out} is a cache that 'distill cache convert' has not made, and would remove the rows of",
            fix="choose another --out, or move that folder away.",
        )


def _follow(cache: EmbeddingCache, copy: Copy, journal: Journal, progress: Progress) -> None:
    """Bring the row groups of a conversion up to date with those of its source."""
    writer = JournalWriter(copy.out)
    splits = {name: Converted.of(cache.split(name), copy, journal.groups(name)) for name in cache.split_names}
    gone = [group for name in journal.splits if name not in splits for group in journal.groups(name)]
    progress.start(sum(len(of.missing) for of in splits.values()))
    for split in splits.values():
        writer.add(*split.removed())
        gone += split.empty
        for group, rows in split.missing_rows():
            check_sound(copy.source, [group])
            selection = Selection.of(copy.source, [(group, rows)], by_hash=copy.to_tar)
            writer.add(*write_copy(copy, selection, about={FROM: name_of(copy, group)}))
            progress.advance(len(rows))
        for line in _columns(copy, split):
            writer.add(line)
    writer.add(*(DroppedFile(file=group.keys.file) for group in gone))


def _columns(copy: Copy, split: Converted) -> Iterator[FileLine | DroppedFile]:
    """Yield the lines of columns that earlier groups lack, and of those that the source has no more."""
    groups = split.rows.groups.groups
    beside, of_rows = beside_columns(copy, groups), row_columns(copy, groups)
    for converted in split.kept:
        target, placed = converted.group, split.sources_of(converted)
        has = [column for column in beside if any(column in one.group.lines for one in placed)]
        for column in has:
            line = target.lines.get(column)
            if line is None or line.about.get(COPIED) != copied_from(copy, placed, column):
                check_sound(copy.source, [one.group for one in placed])
                yield write_added(copy, target.keys, placed, column)
        for column in target.lines.keys() - {KEYS, SAMPLES, *of_rows, *has}:
            yield DroppedFile(file=target.lines[column].file)


def _copy_files(source: Path, out: Path, files: Iterable[ListedFile]) -> None:
    for listed in files:
        if not listed.is_sound(out):
            if not listed.is_sound(source):
                raise UserError(f"{source / listed.file} differs from its checksum", fix=REPAIR)
            with replacing(out / listed.file) as temporary:
                shutil.copyfile(source / listed.file, temporary)


def _pictures_of(folder: DataFolder) -> Pictures:
    """Return what gives rows the pictures of a data folder, of which they were made; UserError for others."""

    def pictures(keys: GroupKeys) -> Iterator[TarContent]:
        try:
            samples = folder.split(keys.split).samples(keys.keys)
            for sample, content in zip(samples, keys.content, strict=True):
                yield content_of(sample, None, content.tobytes())
        except KeyError as error:
            raise UserError(
                f"{folder.path} has no image {error.args[0]!r}, which the cache holds",
                fix="give the cache's own data folder.",
            ) from error

    return pictures
