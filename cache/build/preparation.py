"""The beginning of a stage-1 run, by its first process alone: what changed since the last, and what is to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cache.build.changes import Changes, class_changes
from cache.build.chunk_identities import forget_chunks, unchanged_since
from cache.build.distinct_texts import positions_note
from cache.build.lost_files import drop_lost_files, remove_unlisted
from cache.build.options import Build
from cache.build.plan import Plan, PlannedChunk, planned_chunks
from cache.build.split_changes import SplitChanges, compare_split
from cache.build.split_listing import list_split
from cache.build.stored_rows import StoredRows
from cache.build.text_banks import check_banks, write_banks
from cache.build.touched_files import TouchedFiles
from cache.build.versions import versions
from cache.runtime.atomic_files import check_own_folders, is_leftover, remove_temporaries
from cache.runtime.errors import CacheMismatch, UserError
from cache.sources.samples import Chunk, Source
from cache.store.journal import Journal, Line, TriedImage, consolidate
from cache.store.key_index import KeyIndex
from cache.store.manifest import NAME, Manifest
from cache.store.row_group import KeysFile
from cache.store.spec import CacheSpec


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What a run begins with: the manifest, what is to be embedded, and what changed since the last run.

    ``rows`` is how many there were; ``chunks`` are those of every split, as they were listed; ``planned``
    names the row groups that the plan has seen.
    """

    manifest: Manifest
    plan: Plan
    changes: Changes
    rows: int
    chunks: dict[str, tuple[Chunk, ...]]
    planned: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class _Split:
    """A split that was looked at: its chunks, those to be embedded, and, where it changed, how."""

    chunks: tuple[Chunk, ...]
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
        if out.is_file() or (out.is_dir() and not all(map(is_leftover, out.iterdir()))):
            raise UserError(
                f"{out} exists and is not a cache", fix="choose a new folder for --out, or empty this one."
            )
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
    journal = drop_lost_files(Journal.load(out), out)
    rows = sum(map(journal.rows, journal.splits))
    splits = {name: _look_at(build, before, journal, source) for name, source in sources.items()}
    gone = [name for name in journal.splits if name not in sources]
    plan = Plan(splits={name: split.planned for name, split in splits.items() if split.planned})
    changes = _changes_of(before, sources, splits, gone=sum(map(journal.rows, gone)))
    lines = [line for name in gone for line in _all_gone(out, journal, name)]
    manifest = replace(
        before,
        splits={name: source.classes for name, source in sources.items()},
        several_labels=any(source.multi_label for source in sources.values()),
        command=build.command,
        complete=before.complete and not plan.rows and not changes.any,
    )
    manifest.save(out)
    forget_chunks(out, [name for name, split in splits.items() if split.changes is not None])
    for line in (*lines, *(line for split in splits.values() for line in split.lines)):
        journal.add(line)
    consolidate(out, journal)
    remove_unlisted(out, manifest, journal)
    for name in journal.splits:
        save_index(out, journal, name)
    manifest = write_banks(manifest, out, build.teacher, build.banks, note=build.progress.note)
    _say(build, changes, plan, journal, began=not before.complete, is_new=not rows)
    return Preparation(
        manifest=manifest,
        plan=plan,
        changes=changes,
        rows=rows,
        chunks={name: split.chunks for name, split in splits.items()},
        planned=frozenset(group.name for group in journal.all_groups),
    )


def save_index(out: Path, journal: Journal, split: str) -> None:
    """Write the key index of a split, unless that which is there is of its rows."""
    groups = journal.groups(split)
    if KeyIndex.load(out, split, groups) is None:
        KeyIndex.of(groups, lambda group: KeysFile(out, group.keys)).save(out, split, groups)


def _look_at(build: Build, manifest: Manifest, journal: Journal, source: Source) -> _Split:
    """Return what became of a split; it is not listed where its chunks are what they were when it was done."""
    out, split, chunks = build.out, source.split, tuple(source.chunks())
    skipped = journal.skipped.get(split, {})
    whole = journal.rows(split) + len(skipped) == sum(chunk.rows for chunk in chunks)
    if whole and manifest.splits.get(split) == source.classes and unchanged_since(out, split, chunks):
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
    return _Split(chunks=chunks, planned=planned_chunks(listing, changes), changes=changes, lines=lines)


def _all_gone(out: Path, journal: Journal, split: str) -> list[Line]:
    """Return the lines that remove all rows of a split."""
    stored = StoredRows(out, journal.groups(split))
    tried = (TriedImage(split=split, key=key) for key in journal.skipped.get(split, {}))
    return [*stored.removing(stored.live), *tried]


def _changes_of(
    manifest: Manifest, sources: Mapping[str, Source], splits: Mapping[str, _Split], *, gone: int
) -> Changes:
    changed = [split.changes for split in splits.values() if split.changes is not None]
    new = {name: source.classes for name, source in sources.items()}
    added, removed = class_changes(manifest.splits.values(), new.values())
    return Changes(
        added=sum(one.added for one in changed),
        gone=gone + sum(one.gone for one in changed),
        replaced=sum(one.replaced for one in changed),
        relabelled=sum(one.relabelled for one in changed),
        restored=sum(len(one.restored) for one in changed),
        classes_added=added,
        classes_removed=removed,
        splits_added=tuple(name for name in new if name not in manifest.splits),
        splits_removed=tuple(name for name in manifest.splits if name not in new),
    )


def _say(build: Build, changes: Changes, plan: Plan, journal: Journal, *, began: bool, is_new: bool) -> None:
    """Say what changed, of a cache that had rows, and which class got which text by position."""
    rows = sum(map(journal.rows, journal.splits)) + plan.rows
    line = changes.line(build.folder.path.name, missing=plan.rows, rows=rows, began=began)
    for note in (*([line] if line and not is_new else []), *_positions(build)):
        build.progress.note(note)


def _positions(build: Build) -> Sequence[str]:
    return [positions_note(bank) for bank in build.banks if bank.lines]
