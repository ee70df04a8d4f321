"""Files without lines, and lines without files: what a kill, a repair or a hand has left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

from cache.store.journal import Journal
from cache.store.journal_lines import CAPTIONS, KEYS, ROWS, SAMPLES, TARS, DroppedFile, FileLine, split_of
from cache.store.manifest import Manifest
from cache.store.projections import FOLDER


def drop_lost_files(journal: Journal, out: Path) -> Journal:
    """Return the journal less the files that are not there, or not whole: what is in them is made again.

    A row group without its keys or a column of what its pictures are is none.
    """
    pictures = {line.column for line in journal.files.values() if _is_of_pictures(line)}
    for group in journal.all_groups:
        lost = [line for line in group.lines.values() if not line.is_there(out)]
        whole = SAMPLES in group.lines or (bool(pictures) and pictures <= group.lines.keys())
        if not whole or any(line.column == KEYS or _is_of_pictures(line) for line in lost):
            lost = [group.keys]
        for line in lost:
            journal.add(DroppedFile(file=line.file))
    return journal


def _is_of_pictures(line: FileLine) -> bool:
    """Say whether a file holds the main teacher's rows of pictures, which a row group begins with."""
    column = line.column
    return column.endswith("_embedding") and column != CAPTIONS and "." not in column


def remove_unlisted(out: Path, manifest: Manifest, journal: Journal) -> None:
    """Remove the files that no line lists, and the folders of row groups that have none left.

    Folders that are nobody's row group are left alone, and so is what a file browser keeps beside them.
    """
    listed = {*journal.files}
    for folder in filter(_is_row_group, (out / ROWS).glob("*")):
        there = list(folder.iterdir())
        files = [path for path in there if f"{ROWS}/{folder.name}/{path.name}" not in listed]
        if len(files) == len(there):
            shutil.rmtree(folder)
            continue
        for path in files:
            if not path.is_dir():
                path.unlink()
    listed |= {file.file for file in manifest.files}
    folders = (TARS, FOLDER, "text_tower", "*.text_tower")
    for path in [path for folder in folders for path in out.glob(f"{folder}/*")]:
        if f"{path.parent.name}/{path.name}" not in listed and not path.is_dir():
            path.unlink()


def _is_row_group(folder: Path) -> bool:
    try:
        split_of(folder.name)
    except ValueError:
        return False
    return folder.is_dir()
