"""Several runs of a sweep from one stream of batches: read, decoded, augmented and moved once for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from cache import EmbeddingCache
from cache.runtime.distributed import in_every_process
from cache.runtime.errors import UserError
from cache.runtime.progress import Progress
from distill.config import RunConfig
from distill.data.pool import has_pool
from distill.data.replayed_views import has_views
from distill.data.stream import Stream, stream_settings
from distill.data.streams import open_stream
from distill.data.tar_stream import TarStream
from distill.data.teacher_texts import settled
from distill.record.run_files import CONFIG, LAST
from distill.student.build import input_of
from distill.student.first_weights import FirstWeights
from distill.sweep.plan import PlannedRun
from distill.sweep.run import Place, RunResult, Watch, ended, train_command
from distill.train.loop import fit_together
from distill.train.run import StudentRun
from distill.train.session import origin_of, session_of
from distill.train.start import as_begun
from distill.train.stopping import Stopped


def groups_of(
    runs: Sequence[PlannedRun], *, pool: bool = False, views: bool = False
) -> list[list[PlannedRun]]:
    """Return the runs in groups that can share a stream, in their order.

    They agree in :func:`distill.data.stream.stream_settings`, and their students in what is taken off pixels.
    """
    groups: dict[str, list[PlannedRun]] = {}
    for run in runs:
        groups.setdefault(repr(_shared(run.config, pool=pool, views=views)), []).append(run)
    return list(groups.values())


def what_parts(runs: Sequence[PlannedRun], *, pool: bool = False, views: bool = False) -> list[str]:
    """Return the settings that keep runs from sharing one stream."""
    first, *others = (_shared(run.config, pool=pool, views=views) for run in runs)
    return [name for name, value in first.items() if any(other[name] != value for other in others)]


def _shared(config: RunConfig, *, pool: bool, views: bool) -> dict[str, Any]:
    try:
        normalised = input_of(config.student)
    except UserError:  # of an unknown name, which its run says itself
        normalised = config.student.arch
    return {**stream_settings(config, pool=pool, views=views), "student.arch": normalised}


@dataclass(frozen=True, kw_only=True)
class Together:
    """Runs in this process, all that share a stream beside each other."""

    progress: Progress

    def __call__(self, runs: Sequence[PlannedRun], place: Place, watch: Watch) -> list[RunResult]:
        """Do the runs; see :func:`distill.sweep.run.run_sweep`."""
        results = []
        cache = EmbeddingCache.open(place.cache)
        able = []
        for run in runs:
            try:
                able.append(replace(run, config=settled(run.config, cache)))
            except UserError as error:
                watch.started(run)
                results.append(ended(run, error))
                watch.ended(results[-1])
        for group in groups_of(able, pool=has_pool(cache), views=has_views(cache)):
            for run in group:
                watch.started(run)
            for result in self._group(group, place):
                watch.ended(result)
                results.append(result)
        return results

    def _group(self, group: Sequence[PlannedRun], place: Place) -> list[RunResult]:
        try:
            config = as_begun(group[0].config, [place.folder(run) for run in group])
            stream = open_stream(config, cache_dir=place.cache, data_dir=place.data)
        except UserError as error:
            return [ended(run, error) for run in group]
        stream.identities.note_gone(self.progress, config)
        weights = FirstWeights()
        begun = [in_every_process(partial(_begun, run, stream, place, weights)) for run in group]
        del weights
        try:
            ends = fit_together(begun, progress=self.progress)
        except Stopped as stopped:
            raise Stopped(stopped.signal_number, str(place.out), again="the same command") from stopped
        return [ended(run, end) for run, end in zip(group, ends, strict=True)]


def _begun(run: PlannedRun, stream: Stream | TarStream, place: Place, weights: FirstWeights) -> StudentRun:
    """Begin a run as one of those that take a stream; UserError where it cannot be one."""
    out = place.folder(run)
    origin = origin_of(run.config, code=place.code_of(run), begun=out / LAST)
    _, origin = weights.find(run.config.student, origin)
    return StudentRun(
        session_of(run.config, stream, origin),
        out,
        resume_run=(out / CONFIG).is_file(),
        boards=place.boards,
        command=train_command(run, place),
    )
