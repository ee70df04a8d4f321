"""What clip-retrieval writes: ``img_emb/img_emb_0.npy``, ``text_emb/``, ``metadata/metadata_0.parquet``.

Numbered files of one number are of the same images, row by row. The arrays are mapped, and of the metadata
the columns are read that are of use, file by file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cache.runtime.errors import UserError, some_of
from cache.sources.arrays import JoinedRows, load_array
from cache.sources.arrow_files import ParquetTable
from cache.sources.class_numbers import class_name
from cache.sources.list_columns import Columns
from cache.sources.records import (
    NO_NUMBER,
    Labels,
    key_of_path,
    labels_of_cell,
    split_of_name,
    text_of_cell,
)
from cache.sources.source_options import SourceOptions
from cache.sources.splits import HELD_OUT

IMAGES, TEXTS, METADATA = "img_emb", "text_emb", "metadata"
# What clip-retrieval calls the path of an image, or its key in a tar.
PATH = "image_path"


@dataclass(frozen=True, kw_only=True, slots=True)
class Retrieved:
    """Embeddings [N, D] of images, and of their captions where there are any, with the path of each.

    ``labels`` are class names, none where the metadata say none; None where they have no such column.
    ``splits`` are ours, '' for one that is not said, and ``val`` for a test of either kind.
    """

    images: JoinedRows
    captions: JoinedRows | None
    paths: Sequence[str]
    labels: Sequence[Labels] | None
    splits: Sequence[str]

    def keys(self, split: str) -> list[str]:
        """Return ``SPLIT/KEY`` of each row.

        What says no split is of ``split``, where that is '' of train with a label, and else of the pool.
        """
        labels = self.labels or [()] * len(self.paths)
        of = [
            named or split or ("train" if own else "pool")
            for named, own in zip(self.splits, labels, strict=True)
        ]
        classes = {
            name: {one for own, where in zip(labels, of, strict=True) if where == name for one in own}
            for name in ("train", HELD_OUT)
        }
        test = "id_test" if classes[HELD_OUT] <= classes["train"] else "ood_test"
        return [
            f"{test if where == HELD_OUT else where}/{key_of_path(path, '')}"
            for where, path in zip(of, self.paths, strict=True)
        ]


def is_clip_retrieval(place: str) -> bool:
    """Say whether a place is a folder of clip-retrieval's."""
    return os.path.isdir(os.path.join(place, IMAGES))


def load_clip_retrieval(place: str, options: SourceOptions) -> Retrieved:
    """Return what is in a folder of clip-retrieval's, the files by their numbers: 10 comes after 9.

    Raises
    ------
    UserError
        If a file is missing or damaged, or those of one number differ in rows, or two in their width.
    """
    images = _numbered(place, IMAGES, ".npy")
    metadata = _numbered(place, METADATA, ".parquet")
    texts = _numbered(place, TEXTS, ".npy") if os.path.isdir(os.path.join(place, TEXTS)) else {}
    for folder, files in ((METADATA, metadata), *([(TEXTS, texts)] if texts else [])):
        _check_numbers(place, folder, images, files)
    rows = _joined(images)
    captions = _joined(texts) if texts else None
    cells = _Cells(options)
    for number, file in metadata.items():
        cells.read(file, expected=len(load_array(images[number])), beside=images[number])
    for number, file in texts.items():
        if (one := load_array(file).shape) != (other := load_array(images[number]).shape):
            raise UserError(
                f"{file} has rows {one}, and {images[number]} {other}", fix="write both again, of one run."
            )
    return Retrieved(
        images=rows,
        captions=captions,
        paths=cells.paths,
        labels=cells.labels if cells.any_labels else None,
        splits=cells.splits,
    )


