"""Folders that Hugging Face ``datasets`` has saved (``save_to_disk``), read without that library.

A ``Dataset`` is ``state.json`` and the Arrow files that it names; a ``DatasetDict`` is ``dataset_dict.json``
and a folder a split.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.runtime.atomic_files import read_text
from cache.runtime.errors import UserError
from cache.sources.arrow_files import ArrowTable
from cache.sources.names import check_inner
from cache.sources.records import split_of_name
from cache.sources.samples import Source
from cache.sources.source_options import SourceOptions
from cache.sources.table_source import open_tables

STATE, SPLITS_FILE = "state.json", "dataset_dict.json"


def is_saved_dataset(place: str) -> bool:
    """Say whether a place is a folder that ``datasets`` has saved."""
    if os.path.isfile(f"{place}/{SPLITS_FILE}"):
        return True
    return os.path.isfile(f"{place}/{STATE}") and os.path.isfile(f"{place}/dataset_info.json")


def open_saved_dataset(place: str, options: SourceOptions, split: str) -> dict[str, Source]:
    """Return the splits of a saved ``Dataset`` or ``DatasetDict``, or all of it as ``split``.

    Raises
    ------
    UserError
        If a file is missing or damaged, a split is called as none of ours, or there are no pictures.
    """
    place = place.rstrip("/")
    if os.path.isfile(f"{place}/{SPLITS_FILE}"):
        names = _names(f"{place}/{SPLITS_FILE}", _json(f"{place}/{SPLITS_FILE}").get("splits"))
        folders = {f"{place}/{name}": split or _split(place, name) for name in names}
    else:
        folders = {place: ""}
    files = [(ArrowTable(file), own) for folder, own in folders.items() for file in _arrow_files(folder)]
    return open_tables(place, files, options, split)


def _split(place: str, name: str) -> str:
    try:
        return split_of_name(name)
    except UserError as error:
        raise UserError(
            f"{place} has a split {name!r:.60}, which is none of ours",
            fix=f"say what it is: pool={place}/{name}.",
        ) from error


def _arrow_files(folder: str) -> list[str]:
    state = _json(f"{folder}/{STATE}")
    if state.get("_indices_data_files"):
        raise UserError(
            f"{folder} keeps an order of its rows beside them, as old versions of datasets do",
            fix="load it, call flatten_indices() and save it again.",
        )
    listed = state.get("_data_files")
    files = [one.get("filename") if isinstance(one, Mapping) else None for one in _list(listed)]
    return [f"{folder}/{name}" for name in _names(f"{folder}/{STATE}", files)]


def _names(file: str, names: Any) -> Sequence[str]:
    """Return names of files or folders that a file tells; UserError for none, or one that leads elsewhere."""
    texts = [name for name in _list(names) if isinstance(name, str)]
    try:
        check_inner("a file", texts)
    except ValueError as error:
        raise UserError(f"{file} is damaged: {error}", fix="save the dataset again.") from error
    if not texts or len(texts) < len(_list(names)):
        raise UserError(f"{file} names no files", fix="save the dataset again.")
    return texts


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _json(file: str) -> Mapping[str, Any]:
    try:
        value = json.loads(read_text(Path(file)))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged (no JSON)", fix="save the dataset again.") from error
    return value if isinstance(value, dict) else {}
