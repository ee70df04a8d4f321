"""A cache from embeddings that were made elsewhere: the original code's tensors, or arrays with keys."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.banks import bank_entry, make_bank, save_bank
from cache.build import open_manifest
from cache.entries import SplitEntry
from cache.errors import UserError, nearest_names
from cache.files import digest, remove_temporaries
from cache.images import ImageFolder
from cache.locks import only_writer
from cache.manifest import Manifest
from cache.rows import ShardRows
from cache.shard_writer import write_shard
from cache.shards import FORMATS
from cache.spec import IMPORTED, CacheSpec, TeacherSpec
from cache.splits import SPLITS
from cache.texts import is_key, split_and_key


@dataclass(frozen=True, kw_only=True)
class ImportedTexts:
    """A text bank made elsewhere: embeddings [T, D] and the class folder of each."""

    name: str
    classes: Sequence[str]
    embeddings: NDArray[Any]
    texts: Sequence[str] | None = None


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
    rows_per_shard: int = 4096,
    made_by: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write a finished cache from rows that are there already.

    Parameters
    ----------
    keys
        ``SPLIT/CLASS/FILE`` of each row, with either name of a split, or ``CLASS/FILE``.
    embeddings
        [N, D], raw.
    texts
        Text banks; training and evaluation want one with a text for every class.
    folder
        The images' folder: gives the class folders and tells keys of no image. Without it the classes
        are those of the keys.
    caption_embeddings
        [N, D] in the order of ``keys``, or None.
    split
        The split of keys that name none, when ``folder`` does not decide it.
    teacher
        The teacher's name, for whoever reads the manifest.
    made_by
        What the manifest says of the command.

    Raises
    ------
    UserError
        If shapes, keys and classes do not fit each other, or ``out`` holds another cache.
    """
    _check_rows(keys, embeddings, caption_embeddings, texts)
    placed = _place(keys, folder, split)
    spec = CacheSpec(
        teacher=_imported_teacher(teacher, embeddings),
        dtype=dtype,
        format=format,
        rows_per_shard=rows_per_shard,
    )
    with only_writer(out):
        manifest = open_manifest(out, spec, embeddings.shape[1], rebuild=False)
        manifest = replace(manifest, splits={}, banks={}, complete=False, made_by=dict(made_by or {}))
        manifest.save(out)
        remove_temporaries(out, below=True)
        for name in sorted(placed, key=SPLITS.index):
            manifest = _write_split(manifest, out, name, placed[name], embeddings, caption_embeddings, folder)
        for bank in texts:
            path = out / "texts" / f"{bank.name}.h5"
            words = list(bank.texts) if bank.texts is not None else list(bank.classes)
            save_bank(path, make_bank(bank.name, words, bank.classes, bank.embeddings))
            made_from = digest([words, list(bank.classes)])
            manifest = manifest.with_bank(bank.name, bank_entry(path, texts=len(words), made_from=made_from))
        manifest = replace(manifest, complete=True)
        manifest.save(out)
    return manifest


def _check_rows(
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
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", bank.name):
            raise UserError(
                f"the bank {bank.name!r:.60} cannot name a file", fix="use letters, digits, '.', '_' and '-'."
            )
        expected = (len(bank.classes), embeddings.shape[1])
        if bank.embeddings.shape != expected:
            raise UserError(
                f"the text embeddings {bank.name!r} have shape {bank.embeddings.shape}, expected {expected}",
                fix="give one row a class, of the same teacher as the images.",
            )
    for what, array in [("image", embeddings), *((f"text ({bank.name})", bank.embeddings) for bank in texts)]:
        if not np.isfinite(array).all():
            row = int((~np.isfinite(array).all(axis=1)).nonzero()[0][0])
            raise UserError(f"row {row} of the {what} embeddings is not finite", fix="embed it again.")


def _place(keys: Sequence[str], folder: ImageFolder | None, split: str) -> dict[str, dict[str, int]]:
    """Return ``{split: {CLASS/FILE: row}}``."""
    known = (
        {name: {image.key for image in part.images} for name, part in folder.splits.items()} if folder else {}
    )
    placed: dict[str, dict[str, int]] = {}
    for row, name in enumerate(keys):
        named, key = split_and_key(name)
        if not is_key(key):
            raise UserError(
                f"{name!r:.120} is not a key", fix="write SPLIT/CLASS/FILE or CLASS/FILE, one a line."
            )
        where = named or next((n for n, images in known.items() if key in images), split)
        if folder is not None and key not in known.get(where, ()):
            near = nearest_names(
                key, [k for k in known.get(where, ()) if k.partition("/")[0] == key.partition("/")[0]]
            )
            raise UserError(
                f"the key {name!r} is no image of {folder.path} (split {where})",
                fix=f"{near}check the keys, or leave --data out.",
            )
        if key in placed.setdefault(where, {}):
            raise UserError(f"the key {name!r} is there twice", fix="give each image one row.")
        placed[where][key] = row
    return placed


def _imported_teacher(name: str, embeddings: NDArray[Any]) -> TeacherSpec:
    return TeacherSpec(
        model=name,
        pretrained=IMPORTED,
        architecture=IMPORTED,
        # There are no weights to name it by: the rows themselves do.
        weights_sha256=sha256(np.ascontiguousarray(embeddings).data).hexdigest(),
        preprocessing=IMPORTED,
        image_size=0,
        mean=(),
        std=(),
        interpolation="",
        resize_mode="",
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
    folders = {key.partition("/")[0] for key in placed}
    class_names = folder.split(name).class_names if folder else tuple(sorted(folders))
    manifest = manifest.with_split(name, SplitEntry(class_names=class_names))
    label_of = {class_name: label for label, class_name in enumerate(class_names)}
    records = {image.key: image for image in folder.split(name).images} if folder else {}
    keys, dtype, size = sorted(placed), manifest.spec.dtype, manifest.spec.rows_per_shard
    for number, start in enumerate(range(0, len(keys), size)):
        chosen = keys[start : start + size]
        at = np.array([placed[key] for key in chosen])
        # What the images are now; of what they were when they were embedded nobody knows more.
        files = [records[key].identity() if key in records else ("", 0, 0) for key in chosen]
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
        file = f"images/{name}-{number:05d}.{FORMATS[manifest.spec.format].ending}"
        images = [records[key].path for key in chosen] if folder else None
        manifest = manifest.with_shard(
            name, write_shard(out, file, rows, manifest.spec.format, images=images)
        )
    return manifest
