"""What a run says of captions that it gave to images which had others."""

from __future__ import annotations

from pathlib import Path

from cache.build.captions import COLUMN, caption_counts
from cache.store.journal import Journal


def notes_on_captions(before: Journal, after: Journal, *, source: str, cache: Path) -> list[str]:
    """Return lines on the captions that were replaced by those of ``source``, and on those that are lost."""
    then = {group.name: group for group in before.all_groups if COLUMN in group.lines}
    now = [group for group in after.all_groups if COLUMN in group.lines and group.name in then]
    replaced = [one for one in now if one.lines[COLUMN].sha256 != then[one.name].lines[COLUMN].sha256]
    if not replaced:
        return []
    lost = caption_counts(then[group.name] for group in replaced)[0] - caption_counts(replaced)[0]
    rows = sum(group.live for group in replaced)
    notes = [f"{source} is not what {cache} was made with: the captions of {rows:,} images are replaced"]
    if lost > 0:
        notes.append(f"{lost:,} images had a caption of their own, and have none in it")
    return notes
