"""What a cache holds, row for row: whoever wrote it, in whatever row groups, interrupted or not."""

from __future__ import annotations

import itertools
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cache import EmbeddingCache
from cache.runtime.atomic_files import is_leftover
from cache.store.journal import FOLDER as JOURNAL
from cache.store.journal import Journal, RowGroup
from cache.store.journal_lines import KEYS, ROWS, SAMPLES, TARS
from cache.store.key_index import FOLDER as INDEX
from cache.store.manifest import NAME as MANIFEST
from cache.store.row_group import read_keys
from cache.teacher.text_tower import TextTower

OFFSET = "_offset"
# Of a column that only some rows have: which.
ROW = "row"
# What a column says of a row in its keys' file beside the key; where in a group a row lies is no matter.
OF_KEYS = ("content", "bytes", "mtime_ns")
Content = dict[str, bytes]
# Split, column, dataset, dimensions.
Datasets = list[tuple[str, str, str, int]]


def content_of(cache: Path) -> Content:
    """Return the bytes of every row in every column, by split, key and column, and of every other file.

    Not what may differ between two runs: in which row groups the rows lie, and the journal's lines of them.
    """
    journal = Journal.load(cache)
    content: Content = {}
    for group in journal.all_groups:
        content |= _group_content(cache, group) | _members(cache, group)
    for split, skipped in journal.skipped.items():
        content |= {f"{split}/{key} skipped": image.reason.encode() for key, image in skipped.items()}
    for path in sorted(path for path in cache.rglob("*") if path.is_file() and not is_leftover(path)):
        name = path.relative_to(cache)
        if name.parts[0] not in (ROWS, TARS, JOURNAL, INDEX):
            content[str(name)] = path.read_bytes()
    return content


def _group_content(cache: Path, group: RowGroup) -> Content:
    keys, content = read_keys(cache, group.keys), {}
    seen = sorted({*range(group.rows)} - group.removed)
    for column, line in group.lines.items():
        if column == SAMPLES:
            continue
        for dataset, values in _rows_of(cache / line.file, group.rows, column == KEYS):
            name = f"{column} {dataset}"
            content |= {f"{group.split}/{keys.keys[row]} {name}": values[row] for row in seen}
    labels = {f"{group.split}/{keys.keys[row]} labels": keys.labels[row] for row in seen}
    return content | {name: "\0".join(of_row).encode() for name, of_row in labels.items()}


def _rows_of(path: Path, rows: int, are_keys: bool) -> Iterator[tuple[str, list[bytes]]]:
    """Yield every dataset of a column's file with the bytes of each row; one of no rows is each row's."""
    with h5py.File(path, locking=False) as file:
        of_rows = file[ROW][...].tolist() if ROW in file else range(rows)
        for name in file:
            if name.endswith(OFFSET) or name == ROW or (are_keys and name not in OF_KEYS):
                continue
            values = file[name][...]
            if name + OFFSET in file:
                ends = file[name + OFFSET][...]
                yield name, [values[i:j].tobytes() for i, j in itertools.pairwise(ends)]
            elif len(values) == len(of_rows):
                of_row = dict(zip(of_rows, values, strict=True))
                yield name, [of_row[row].tobytes() if row in of_row else b"" for row in range(rows)]
            else:
                yield name, [values.tobytes()] * rows


def _members(cache: Path, group: RowGroup) -> Content:
    """Return the members of a row group's tar, where it has one, by split and name."""
    if SAMPLES not in group.lines:
        return {}
    with tarfile.open(cache / group.lines[SAMPLES].file) as tar:
        files = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        return {f"{group.split}/{name} of a tar": file.read() for name, file in files.items() if file}


def unlisted(cache: Path) -> list[str]:
    """Return the files of row groups that no line lists: what a finished run must not leave."""
    listed = set(Journal.load(cache).files)
    there = (path for folder in (ROWS, TARS) for path in (cache / folder).rglob("*") if path.is_file())
    return [str(path) for path in there if str(path.relative_to(cache)) not in listed]


def datasets_of(cache: Path) -> Datasets:
    """Return where all numbers of a sound cache are that it has of every image."""
    journal = Journal.load(cache)
    named = []
    for split in journal.splits:
        group = journal.groups(split)[0]
        for column, line in group.lines.items():
            if column in (KEYS, SAMPLES):
                continue
            with h5py.File(cache / line.file, locking=False) as file:
                for name, values in file.items():
                    if name + OFFSET not in file and values.ndim and len(values) == group.rows:
                        named.append((split, column, name, values.ndim))
    return named


def as_read(cache: Path, datasets: Datasets) -> dict[str, Any]:
    """Read all that a cache holds, as ``train --check`` and evaluation do."""
    opened = EmbeddingCache.open(cache, check=True)
    read: dict[str, Any] = {"splits": np.array(opened.split_names)}
    for name in opened.split_names:
        rows = opened.split(name)
        read |= {f"{name} keys": np.array(rows.keys), f"{name} labels": rows.labels}
        read |= {f"{name} rows": np.asarray(rows.embeddings), f"{name} classes": np.array(rows.class_names)}
        if rows.captions is not None:
            read[f"{name} captions"] = np.array(rows.captions)
    for split, column, dataset, ndim in datasets:
        values = opened.split(split).groups.column(column, dataset, ("biuf", (ndim,)))
        read[f"{split} {column} {dataset}"] = np.asarray(values)
    read |= {f"texts {name}": opened.text_bank(name).embeddings for name in opened.bank_names}
    if opened.text_tower:
        tower = TextTower.load(cache, files=opened.text_tower)
        read["tower"] = tower.embed(tower.tokens(["a fruit"])).detach().numpy()
    return read


def is_finished(cache: Path) -> bool:
    """Say whether a cache's build had ended."""
    return bool(json.loads((cache / MANIFEST).read_bytes())["complete"])
