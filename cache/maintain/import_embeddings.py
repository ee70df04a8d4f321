"""A cache from embeddings that were made elsewhere: the original code's tensors, or arrays with keys."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from cache.build.preparation import changing_rows, open_manifest
from cache.maintain.imported import ROWS_AT_ONCE, Imported
from cache.maintain.imported_banks import add_banks, check_banks_grow
from cache.maintain.imported_keys import Placed, place
from cache.maintain.imported_rows import apply, check_same_teacher, compare
from cache.maintain.imported_texts import check_texts
from cache.reader import EmbeddingCache
from cache.runtime.errors import CacheMismatch, UserError, some_of
from cache.runtime.locks import only_writer
from cache.runtime.progress import Progress, Silent
from cache.sources.accounts import NAMED
from cache.sources.arrays import Rows
from cache.sources.open_set import check_trained
from cache.sources.splits import POOL, TESTS
from cache.store.duplicates import check_pool
from cache.store.journal import Journal
from cache.store.manifest import IMPORT, NAME, Manifest
from cache.store.spec import IMPORTED, CacheSpec, TeacherSpec


def import_embeddings(out: Path, given: Imported, *, progress: Progress | None = None) -> Manifest:
    """Write a finished cache from rows that are there already, or bring one up to date with them.

    A cache that is there has these rows and no others afterwards; its text banks stay, and those that are
    given join them. Images without a row and rows without an image are counted in the manifest, by split.
    ``progress`` is told what changed.

    Raises
    ------
    UserError
        If shapes, keys and classes do not fit each other, rows are not to be meant (not finite, zero, lost in
        ``dtype``, one for all images, one for two classes), texts are another class's, an image of the pool
        is a test's, or ``out`` holds another cache.
    """
    progress = progress or Silent()
    given.check()
    progress.start(None, "finding the image of each row", "")
    placed = place(given)
    check_trained(given.folder.path if given.folder else "these keys", placed.classes)
    for line in check_texts(given, placed.splits):
        progress.note(line)
    _check_apart(placed)
    with only_writer(out):
        spec = CacheSpec(
            teacher=_imported_teacher(given.teacher, given.embeddings), dtype=given.dtype, format=given.format
        )
        manifest = _open(out, spec, given.embeddings.shape[1])
        check_banks_grow(out, manifest, given.texts)
        manifest = _write_rows(out, manifest, placed, progress)
        manifest = add_banks(out, manifest, given.texts, progress.note)
        journal = Journal.load(out)
        if POOL in journal.splits:
            check_pool(out, journal)
        sources = given.sources or manifest.sources
        manifest = replace(manifest, rows=journal.rows_of_splits, sources=sources, complete=True)
        manifest.save(out)
    return manifest


def _check_apart(placed: Placed) -> None:
    """Raise a UserError if an image of the pool is a test's, byte for byte: before anything is written."""
    # As texts of 32 bytes, which numpy compares; what nobody knows is '' of them.
    content = {
        one.split: np.ascontiguousarray(one.group_keys.content).view("S32")[:, 0] for one in placed.splits
    }
    keys = {one.split: one.keys for one in placed.splits}
    pool = content.get(POOL, np.empty(0, dtype="S32"))
    pairs, count = list[str](), 0
    for split in content.keys() & {*TESTS}:
        shared = np.flatnonzero(np.isin(pool, content[split]) & (pool != b""))
        count += len(shared)
        for row in shared[:NAMED].tolist():
            test = int(np.flatnonzero(content[split] == pool[row])[0])
            pairs.append(f"{POOL}/{keys[POOL][row]} is {split}/{keys[split][test]}")
    if count:
        raise UserError(
            f"{count:,} images of the pool are test images as well: {some_of(pairs, NAMED, of=count)}",
            fix="take them out of the pool, or out of the test.",
        )


def _open(out: Path, spec: CacheSpec, embed_dim: int) -> Manifest:
    """Return the manifest of an import that is continued, or a new one.

    An imported teacher is named by the rows that came first; whether others are its own is seen in them.
    """
    before = Manifest.load(out) if (out / NAME).exists() else None
    if before and before.embed_dim != embed_dim:
        raise CacheMismatch(
            f"the image embeddings have {embed_dim} numbers a row, and those of {out} {before.embed_dim}",
            fix="choose another --out, or move that folder away.",
        )
    if before and before.spec.teacher.pretrained == IMPORTED and any(Journal.load(out).splits):
        own = replace(spec.teacher, weights_sha256=before.spec.teacher.weights_sha256)
        spec = replace(spec, teacher=own)
    return open_manifest(out, spec, embed_dim, replaced_by="move that folder away")


def _write_rows(out: Path, manifest: Manifest, placed: Placed, progress: Progress) -> Manifest:
    """Bring the row groups up to date; return the manifest, which is not complete."""
    cache = EmbeddingCache(out, manifest, Journal.load(out))
    before = cache.rows
    updates = [compare(cache, given) for given in placed.splits]
    check_same_teacher(cache, updates)
    manifest = replace(
        manifest,
        splits=placed.classes,
        left_out=placed.left_out,
        several_labels=placed.several_labels,
        rows={},
        complete=False,
        command=IMPORT,
    )
    manifest.save(out)
    with changing_rows(out, manifest):
        apply(cache, updates, progress)
    journal = Journal.load(out)
    added, replaced = (sum(of) for of in zip(*((len(u.added), u.replaced) for u in updates), strict=True))
    removed = before + added - sum(map(journal.rows, journal.splits))
    if before and (added or removed):
        counts = ((added - replaced, "added"), (removed - replaced, "removed"), (replaced, "replaced"))
        progress.note(f"rows of {out.name}: {', '.join(f'{count:,} {what}' for count, what in counts)}")
    return manifest


def _imported_teacher(name: str, embeddings: Rows) -> TeacherSpec:
    rows = sha256()
    for start in range(0, len(embeddings), ROWS_AT_ONCE):
        rows.update(np.ascontiguousarray(embeddings[start : start + ROWS_AT_ONCE]).data)
    return TeacherSpec(
        model=name,
        pretrained=IMPORTED,
        architecture=IMPORTED,
        # There are no weights to name it by: the rows themselves do.
        weights_sha256=rows.hexdigest(),
        tokenizer="",
        preprocessing=IMPORTED,
        image_size=(),
        mean=(),
        std=(),
        interpolation="",
        resize_mode="",
        fill_color=0,
        precision=str(embeddings.dtype),
    )
