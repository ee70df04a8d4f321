"""A cache from embeddings that were made elsewhere: the original code's tensors, or arrays with keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.build.distinct_texts import check_bank_rows
from cache.build.pipeline import open_manifest
from cache.build.shard_writer import write_shard
from cache.runtime.atomic_files import digest, remove_temporaries
from cache.runtime.errors import UserError, nearest_names
from cache.runtime.locks import only_writer
from cache.sources.class_texts import is_key, split_and_key
from cache.sources.image_folder import ImageFolder
from cache.sources.names import is_plain_name
from cache.sources.open_set import check_trained
from cache.sources.splits import SPLITS
from cache.store.manifest import IMPORT, Manifest
from cache.store.manifest_lines import ListedSplit
from cache.store.shard_formats import FORMATS
from cache.store.shard_rows import ShardRows
from cache.store.spec import IMPORTED, CacheSpec, TeacherSpec
from cache.store.text_banks import make_bank, save_bank
from cache.teacher.sanity import stored

# 65,536 rows x 768 x 4 bytes = 200 MB at most.
ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, kw_only=True)
class ImportedTexts:
    """A text bank made elsewhere: embeddings [T, D] and the class folder of each.

    ``source`` says in words what they are of.
    """

    name: str
    classes: Sequence[str]
    embeddings: NDArray[Any]
    texts: Sequence[str] | None = None
    source: str = ""


def import_embeddings(
    out: Path,
    *,
    keys: Sequence[str],
    embeddings: NDArray[Any],
    texts: Sequence[ImportedTexts],
    folder: ImageFolder | None = None,
    caption_embeddings: NDArray[Any] | None = None,
    split: str = "train",
    teacher: str = "imported",
    dtype: str = "float16",
    format: str = "hdf5",
) -> Manifest:
    """Write a finished cache from rows that are there already.

    ``embeddings`` and ``caption_embeddings`` are [N, D], raw, in the order of ``keys``: ``SPLIT/CLASS/FILE``
    with either name of a split, or ``CLASS/FILE``, of ``split`` where ``folder`` does not decide it.
    ``folder`` has the images, and so the classes; without it they are those of the keys. ``teacher`` is a
    name for whoever reads the manifest.

    Raises
    ------
    UserError
        If shapes, keys and classes do not fit each other, rows are not to be meant (not finite, zero, lost in
        ``dtype``, one for all images, one for two classes), or ``out`` holds another cache.
    """
    _check_shapes(keys, embeddings, caption_embeddings, texts)
    placed = _place(keys, folder, split)
    check_trained(folder.path if folder else "these keys", _class_names(placed, folder))
    _check_rows("image", embeddings, dtype)
    if caption_embeddings is not None:
        _check_rows("caption", caption_embeddings, dtype)
    for bank in texts:
        _check_real(f"text ({bank.name})", bank.embeddings)
        check_bank_rows(bank.name, bank.classes, bank.embeddings, by_teacher=bank.texts is not None)
    imported = _imported_teacher(teacher, embeddings)
    spec = CacheSpec(teacher=imported, dtype=dtype, format=format)
    with only_writer(out):
        manifest = open_manifest(
            out, spec, embeddings.shape[1], rebuild=False, replaced_by="move that folder away"
        )
        manifest = replace(manifest, splits={}, banks={}, complete=False, command=IMPORT)
        manifest.save(out)
        remove_temporaries(out, below=True)
        for name in sorted(placed, key=SPLITS.index):
            manifest = _write_split(manifest, out, name, placed[name], embeddings, caption_embeddings, folder)
        for bank in texts:
            words = list(bank.texts if bank.texts is not None else bank.classes)
            made = make_bank(bank.name, words, bank.classes, bank.embeddings)
            made_from = digest([words, list(bank.classes)])
            listed = save_bank(out, made, made_from=made_from, source=bank.source)
            manifest = manifest.with_bank(bank.name, listed)
        manifest = replace(manifest, complete=True)
        manifest.save(out)
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


def _place(keys: Sequence[str], folder: ImageFolder | None, split: str) -> dict[str, dict[str, int]]:
    """Return ``{split: {CLASS/FILE: row}}``."""
    keys_of = (
        {name: {image.key for image in part.all()} for name, part in folder.splits.items()} if folder else {}
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


def _named(rows: NDArray[Any]) -> str:
    return sha256(np.ascontiguousarray(rows).data).hexdigest()


def _class_names(
    placed: Mapping[str, Mapping[str, int]], folder: ImageFolder | None
) -> dict[str, tuple[str, ...]]:
    if folder:
        return folder.classes
    return {name: tuple(sorted({key.partition("/")[0] for key in rows})) for name, rows in placed.items()}


def _imported_teacher(name: str, embeddings: NDArray[Any]) -> TeacherSpec:
    return TeacherSpec(
        model=name,
        pretrained=IMPORTED,
        architecture=IMPORTED,
        # There are no weights to name it by: the rows themselves do.
        weights_sha256=_named(embeddings),
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


def _write_split(
    manifest: Manifest,
    out: Path,
    name: str,
    placed: Mapping[str, int],
    embeddings: NDArray[Any],
    captions: NDArray[Any] | None,
    folder: ImageFolder | None,
) -> Manifest:
    class_names = _class_names({name: placed}, folder)[name]
    manifest = manifest.with_split(name, ListedSplit(class_names=class_names))
    label_of = {class_name: label for label, class_name in enumerate(class_names)}
    samples = {image.key: image for image in folder.split(name).all()} if folder else {}
    about = {"captions_sha256": _named(captions)} if captions is not None else {}
    keys, dtype, size = sorted(placed), manifest.spec.dtype, ROWS_AT_ONCE
    for number, start in enumerate(range(0, len(keys), size)):
        chosen = keys[start : start + size]
        at = np.array([placed[key] for key in chosen])
        # What the images are now; of what they were when they were embedded nobody knows more.
        files = [samples[key].identity() if key in samples else ("", 0, 0) for key in chosen]
        rows = ShardRows(
            split=name,
            keys=chosen,
            labels=np.array([label_of[key.partition("/")[0]] for key in chosen], dtype=np.int64),
            image_embedding=embeddings[at].astype(dtype),
            file_sha256=[sha256 for sha256, _, _ in files],
            file_bytes=np.array([size for _, size, _ in files], dtype=np.int64),
            file_mtime_ns=np.array([mtime for _, _, mtime in files], dtype=np.int64),
            captions=[""] * len(chosen) if captions is not None else None,
            caption_embedding=captions[at].astype(dtype) if captions is not None else None,
        )
        file = f"images/{name}-{number:05d}.{FORMATS[manifest.spec.format].ENDING}"
        images = [samples[key].path for key in chosen] if folder else None
        entry = write_shard(out, file, rows, manifest.spec.format, images=images, about=about)
        manifest = manifest.with_shard(name, entry)
    return manifest