def _numbered(place: str, folder: str, ending: str) -> dict[int, str]:
    """Return the files ``FOLDER_NUMBER`` in the order of their numbers; UserError where one is missing."""
    name = re.compile(rf"{folder}_(\d{{1,9}}){re.escape(ending)}", re.ASCII)
    path = os.path.join(place, folder)
    try:
        matches = [match for match in map(name.fullmatch, sorted(os.listdir(path))) if match]
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}", fix="give the folder that clip-retrieval wrote."
        ) from error
    files: dict[int, str] = {}
    for match in matches:
        if int(match[1]) in files:
            twice = os.path.basename(files[int(match[1])])
            raise UserError(f"{path} has {twice} and {match[0]}", fix="keep the files of one run alone.")
        files[int(match[1])] = os.path.join(path, match[0])
    missing = sorted({*range(max(files, default=0) + 1)} - files.keys())
    if missing:
        raise UserError(
            f"{path} lacks {folder}_N{ending} of the numbers {some_of([*map(str, missing)])}",
            fix="copy the folder again, or rename the files so that they count from 0.",
        )
    return dict(sorted(files.items()))


def _check_numbers(place: str, folder: str, images: dict[int, str], files: dict[int, str]) -> None:
    if odd := sorted(images.keys() ^ files.keys()):
        lacks = folder if odd[0] in images else IMAGES
        raise UserError(
            f"{os.path.join(place, lacks)} lacks the numbers {some_of([*map(str, odd)])}, which "
            f"{IMAGES if lacks == folder else folder} has",
            fix="copy the folder again.",
        )


def _joined(files: dict[int, str]) -> JoinedRows:
    """Return arrays in files as one; UserError where two differ in width or type."""
    arrays = {file: load_array(file) for file in files.values()}
    first, like = next(iter(arrays.items()))
    for file, array in arrays.items():
        if array.ndim != 2 or array.shape[1] != like.shape[-1] or array.dtype != like.dtype:
            raise UserError(
                f"{file} has rows {array.shape} of {array.dtype}, and {first} {like.shape} of {like.dtype}",
                fix="give the embeddings of one teacher, one run.",
            )
    return JoinedRows([*arrays.values()])


class _Cells:
    """What the metadata say of each row, filled file by file."""

    def __init__(self, options: SourceOptions) -> None:
        self._options = options
        self.paths: list[str] = []
        self.labels: list[Labels] = []
        self.splits: list[str] = []
        self.any_labels = False

    def read(self, file: str, *, expected: int, beside: str) -> None:
        """Read a file, which has ``expected`` rows as the embeddings ``beside`` it."""
        table = ParquetTable(file)
        rows = sum(table.groups())
        if rows != expected:
            raise UserError(
                f"{file} has {rows:,} rows, and {beside} {expected:,}",
                fix="give the embeddings and the metadata of one run.",
            )
        names, given = table.schema().names, self._options.columns
        columns = Columns.among(names, given, file)
        key = given.key or given.path or (PATH if PATH in names else columns.key or columns.path)
        number = len(self.paths)
        for group, count in enumerate(table.groups()):
            read = [*dict.fromkeys(name for name in (key, columns.label, columns.split) if name)]
            cells = table.values(group, 0, count, read)
            none = [None] * count
            of = (cells.get(name, none) for name in (key, columns.label, columns.split))
            for row in zip(*of, strict=True):
                self._add(row, columns, f"{file}, row {len(self.paths) - number}")
        self.any_labels |= bool(columns.label)

    def _add(self, row: Sequence[object], columns: Columns, where: str) -> None:
        path, label, split = row
        try:
            text = text_of_cell(path)
            labels = labels_of_cell(label, columns.several)
            named = text_of_cell(split)
        except ValueError as error:
            raise UserError(f"{where}: {error}", fix="mend that row, or name another column.") from error
        if not text:
            raise UserError(f"{where} says no image", fix="mend that row, or name another --key-column.")
        names = self._options.names
        self.paths.append(text)
        self.labels.append(
            tuple(class_name(one, names, where) for one in labels if not (names and one == NO_NUMBER))
        )
        try:
            self.splits.append(split_of_name(named) if named else "")
        except UserError as error:
            raise UserError(f"{where}: {error.problem}", fix=error.fix) from error
