"""Planned units -> row groups, in one process: one alone, each that torchrun starts, and a Ray task."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from cache.build.embed_images import Embedder, Seconds, UnitSettings, Writer
from cache.build.group_writer import GroupWriter
from cache.build.plan import Unit
from cache.build.unit_samples import UnitSamples, open_indexes
from cache.runtime.progress import Progress
from cache.sources.samples import Source
from cache.store.journal import Journal
from cache.store.journal_lines import SkippedImage


def embed_units(
    settings: UnitSettings,
    writer: Writer,
    sources: Mapping[str, Source],
    units: Sequence[Unit],
    progress: Progress,
    *,
    journal: Journal,
    made: Container[str] = frozenset(),
) -> Seconds:
    """Embed units, and write and list their row groups; return where the time went.

    What was embedded when Ctrl-C or SIGTERM comes is written and listed. ``journal`` is one in which what the
    plan has seen is; ``made`` are keys of the units that are made already.

    Raises
    ------
    UserError
        As :meth:`Embedder.embed`, or if a file cannot be written.
    """
    seconds = Seconds()
    if not units:
        return seconds
    samples = UnitSamples(
        sources=sources,
        indexes=open_indexes(journal, settings.cache, settings.planned, {unit.split for unit in units}),
        batch_size=settings.batch_size,
        made=made,
    )
    embedder = Embedder(settings=settings, writer=writer, seconds=seconds)
    with GroupWriter.writing(settings, writer, seconds) as group_writer:
        for batch in embedder.embed(samples.batches(units)):
            note_skipped(progress, batch.skipped)
            group_writer.add(batch)
            progress.advance(len(batch.samples) + len(batch.skipped))
    return seconds


def note_skipped(progress: Progress, skipped: Sequence[SkippedImage]) -> None:
    """Say which images were skipped, and why."""
    for image in skipped:
        progress.note(f"skipped {image.split}/{image.key}: {image.reason}")
