"""Parquet files of pictures: one, a pattern of them, or a folder as on the Hugging Face hub.

``data/train-00000-of-00010.parquet`` and ``train/0000.parquet`` are of the split ``train``; a file of another
name is of none, unless a column says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from glob import escape, glob

from cache.runtime.errors import UserError
from cache.sources.arrow_files import ParquetTable
from cache.sources.places import expanded, is_remote, list_folder
from cache.sources.records import split_of_name
from cache.sources.samples import Source
from cache.sources.source_options import SourceOptions
from cache.sources.splits import SPLIT_ALIASES, SPLITS
from cache.sources.table_source import open_tables

PARQUET = ".parquet"
# What stands before the number of a file of several.
_NAME = re.compile(r"([A-Za-z_]+?)(?:[-_.]?\d.*)?")
# Folders of the hub's layout, which hold nothing else.
_FOLDERS = frozenset({"data", "default", "validation", "test", "partial-train", *SPLITS, *SPLIT_ALIASES})


def open_parquet(place: str, options: SourceOptions, split: str) -> dict[str, Source]:
    """Return the splits of a file, a pattern or a folder of parquet.

    Raises
    ------
    UserError
        If there is none, one cannot be read, or none of its columns has pictures or paths.
    """
    files = [(ParquetTable(file), _split_of(file)) for file in parquet_at(place)]
    return open_tables(place, files, options, split)


def holds_parquet(place: str) -> bool:
    """Say whether a place is parquet, or a folder of nothing else."""
    if place.lower().endswith(PARQUET):
        return True
    if is_remote(place) or not os.path.isdir(place):
        return False
    folders = [entry.name for entry in os.scandir(place) if entry.is_dir() and not entry.name.startswith(".")]
    return {*folders} <= _FOLDERS and any(
        glob(f"{escape(folder)}/*{PARQUET}") for folder in (place, *(f"{place}/{name}" for name in folders))
    )


def parquet_at(place: str) -> Sequence[str]:
    """Return the files of a pattern or below a folder, sorted; UserError where there is none."""
    if place.lower().endswith(PARQUET):
        files = [*expanded(place)]
    else:
        files = [f"{place.rstrip('/')}/{name}" for name in list_folder(place) if name.endswith(PARQUET)]
    if not files:
        raise UserError(f"{place} has no {PARQUET} files", fix="check the pattern.")
    return sorted(files)


def _split_of(place: str) -> str:
    """Return the split that a file, or the folder that it lies in, is called as; '' for none."""
    *_, folder, name = f"/{place}".rsplit("/", 2)
    match = _NAME.fullmatch(os.path.splitext(name)[0])
    for called in (match[1] if match else "", folder):
        try:
            return split_of_name(called)
        except UserError:
            continue
    return ""
