"""What lies in a folder of images."""

from __future__ import annotations

from pathlib import Path

from cache.sources.data import open_data


def keys_of(data: Path) -> dict[str, set[str]]:
    return {name: {i.key for i in split.all()} for name, split in open_data([data]).splits.items()}


def every_file(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(folder)): (p.lstat().st_ino, p.lstat().st_mtime_ns) for p in folder.rglob("*")}
