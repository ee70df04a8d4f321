"""What a run would do, without doing it: its images, steps and rates, and the time by a few real steps."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from cache import EmbeddingCache
from cache.runtime.devices import choose_device
from cache.runtime.progress import Progress, Silent
from distill.config import OptimConfig, RunConfig
from distill.data.folders import Data, check_there
from distill.data.streams import open_stream
from distill.data.teacher_texts import settled
from distill.judge.model import outputs_of
from distill.record.run_log import LAST_EPOCHS
from distill.settings import flat
from distill.student.first_weights import FirstWeights
from distill.train.ends import is_judged, judged_after
from distill.train.head import photos_of
from distill.train.head_only import wants_head
from distill.train.optim import check_optimizer
from distill.train.run import StudentRun
from distill.train.schedule import Moment, learning_rate
from distill.train.session import Session, origin_of, session_of
from distill.train.shared_batches import shared_batches
from distill.train.start import as_begun, note_surprises

# The first step, which makes what later ones find, is not counted; two batches of images are judged.
STEPS, SECONDS, JUDGED = 6, 10.0, 2
# So many rates are looked at for the highest.
RATES = 2_000


def plan(
    config: RunConfig,
    *,
    cache_dir: Path,
    data_dir: Data,
    check: bool = False,
    decoder: str = "",
    code: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return what a run of ``config`` would be, as plain values; nothing is written but temporary files.

    ``seconds`` are by a probe: real steps of this very student, and images judged. It counts the first epoch
    for all, which is the slowest where decoded images are kept.

    Raises
    ------
    UserError
        What :func:`distill.train.start.train` raises before its first epoch, and in its first steps.
    """
    check_optimizer(config.optim)
    choose_device(config.train.device)  # this and the data before weights are looked for
    cache = EmbeddingCache.open(cache_dir)
    check_there(cache, data_dir)
    config = settled(config, cache)
    origin = origin_of(config, code=code)
    start, origin = FirstWeights().find(config.student, origin)
    stream = open_stream(as_begun(config, [], decoder), cache_dir=cache_dir, data_dir=data_dir, check=check)
    session = session_of(config, stream, origin)
    note_surprises(session, progress or Silent())
    steps, epochs = len(session.batches_of(0)), config.train.epochs
    steps = steps if config.train.head_only == "off" else 0
    pool = session.pool
    return {
        "cache": str(cache_dir),
        "config": flat(asdict(config)),
        "start": start,
        "images": {"train": session.data.count, "pool": pool.images if pool is not None else 0},
        "pool_share": round(pool.share, 4) if pool is not None else 0.0,
        "views": session.replayed.words,
        "judged": {name: len(split.pixels.samples) for name, split in session.splits.items()},
        "steps": {"epoch": steps, "all": steps * epochs},
        "rates": rates_of(config.optim, epochs=epochs, steps=steps) if steps else {},
        "device": str(session.model.device),
        "seconds": _probed(session, steps),
    }


def rates_of(config: OptimConfig, *, epochs: int, steps: int) -> dict[str, float]:
    """Return the learning rate of a run's first step, of its last, and the highest."""
    every = epochs * steps
    at = sorted({*range(0, every, max(1, every // RATES)), every - 1})
    rates = [
        learning_rate(config, Moment(epoch=i // steps, epochs=epochs, step=i % steps, steps=steps))
        for i in at
    ]
    return {"start": rates[0], "peak": max(rates), "end": rates[-1]}


def _probed(session: Session, steps: int) -> dict[str, float]:
    """Return the seconds of a step, of judging an image and of a whole run, by a few of each."""
    config, splits = session.config, session.splits
    with TemporaryDirectory(prefix="distill-plan-") as folder:
        run = StudentRun(session, Path(folder))
        try:
            if features := wants_head(run):
                photos_of(session)
            # Where nothing is judged a step says what an image takes, also of a head alone.
            step = _seconds_of_step(run) if steps or not splits else 0.0
        finally:
            run.folder.close()
    image = _seconds_of_image(session) if splits else step / config.train.batch_size
    epochs = config.train.epochs if steps else 0
    learnt = session.data.count + (session.pool.images if session.pool is not None else 0)
    once = sum(len(split.pixels.samples) for split in splits.values())
    parts = {
        "training": step * steps * epochs,
        "judging": image * sum(_judged_after(session, epoch) for epoch in range(epochs)),
        "features": image * (learnt + once) if features else 0.0,
    }
    return {"step": step, "image": image, **parts, "all": sum(parts.values())}


def _judged_after(session: Session, epoch: int) -> int:
    """Return how many images are judged after an epoch."""
    config = session.config
    if not is_judged(config, epoch):
        return 0
    late = epoch >= config.train.epochs - LAST_EPOCHS
    names = judged_after(session.splits, late=late)
    return sum(len(session.splits[name].pixels.samples) for name in names)


def _seconds_of_step(run: StudentRun) -> float:
    """Return what a step takes, of reading to moving, by a few of them; the run is at its start."""
    run.begin_epoch()
    began, ends = time.perf_counter(), list[float]()
    drawn: Any = shared_batches(run.session, 0, first=0)
    with closing(drawn) as batches:
        for batch in batches:
            run.step(batch.of(run.session.data), spent=batch.seconds)
            _wait(run.session)
            ends.append(time.perf_counter())
            if len(ends) > STEPS or (len(ends) > 1 and ends[-1] - began > SECONDS):
                break
    return ends[0] - began if len(ends) == 1 else (ends[-1] - ends[0]) / (len(ends) - 1)


def _seconds_of_image(session: Session) -> float:
    """Return what judging an image takes, reading it too, by the first batches of the largest split."""
    split = max(session.splits.values(), key=lambda split: len(split.pixels.samples))
    began, images = time.perf_counter(), 0
    judging: Any = outputs_of(session.model, split)
    with closing(judging) as outputs:
        for done, (rows, _) in enumerate(outputs, start=1):
            images += len(rows)
            if done == JUDGED:
                break
    _wait(session)
    return (time.perf_counter() - began) / max(images, 1)


def _wait(session: Session) -> None:
    if session.model.device.type != "cpu":
        torch.accelerator.synchronize(session.model.device)
