"""Tars whose ``.cls`` and ``.txt`` are no longer those of the cache: other readers take these, we do not.

A tar is never changed, while classes come and captions are given. Compaction writes such tars anew.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from cache.runtime.atomic_files import digest
from cache.store.column_lines import FILE, OF
from cache.store.journal import Journal, RowGroup
from cache.store.journal_lines import CAPTIONS, SAMPLES
from cache.store.manifest import Manifest
from cache.store.webdataset import CLASSES, TEXTS


def is_outdated(group: RowGroup, class_names: Sequence[str]) -> bool:
    """Say whether a group has a tar with other numbers of its split's classes, or other captions."""
    tar, captions = group.lines.get(SAMPLES), group.lines.get(CAPTIONS)
    if tar is None:
        return False
    # Classes behind those that there were change no number.
    numbered = tar.about.get(CLASSES)
    count = numbered[0] if isinstance(numbered, list) and numbered else None
    if not isinstance(count, int) or numbered != [count, digest([*class_names[:count]])]:
        return True
    if captions is None:
        return False
    of = captions.about.get(OF, "")
    # Of captions that were given as embeddings there are no texts.
    return bool(tar.about.get(TEXTS, "") != ("" if of == captions.about.get(FILE) else of))


def note_on_tars(cache: Path, manifest: Manifest, journal: Journal) -> str | None:
    """Return a line on the tars of a cache that are outdated; None where none is."""
    count = sum(is_outdated(group, manifest.splits.get(group.split, ())) for group in journal.all_groups)
    if not count:
        return None
    return (
        f"{count:,} tars of {cache} have other class numbers (.cls) or captions (.txt) than it has now, and "
        f"other readers see them: 'distill cache repair {shlex.quote(str(cache))} --compact' writes them anew"
    )
