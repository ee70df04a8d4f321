"""What lies in a folder of images."""

from __future__ import annotations

import csv
from pathlib import Path


def keys_in(table: Path) -> dict[str, set[str]]:
    """The keys of each split of a list."""
    keys: dict[str, set[str]] = {}
    with open(table, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            keys.setdefault(row["split"], set()).add(row["key"])
    return keys


def every_file(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(folder)): (p.lstat().st_ino, p.lstat().st_mtime_ns) for p in folder.rglob("*")}
