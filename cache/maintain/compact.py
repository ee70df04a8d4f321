"""Small row groups joined, removed rows dropped, tars brought up to date: the same numbers by key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.build.outdated_tars import is_outdated
from cache.build.preparation import changing_rows
from cache.maintain.copied_groups import Copy, check_sound, write_copy
from cache.maintain.group_columns import make_of
from cache.maintain.joined_columns import Selection
from cache.runtime.atomic_files import check_own_folders
from cache.runtime.locks import only_writer
from cache.runtime.progress import Progress, Silent
from cache.store.journal import Journal, RowGroup, consolidate
from cache.store.journal_lines import ROWS, DroppedFile
from cache.store.manifest import Manifest
from cache.store.row_group import GROUP_ROWS
from cache.store.spec import WEBDATASET

# Tars are read side by side, each by a handle of its own.
GROUPS_AT_ONCE = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Compaction:
    """What was joined: how many row groups there were and are, and how many bytes of them are free now."""

    before: int
    after: int
    bytes: int


def compact_cache(folder: Path, *, progress: Progress | None = None) -> Compaction:
    """Join the row groups of a cache that have the same columns, up to 65,536 rows, less what was removed.

    Tars that have other class numbers or captions than the cache are written anew.
    Each joined group takes the place of those that it was made of in one step: killed anywhere the cache is
    as it was before, or after. Who has it open meanwhile may miss a file.

    Raises
    ------
    UserError
        If a file of a group to be joined is damaged, or a folder of the cache is a link.
    """
    progress = progress or Silent()
    with only_writer(folder):
        check_own_folders(folder)
        manifest = Manifest.load(folder)
        # One file of lines within: to replace it is to replace some groups by another at once.
        with changing_rows(folder, manifest) as journal:
            before, size = journal.all_groups, _bytes(journal)
            batches = [
                batch
                for split in journal.splits
                for batch in _batches(folder, manifest, journal.groups(split))
                if len(batch) > 1 or batch[0].removed or is_outdated(batch[0], manifest.splits.get(split, ()))
            ]
            progress.start(sum(group.live for batch in batches for group in batch))
            for batch in batches:
                _replace(folder, manifest, journal, batch)
                progress.advance(sum(group.live for group in batch))
    return Compaction(before=len(before), after=len(journal.all_groups), bytes=size - _bytes(journal))


def _bytes(journal: Journal) -> int:
    return sum(line.bytes for line in journal.files.values())


def _batches(folder: Path, manifest: Manifest, groups: Sequence[RowGroup]) -> Iterator[list[RowGroup]]:
    """Yield the groups that are to become one: of the same columns, and no more rows than a group has."""
    alike: dict[object, list[RowGroup]] = {}
    for group in groups:
        alike.setdefault(make_of(folder, manifest, group), []).append(group)
    for family in alike.values():
        batch: list[RowGroup] = []
        for group in family:
            rows = sum(one.live for one in batch) + group.live
            if batch and (rows > GROUP_ROWS or len(batch) == GROUPS_AT_ONCE):
                yield batch
                batch = []
            batch.append(group)
        yield batch


def _replace(folder: Path, manifest: Manifest, journal: Journal, batch: Sequence[RowGroup]) -> None:
    """Write one group in place of some, have the journal list it, and remove their files."""
    check_sound(folder, batch)
    to_tar = manifest.spec.format == WEBDATASET
    copy = Copy(source=folder, manifest=manifest, out=folder, to_tar=to_tar)
    if any(group.live for group in batch):
        chosen = [(group, group.live_rows) for group in batch if group.live]
        for line in write_copy(copy, Selection.of(folder, chosen, by_hash=copy.to_tar)):
            journal.add(line)
    for group in batch:
        journal.add(DroppedFile(file=group.keys.file))
    consolidate(folder, journal)
    for group in batch:
        for line in group.lines.values():
            (folder / line.file).unlink()
        (folder / ROWS / group.name).rmdir()
