"""Lists of pictures: ``.csv``, ``.tsv`` and ``.jsonl`` with a path or address a line, and what else is known.

Columns are found by their usual names unless others are given. Relative paths are from the list's folder. A
chunk is a block of some thousand lines; the file is never in memory as a whole.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

from cache.runtime.errors import UserError
from cache.runtime.system_errors import is_the_systems
from cache.sources.accounts import Reason
from cache.sources.decoding import Decoding
from cache.sources.list_lines import Block, ListFile
from cache.sources.pictures import PictureSample
from cache.sources.places import beside, is_remote
from cache.sources.records import Record, RecordReader, RecordSource, Row, SplitSurvey, folder_of
from cache.sources.samples import Chunk, Source
from cache.sources.source_options import SourceOptions

# Files that one thread looks at in one go.
FILES_AT_ONCE, THREADS = 512, 16


def open_list(place: str, options: SourceOptions, split: str) -> dict[str, Source]:
    """Return the splits of a list: those that its lines name, or all of it as ``split``.

    Raises
    ------
    UserError
        If the list cannot be read, has not the columns, or names a split that is none.
    """
    file = ListFile.open(place, options.columns)
    reader = RecordReader(
        place=place,
        unit="line",
        folder=folder_of(place),
        options=options,
        names=options.names,
        given=split,
    )
    blocks: dict[str, Block] = {}

    def chunks() -> Iterator[tuple[str, list[Record]]]:
        for number, (block, records) in enumerate(file.blocks()):
            blocks[f"{number:06d}"] = block
            yield f"{number:06d}", records

    surveys = reader.survey(chunks())
    if not surveys:
        raise UserError(f"{place} names no picture", fix="write a line for each.")
    return {name: FileListSource(name, reader, survey, file, blocks) for name, survey in surveys.items()}


class FileListSource(RecordSource):
    """The pictures that a list names, of one split."""

    def __init__(
        self,
        split: str,
        reader: RecordReader,
        survey: SplitSurvey,
        file: ListFile,
        blocks: Mapping[str, Block],
    ) -> None:
        super().__init__(split, reader, survey)
        self.file = file
        self._blocks = {id: blocks[id] for id in self.chunk_ids}

    def chunks(self) -> Sequence[Chunk]:
        """Return the blocks; lines, and the size and time of every file here, are in their identity."""
        return [Chunk(id=id, identity=_identity(self._listed(id).samples)) for id in self._blocks]

    def records(self, chunk: str) -> Sequence[Record]:
        """Return the records of a block."""
        return self.file.read(self._blocks[chunk])

    def pictures(self, chunk: str, rows: Sequence[Row]) -> Sequence[PictureSample | Reason]:
        """Return the files of rows as they are now."""
        del chunk
        return pictures_at(self.file.place, rows, self.reader.options.decoding)


def pictures_at(place: str, rows: Sequence[Row], decoding: Decoding) -> Sequence[PictureSample | Reason]:
    """Return the files that rows of a list at ``place`` name, as they are now, or why there is none."""

    def look(some: Sequence[Row]) -> list[PictureSample | Reason]:
        return [_picture(place, row, decoding) for row in some]

    cut = [rows[start : start + FILES_AT_ONCE] for start in range(0, len(rows), FILES_AT_ONCE)]
    if len(cut) < 2:
        return [one for some in cut for one in look(some)]
    # A file server answers many at once.
    with ThreadPoolExecutor(THREADS) as pool:
        return [one for some in pool.map(look, cut) for one in some]


def _picture(place: str, row: Row, decoding: Decoding) -> PictureSample | Reason:
    if not row.record.path:
        return Reason.NO_PICTURE
    path, size, mtime_ns = beside(place, row.record.path), 0, 0
    if not is_remote(path):
        try:
            status = os.stat(path)
        except OSError as error:
            if is_the_systems(error):
                raise
            return Reason.UNREADABLE if isinstance(error, PermissionError) else Reason.MISSING
        except ValueError:  # a zero byte, or half a character
            return Reason.NAME
        # A pipe would have us wait, and a folder is none.
        if not stat.S_ISREG(status.st_mode):
            return Reason.FORMAT
        size, mtime_ns = status.st_size, status.st_mtime_ns
    return PictureSample(
        key=row.key,
        place=path,
        labels=row.labels,
        caption=row.caption,
        file_bytes=size,
        mtime_ns=mtime_ns,
        decoding=decoding,
    )


def _identity(samples: Sequence[PictureSample]) -> str:
    table = [(s.key, s.place, s.labels, s.caption, s.file_bytes, s.mtime_ns) for s in samples]
    return sha256(repr(table).encode("utf-8", "surrogateescape")).hexdigest()
