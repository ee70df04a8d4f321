"""Unit rows of the pictures of any source, into a file: what ``distill embed`` calls."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.runtime.errors import UserError
from cache.runtime.progress import Progress, Silent
from cache.sources.accounts import Account, Reason, Tally
from cache.sources.decoding import content_of
from distill.deploy.class_sets import unit
from distill.deploy.embedder import Embedder, EmbedOptions
from distill.deploy.info import NAME as MODEL_JSON
from distill.deploy.pictures import Pictures
from distill.deploy.prepared import prepared_batches
from distill.deploy.row_files import RowNames, RowWriter, check_out, keys_file, row_writer
from distill.record.run_files import CHECKPOINTS, CONFIG

if TYPE_CHECKING:
    from distill.deploy.embedders import Kept

MODEL, RUN, CACHE = "model", "run", "cache"
MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """What was written: how many rows [``rows``, ``embed_dim``], what was left out, how long it took."""

    out: Path
    keys: Path | None
    by: str
    rows: int
    embed_dim: int
    seconds: float
    left_out: Account = field(default_factory=Account)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "out": str(self.out),
            "keys": str(self.keys) if self.keys else None,
            "by": self.by,
            "rows": self.rows,
            "embed_dim": self.embed_dim,
            "left_out": self.left_out.as_table(),
            "seconds": self.seconds,
            "images_per_s": self.rows / max(self.seconds, 1e-9),
        }


def embedder_of(target: Path) -> str:
    """Return what a folder is: ``model``, ``run`` or ``cache``; UserError where it is none."""
    if (target / MODEL_JSON).is_file():
        return MODEL
    if (target / CONFIG).is_file() or any((target / f"{name}.pt").is_file() for name in CHECKPOINTS):
        return RUN
    if (target / MANIFEST).is_file():
        return CACHE
    raise UserError(
        f"{target} is no exported model, no run and no cache",
        fix="give a folder that 'distill export', 'train' or 'cache-features' wrote.",
    )


def embed(
    target: Path, source: str, out: Path, options: EmbedOptions, *, progress: Progress | None = None
) -> Embedded:
    """Write a unit row of every picture of a source, by what ``target`` is; '' are the rows of a cache.

    An exported model's rows need no torch. A run's student gives its first teacher's head. Of a cache they
    are its teacher's: with ``teacher_model`` that embeds the source, without it the source's pictures have
    the rows that the cache keeps of the same content.

    Raises
    ------
    UserError
        If there is no row to write; what is written is whole, or not there.
    """
    check_out(out)
    progress, by = progress or Silent(), embedder_of(target)
    if not source and by != CACHE:
        raise UserError(f"there is no picture for {target}", fix="name a SOURCE: only a cache has rows.")
    if not source:
        from distill.deploy.embedders import kept_rows

        kept, began = kept_rows(target, options), time.perf_counter()
        with row_writer(out, embed_dim=kept.embed_dim) as writer:
            rows, left_out = _write_kept(kept, writer, progress), Account()
        dim = kept.embed_dim
    else:
        embedder = _embedder(target, by, options)
        sources = replace(options.sources, decoding=embedder.decoding)
        pictures = Pictures.labelled(source, sources)
        for note in pictures.notes:
            progress.note(note)
        began = time.perf_counter()
        with row_writer(out, embed_dim=embedder.embed_dim) as writer:
            rows, left_out = _write(embedder, pictures, writer, options.batch_size, progress)
            if not rows:
                raise UserError(
                    f"there is no row of {source}: {'; '.join(left_out.in_words()) or 'it has no picture'}",
                    fix="check the source, and that its files are pictures.",
                )
        dim = embedder.embed_dim
    return Embedded(
        out=out,
        keys=keys_file(out),
        by=by,
        rows=rows,
        embed_dim=dim,
        seconds=time.perf_counter() - began,
        left_out=left_out,
    )


def _embedder(target: Path, by: str, options: EmbedOptions) -> Embedder:
    if by == MODEL:
        return of_model(target, options)
    from distill.deploy.embedders import of_cache, of_run, of_teacher

    if by == RUN:
        return of_run(target, options)
    return of_teacher(target, options) if options.teacher_model else of_cache(target)


def of_model(folder: Path, options: EmbedOptions) -> Embedder:
    """Return an exported model of photos, by onnxruntime."""
    from distill.deploy.model import Model

    model = Model.open(folder, precision=options.precision, threads=options.threads)
    return Embedder(
        embed_dim=model.info.embed_dim,
        prepare=lambda sample: model.prepare_file(content_of(sample.content), sample.key),
        embed=model.embed,
        decoding=model.info.preprocessing.decoding,
    )


def _write(
    embedder: Embedder, pictures: Pictures, writer: RowWriter, batch_size: int, progress: Progress
) -> tuple[int, Account]:
    """Write rows as they come; return how many, and what was left out."""
    count, tally = 0, Tally()
    progress.start(len(pictures), "embedding")
    batches = prepared_batches(pictures, lambda item: embedder.prepare(item[1]), batch_size=batch_size)
    for batch in batches:
        names, arrays = [], []
        for (split, sample), array in batch:
            if isinstance(array, str):
                tally.add(_reason(array), sample.key)
                continue
            names.append(RowNames(key=sample.key, split=split, classes=sample.labels))
            arrays.append(array)
        if arrays:
            writer.add(names, unit(embedder.embed(np.stack(arrays))))
        count += len(arrays)
        progress.advance(len(batch))
    return count, pictures.account + tally.account()


def _reason(words: str) -> Reason:
    return Reason.NO_ROW if words == Reason.NO_ROW else Reason.told_by(words)


def _write_kept(kept: Kept, writer: RowWriter, progress: Progress) -> int:
    progress.start(len(kept), "writing")
    for names, rows in kept.blocks():
        writer.add(names, unit(rows))
        progress.advance(len(names))
    return len(kept)
