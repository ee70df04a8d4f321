"""The runs of a sweep as Ray tasks, on machines that share the storage of cache, data and runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache.runtime.errors import UserError
from cache.runtime.ray_pool import RayCluster, cannot_hold, connected, run_tasks
from cache.sources.data import Given
from distill.data.folders import given_of
from distill.record.run_files import CONFIG
from distill.sweep.plan import PlannedRun
from distill.sweep.run import LOGS, Place, RunResult, Watch, ended, log_file, train_command
from distill.train.stopping import Stopped, listening


@dataclass(frozen=True, kw_only=True)
class RayRuns:
    """Each run a task with its CPUs and its share of a GPU; one whose worker dies goes on elsewhere.

    ``warn`` is told what keeps the tasks waiting.
    """

    cluster: RayCluster
    warn: Callable[[str], None]

    def __call__(self, runs: Sequence[PlannedRun], place: Place, watch: Watch) -> list[RunResult]:
        """Do the runs; see :func:`distill.sweep.run.run_sweep`."""
        shared = replace(
            place,
            cache=place.cache.resolve(),
            data=[Given.parse(one).anywhere().text for one in given_of(place.data)],
            out=place.out.resolve(),
            code=place.code.resolve() if place.code else None,
        )
        (place.out / LOGS).mkdir(parents=True, exist_ok=True)
        calls = {run.name: (run, shared) for run in runs}
        by_name, results = {run.name: run for run in runs}, []
        logs = {log_file(run, place): run for run in runs}
        waiting = {log: (run, _size(log)) for log, run in logs.items()}
        with connected(self.cluster), listening() as stop:
            if why := cannot_hold(self.cluster) if runs else "":
                self.warn(why)
            for outcome in run_tasks(
                train_run, calls, self.cluster, fresh=True, asked_to_stop=lambda: bool(stop.signal_number)
            ):
                for run in _begun(waiting):
                    watch.started(run)
                if outcome is not None:
                    run = by_name[outcome[0]]
                    results.append(ended(run, outcome[1], log_file(run, place)))
                    watch.ended(results[-1])
        if stop.signal_number:
            raise Stopped(stop.signal_number, str(place.out), again="the same command")
        return results


def _begun(waiting: dict[Path, tuple[PlannedRun, int]]) -> list[PlannedRun]:
    """Take out and return the runs whose log, by which they wait, has grown: a machine has taken them."""
    logs = [log for log, (_, size) in waiting.items() if _size(log) > size]
    return [waiting.pop(log)[0] for log in logs]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def train_run(planned: PlannedRun, place: Place) -> dict[str, Any]:
    """Train one run of a sweep, or go on with it, in this process; return its summary.

    What it says goes into its log. A request to stop, which Ray sends as Ctrl-C, saves it.
    """
    import socket

    from cache.runtime.progress import LineProgress
    from distill.train.start import train

    out = place.folder(planned)
    with open(log_file(planned, place), "a", encoding="utf-8") as log, contextlib.redirect_stderr(log):
        progress = LineProgress(planned.name, every=60, stream=log)
        progress.note(f"{planned.name} on {socket.gethostname()}")
        try:
            return train(
                planned.config,
                cache_dir=place.cache,
                data_dir=place.data,
                out=out,
                resume_run=(out / CONFIG).is_file(),
                progress=progress,
                command=train_command(planned, place),
                boards=place.boards,
                code=place.code_of(planned),
            )
        except (UserError, Stopped) as error:
            progress.note(f"Error: {error}")
            raise
