"""The beginning of a stage-1 run, by its first process alone: what changed, and what is to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from cache.build.changes import Changes, class_changes
from cache.build.chunk_identities import forget_chunks, rows_when_done
from cache.build.distinct_texts import positions_note
from cache.build.lost_files import drop_lost_files, remove_unlisted
from cache.build.options import Build
from cache.build.plan import Plan, PlannedChunk, planned_chunks
from cache.build.split_changes import SplitChanges, compare_split
from cache.build.split_listing import list_split
from cache.build.stored_rows import StoredRows
from cache.build.text_banks import changed_texts, check_banks, write_banks
from cache.build.touched_files import TouchedFiles
from cache.build.versions import versions
from cache.runtime.atomic_files import check_own_folders, remove_temporaries
from cache.runtime.errors import CacheMismatch, UserError
from cache.sources.samples import Chunk, Source
from cache.store.journal import Journal, consolidate
from cache.store.journal_lines import Line, TriedImage
from cache.store.key_index import KeyIndex
from cache.store.manifest import NAME, Manifest, check_is_cache_or_empty
from cache.store.row_group import KeysFile
from cache.store.spec import CacheSpec


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A data folder beside its cache: what changed, what is to be embedded, and the ``lines`` that say so.

    ``chunks`` are those of every split; ``listed`` counts the samples of the splits that had to be listed.
    """

    changes: Changes
    plan: Plan
    chunks: dict[str, tuple[Chunk, ...]]
    listed: dict[str, int]
    lines: tuple[Line, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What a run begins with; ``planned`` names the row groups that the plan has seen."""

    manifest: Manifest
    compared: Comparison
    planned: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class _Split:
    """A split that was looked at: its chunks, those to be embedded, and where it was listed what changed."""

    chunks: tuple[Chunk, ...]
    samples: int = 0
    planned: tuple[PlannedChunk, ...] = ()
    changes: SplitChanges | None = None
    lines: list[Line] = field(default_factory=list)


def open_manifest(
    out: Path, spec: CacheSpec, embed_dim: int, *, replaced_by: str = "use --rebuild to make it anew"
) -> Manifest:
    """Return the manifest of a cache to be continued, or a new one.

    ``replaced_by`` says how a cache of another make gives way to this one.

    Raises
    ------
    CacheMismatch
        If ``out`` holds a cache of another teacher, preprocessing, dtype or format.
    UserError
        If ``out`` is a folder of something else, or a folder of the cache is a link.
    """
    if not (out / NAME).exists():
        check_is_cache_or_empty(out)
        return Manifest(spec=spec, embed_dim=embed_dim, versions=versions())
    check_own_folders(out)
    before = Manifest.load(out)
    differences = before.spec.differences(spec)
    if differences:
        raise CacheMismatch(
            f"{out} is a cache of another make ({'; '.join(differences)})",
            fix=f"choose another --out, or {replaced_by}.",
        )
    return before


def prepare(build: Build) -> Preparation:
    """Bring the journal and the text banks up to date with the data, and plan what is to be embedded.

    Rows whose image is gone, or another, are removed; removed ones whose image is back are seen again. Each
    step can be killed: the same command goes on from there.

    Raises
    ------
    UserError
        If the output cannot be written or belongs to another teacher, or texts cannot tell classes apart.
    """
    out, sources = build.out, build.folder.splits
    check_banks(build.banks, build.folder, build.teacher, shared_classes=build.options.shared_classes)
    before = open_manifest(out, build.spec, build.teacher.embed_dim)
    remove_temporaries(out, below=True)
    journal = Journal.load(out)
    journal.check_lists(out, before.rows)
    files = len(journal.files)
    journal = drop_lost_files(journal, out)
    lost = files - len(journal.files)
    rows = sum(map(journal.rows, journal.splits))
    compared = compare(build, before, journal)
    for line in compared.lines:
        journal.add(line)
    _check_read(build, journal)
    manifest = replace(
        before,
        splits=build.folder.classes,
        # Not more than before, which a run that is killed here leaves in the journal.
        rows={split: min(count, journal.rows(split)) for split, count in before.rows.items()},
        several_labels=any(source.multi_label for source in sources.values()),
        command=build.command,
        complete=before.complete and not compared.plan.rows and not compared.changes.any,
    )
    manifest.save(out)
    forget_chunks(out, compared.listed)
    consolidate(out, journal)
    remove_unlisted(out, manifest, journal)
    save_indexes(out, journal)
    manifest = write_banks(manifest, out, build.teacher, build.banks, progress=build.progress)
    if lost:
        build.progress.note(f"files of {out} are gone or cut short: {lost:,} are made again")
    _say(build, compared, journal, began=bool(lost) or not before.complete, is_new=not rows)
    return Preparation(
        manifest=manifest,
        compared=compared,
        planned=frozenset(group.name for group in journal.all_groups),
    )


def _check_read(build: Build, journal: Journal) -> None:
    """Raise a UserError if images that an earlier run has skipped are to be no longer."""
    skipped = [(split, image) for split, images in journal.skipped.items() for image in images.values()]
    if build.options.strict and skipped:
        split, image = skipped[0]
        others = f", and {len(skipped) - 1:,} more" if len(skipped) > 1 else ""
        raise UserError(
            f"{split}/{image.key} could not be read as an image by an earlier run ({image.reason}){others}",
            fix="mend or remove the file, or leave out --strict to skip it.",
        )


def save_indexes(out: Path, journal: Journal) -> None:
    """Write the key index of every split, unless that which is there is of its rows."""
    for split in journal.splits:
        groups = journal.live_groups(split)
        if KeyIndex.load(out, split, groups) is None:
            KeyIndex.of(groups, lambda group: KeysFile(out, group.keys)).save(out, split, groups)


@contextmanager
def changing_rows(out: Path, manifest: Manifest) -> Iterator[Journal]:
    """Yield the journal of a cache whose row groups are to be changed, as its only writer.

    What a kill left goes before, what is listed no more goes afterwards; the indexes are of what is there.
    """
    remove_temporaries(out, below=True)
    journal = Journal.load(out)
    consolidate(out, journal)
    remove_unlisted(out, manifest, journal)
    yield journal
    journal = Journal.load(out)
    remove_unlisted(out, manifest, journal)
    save_indexes(out, journal)


def compare(build: Build, manifest: Manifest, journal: Journal) -> Comparison:
    """Compare a data folder with its cache; nothing is changed but what was seen of touched files."""
    out, sources = build.out, build.folder.splits
    splits = {name: _compare_split(out, manifest, journal, source) for name, source in sources.items()}
    gone = [name for name in journal.splits if name not in sources]
    changed = [split.changes for split in splits.values() if split.changes is not None]
    added, removed = class_changes(manifest.splits.values(), build.folder.classes.values())
    changes = Changes(
        added=sum(one.added for one in changed),
        gone=sum(map(journal.rows, gone)) + sum(one.gone for one in changed),
        replaced=sum(one.replaced for one in changed),
        relabelled=sum(one.relabelled for one in changed),
        restored=sum(len(one.restored) for one in changed),
        classes_added=added,
        classes_removed=removed,
        splits_added=tuple(name for name in sources if name not in manifest.splits),
        splits_removed=tuple(name for name in manifest.splits if name not in sources),
        texts=changed_texts(manifest, out, build.banks, said={*added, *removed}),
    )
    lines: list[Line] = []
    for name in gone:
        stored = StoredRows(out, journal.groups(name))
        lines += stored.removing(stored.live)
        lines += (TriedImage(split=name, key=key) for key in journal.skipped.get(name, {}))
    return Comparison(
        changes=changes,
        plan=Plan(splits={name: split.planned for name, split in splits.items() if split.planned}),
        chunks={name: split.chunks for name, split in splits.items()},
        listed={name: split.samples for name, split in splits.items() if split.changes is not None},
        lines=(*lines, *(line for split in splits.values() for line in split.lines)),
    )


def _compare_split(out: Path, manifest: Manifest, journal: Journal, source: Source) -> _Split:
    """Return what became of a split, which is not listed where its chunks are what they were."""
    split, chunks = source.split, tuple(source.chunks())
    skipped = journal.skipped.get(split, {})
    rows = journal.rows(split) + len(skipped)
    if rows_when_done(out, split, chunks) == rows and manifest.splits.get(split) == source.classes:
        return _Split(chunks=chunks)
    listing, touched = list_split(source, chunks), TouchedFiles.load(out, split)
    stored = StoredRows(out, journal.groups(split))
    changes = compare_split(source, listing, stored, skipped, touched)
    if changes.touched is not touched:
        changes.touched.save(out, split)
    lines: list[Line] = [
        *stored.removing(changes.removed),
        *stored.restoring(changes.restored),
        *(TriedImage(split=split, key=key) for key in skipped if key not in changes.skipped),
    ]
    return _Split(
        chunks=chunks,
        samples=len(listing),
        planned=planned_chunks(listing, changes),
        changes=changes,
        lines=lines,
    )


def _say(build: Build, compared: Comparison, journal: Journal, *, began: bool, is_new: bool) -> None:
    """Say what changed of a cache that had rows, and which class got which text by position."""
    missing = compared.plan.rows
    rows = sum(map(journal.rows, journal.splits)) + missing
    line = compared.changes.line(build.folder.path.name, missing=missing, rows=rows, began=began)
    if line and not is_new:
        build.progress.note(line)
    for bank in build.banks:
        if bank.lines:
            build.progress.note(positions_note(bank))
