"""Embedded batches -> row groups: files, and the lines of the journal that list them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from cache.build.embed_images import EmbeddedBatch, Seconds, UnitSettings, Writer
from cache.build.versions import made_with
from cache.runtime.signals import Terminated, held
from cache.sources.class_texts import MISSING_CAPTION, caption_of
from cache.store.journal import JournalWriter
from cache.store.journal_lines import FileLine
from cache.store.row_group import GROUP_ROWS, GROUP_SECONDS, GroupKeys, claim_group, write_group
from cache.store.spec import WEBDATASET
from cache.store.webdataset import write_tar_group

# Regions are 49 rows a picture; two groups are in memory at once, the one that is written and the next.
GROUP_BYTES = 2**30


class GroupWriter:
    """Collects batches, and writes a group of whole ones when it is large or old enough, or its unit ends.

    A thread writes one group while the next is embedded; what that costs is the wait for it. A process that
    is killed loses the open group at most, and the one that was being written.
    """

    def __init__(self, settings: UnitSettings, writer: Writer, seconds: Seconds, thread: Executor) -> None:
        """Use :meth:`writing`."""
        self._settings, self._seconds, self._thread = settings, seconds, thread
        self._journal = JournalWriter(settings.cache, writer.name)
        self._made_with = made_with(settings.batch_size, writer.teacher.device)
        self._open: list[EmbeddedBatch] = []
        self._since = 0.0
        self._writing: Future[None] = Future()
        self._writing.set_result(None)

    def add(self, batch: EmbeddedBatch) -> None:
        """Take a batch; UserError if a group could not be written."""
        if self._open and (self._open[0].unit != batch.unit or self._is_full_with(batch)):
            self.write()
        if not self._open:
            self._since = time.monotonic()
        self._open.append(batch)
        if time.monotonic() - self._since >= GROUP_SECONDS:
            self.write()

    def _is_full_with(self, batch: EmbeddedBatch) -> bool:
        batches = (*self._open, batch)
        rows = sum(len(one.samples) for one in batches)
        return rows > GROUP_ROWS or sum(map(_bytes, batches)) > GROUP_BYTES

    def write(self) -> None:
        """Begin to write what was added since the last group; see :meth:`add`."""
        self.wait()
        with held():  # so that a signal comes before or after, and what is added is written once
            batches, self._open = self._open, []
            if batches:
                self._writing = self._thread.submit(self._write, batches)

    def wait(self) -> None:
        """Return when all that :meth:`write` began is written and listed; see :meth:`add`."""
        start = time.perf_counter()
        try:
            self._writing.result()
        finally:
            self._seconds.writing += time.perf_counter() - start

    @classmethod
    @contextmanager
    def writing(cls, settings: UnitSettings, writer: Writer, seconds: Seconds) -> Iterator[GroupWriter]:
        """Write what was added by the end of the block, also where a signal ends it.

        After an error only what was begun is written: the rows may be what is wrong.
        """
        with ThreadPoolExecutor(1) as thread:
            groups = cls(settings, writer, seconds, thread)
            try:
                yield groups
                groups.write()
            except (KeyboardInterrupt, Terminated):
                groups.write()
                raise
            finally:
                groups.wait()

    def _write(self, batches: list[EmbeddedBatch]) -> None:
        """Write batches of one unit as a row group, and list it with the images that were skipped."""
        skipped = [image for batch in batches for image in batch.skipped]
        with_rows = [batch for batch in batches if batch.samples]
        lines = _write_rows(self._settings, with_rows, self._made_with) if with_rows else []
        self._journal.add(*lines, *skipped)


def _bytes(batch: EmbeddedBatch) -> int:
    return sum(column.nbytes for column in batch.columns.values())


def _write_rows(
    settings: UnitSettings, batches: list[EmbeddedBatch], about: Mapping[str, Any]
) -> list[FileLine]:
    unit = batches[0].unit
    samples = [sample for batch in batches for sample in batch.samples]
    keys = GroupKeys.of(
        unit.split,
        [sample.key for sample in samples],
        [sample.labels for sample in samples],
        [(one.sha256, one.bytes, one.mtime_ns) for batch in batches for one in batch.decoded],
    )
    columns = {
        name: np.concatenate([batch.columns[name] for batch in batches]) for name in batches[0].columns
    }
    group = claim_group(settings.cache, unit.split)
    about = {**about, "unit": unit.name}
    if settings.spec.format == WEBDATASET:
        texts, captions = settings.captions, None
        if texts:
            captions = [caption_of(texts, unit.split, key) or MISSING_CAPTION for key in keys.keys]
        return write_tar_group(settings.cache, group, keys, columns, samples, about, captions=captions)
    return write_group(
        settings.cache, group, keys, {n: {"embedding": rows} for n, rows in columns.items()}, about
    )
