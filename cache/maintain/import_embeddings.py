"""A cache from embeddings that were made elsewhere: the original code's tensors, or arrays with keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.build.distinct_texts import check_bank_rows
from cache.build.preparation import changing_rows, open_manifest
from cache.maintain.imported_banks import ImportedTexts, add_banks, check_banks_grow
from cache.maintain.imported_rows import ImportedSplit, apply, check_same_teacher, compare
from cache.reader import EmbeddingCache
from cache.runtime.errors import CacheMismatch, UserError, nearest_names
from cache.runtime.locks import only_writer
from cache.runtime.progress import Progress, Silent
from cache.sources.class_texts import is_key, split_and_key
from cache.sources.names import is_plain_name
from cache.sources.open_set import check_trained
from cache.sources.samples import DataFolder
from cache.sources.splits import POOL, SPLITS
from cache.store.journal import Journal
from cache.store.manifest import IMPORT, NAME, Manifest
from cache.store.spec import IMPORTED, CacheSpec, TeacherSpec
from cache.teacher.sanity import stored

# 65,536 rows x 768 x 4 bytes = 200 MB at most.
ROWS_AT_ONCE = 65_536


def import_embeddings(
    out: Path,
    *,
    keys: Sequence[str],
    embeddings: NDArray[Any],
    texts: Sequence[ImportedTexts],
    folder: DataFolder | None = None,
    caption_embeddings: NDArray[Any] | None = None,
    split: str = "train",
    teacher: str = "imported",
    dtype: str = "float16",
    format: str = "hdf5",
    progress: Progress | None = None,
) -> Manifest:
    """Write a finished cache from rows that are there already, or bring one up to date with them.

    ``embeddings`` and ``caption_embeddings`` are [N, D], raw, in the order of ``keys``: ``SPLIT/CLASS/FILE``
    with either name of a split, or ``CLASS/FILE``, of ``split`` where ``folder`` does not decide it.
    ``folder`` has the images, and so the classes; without it they are those of the keys. ``teacher`` is a
    name for whoever reads the manifest. A cache that is there has these rows and no others afterwards; its
    text banks stay, and ``texts`` join them. ``progress`` is told what changed.

    Raises
    ------
    UserError
        If shapes, keys and classes do not fit each other, rows are not to be meant (not finite, zero, lost in
        ``dtype``, one for all images, one for two classes), or ``out`` holds another cache.
    """
    progress = progress or Silent()
    _check_shapes(keys, embeddings, caption_embeddings, texts)
    placed = _place(keys, folder, split)
    class_names = _class_names(placed, folder)
    check_trained(folder.path if folder else "these keys", class_names)
    _check_rows("image", embeddings, dtype)
    if caption_embeddings is not None:
        _check_rows("caption", caption_embeddings, dtype)
    for bank in texts:
        _check_real(f"text ({bank.name})", bank.embeddings)
        check_bank_rows(bank.name, bank.classes, bank.embeddings, by_teacher=bank.texts is not None)
    of_rows = partial(ImportedSplit, embeddings=embeddings, captions=caption_embeddings, dtype=dtype)
    splits = [_split(of_rows, name, placed[name], folder) for name in sorted(placed, key=SPLITS.index)]
    with only_writer(out):
        spec = CacheSpec(teacher=_imported_teacher(teacher, embeddings), dtype=dtype, format=format)
        manifest = _open(out, spec, embeddings.shape[1])
        check_banks_grow(out, manifest, texts)
        manifest = _write_rows(out, manifest, splits, {name: class_names[name] for name in placed}, progress)
        manifest = add_banks(out, manifest, texts, progress.note)
        manifest = replace(manifest, rows=Journal.load(out).rows_of_splits, complete=True)
        manifest.save(out)
    return manifest


def _split(
    of_rows: Callable[..., ImportedSplit], name: str, placed: Mapping[str, int], folder: DataFolder | None
) -> ImportedSplit:
    keys = sorted(placed)
    samples = {sample.key: sample for sample in folder.split(name).all()} if folder else {}
    return of_rows(
        split=name,
        keys=keys,
        at=np.array([placed[key] for key in keys], dtype=np.int64),
        samples=[samples[key] for key in keys] if samples else (),
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


def _write_rows(
    out: Path,
    manifest: Manifest,
    splits: Sequence[ImportedSplit],
    class_names: Mapping[str, tuple[str, ...]],
    progress: Progress,
) -> Manifest:
    """Bring the row groups up to date; return the manifest, which is not complete."""
    cache = EmbeddingCache(out, manifest, Journal.load(out))
    before = cache.rows
    updates = [compare(cache, given) for given in splits]
    check_same_teacher(cache, updates)
    manifest = replace(manifest, splits=dict(class_names), rows={}, complete=False, command=IMPORT)
    manifest.save(out)
    with changing_rows(out, manifest):
        apply(cache, updates)
    journal = Journal.load(out)
    added, replaced = (sum(of) for of in zip(*((len(u.added), u.replaced) for u in updates), strict=True))
    removed = before + added - sum(map(journal.rows, journal.splits))
    if before and (added or removed):
        counts = ((added - replaced, "added"), (removed - replaced, "removed"), (replaced, "replaced"))
        progress.note(f"rows of {out.name}: {', '.join(f'{count:,} {what}' for count, what in counts)}")
    return manifest


def _check_shapes(
    keys: Sequence[str],
    embeddings: NDArray[Any],
    captions: NDArray[Any] | None,
    texts: Sequence[ImportedTexts],
) -> None:
    if embeddings.ndim != 2 or len(embeddings) != len(keys) or not len(keys):
        raise UserError(
            f"the image embeddings have shape {embeddings.shape} for {len(keys)} keys",
            fix="give an array of one row a key: (keys, embed_dim).",
        )
    if captions is not None and captions.shape != embeddings.shape:
        raise UserError(
            f"the caption embeddings have shape {captions.shape}, expected {embeddings.shape}",
            fix="give one row an image, of the same teacher.",
        )
    for bank in texts:
        if not is_plain_name(bank.name):
            raise UserError(
                f"the bank {bank.name!r:.60} cannot name a file", fix="use letters, digits, '.', '_' and '-'."
            )
        expected = (len(bank.classes), embeddings.shape[1])
        if bank.embeddings.shape != expected:
            raise UserError(
                f"the text embeddings {bank.name!r} have shape {bank.embeddings.shape}, expected {expected}",
                fix="give one row a class, of the same teacher as the images.",
            )


def _check_rows(what: str, rows: NDArray[Any], dtype: str) -> None:
    """Make sure that rows [N, D] can be meant, and can be kept in ``dtype``; UserError names the first."""
    _check_real(what, rows)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        block = rows[start : start + ROWS_AT_ONCE]
        stored(block, dtype, lambda i, start=start: f"row {start + i} of the {what} embeddings")  # type: ignore[misc]
    if len(rows) > 1 and all((row == rows[0]).all() for row in rows):
        raise UserError(
            f"all {len(rows):,} {what} embeddings are the same row",
            fix="embed the images again, each by itself.",
        )


def _check_real(what: str, rows: NDArray[Any]) -> None:
    if rows.dtype.kind not in "iuf":
        raise UserError(
            f"the {what} embeddings are of type {rows.dtype}, expected real numbers",
            fix="save what the teacher gave, as float32.",
        )


def _place(keys: Sequence[str], folder: DataFolder | None, split: str) -> dict[str, dict[str, int]]:
    """Return ``{split: {CLASS/FILE: row}}``."""
    keys_of = (
        {name: {sample.key for sample in source.all()} for name, source in folder.splits.items()}
        if folder
        else {}
    )
    placed: dict[str, dict[str, int]] = {}
    for row, name in enumerate(keys):
        named, key = split_and_key(name)
        if not is_key(key):
            raise UserError(
                f"{name!r:.120} is not a key", fix="write SPLIT/CLASS/FILE or CLASS/FILE, one a line."
            )
        where = named or next((n for n, images in keys_of.items() if key in images), split)
        if folder is not None and key not in keys_of.get(where, ()):
            of_class = [k for k in keys_of.get(where, ()) if k.partition("/")[0] == key.partition("/")[0]]
            raise UserError(
                f"the key {name!r} is no image of {folder.path} (split {where})",
                fix=f"{nearest_names(key, of_class)}check the keys, or leave --data out.",
            )
        if key in placed.setdefault(where, {}):
            raise UserError(f"the key {name!r} is there twice", fix="give each image one row.")
        placed[where][key] = row
    return placed


def _class_names(
    placed: Mapping[str, Mapping[str, int]], folder: DataFolder | None
) -> dict[str, tuple[str, ...]]:
    if folder:
        return folder.classes
    return {
        name: () if name == POOL else tuple(sorted({key.partition("/")[0] for key in rows}))
        for name, rows in sorted(placed.items(), key=lambda split: SPLITS.index(split[0]))
    }


def _imported_teacher(name: str, embeddings: NDArray[Any]) -> TeacherSpec:
    return TeacherSpec(
        model=name,
        pretrained=IMPORTED,
        architecture=IMPORTED,
        # There are no weights to name it by: the rows themselves do.
        weights_sha256=sha256(np.ascontiguousarray(embeddings).data).hexdigest(),
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
