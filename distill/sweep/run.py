"""The runs of a sweep: finished ones are skipped, interrupted ones go on, a failed one stops no other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cache import EmbeddingCache
from cache.runtime.atomic_files import is_leftover, remove_temporaries, replacing, write_json
from cache.runtime.errors import CacheMismatch, UserError, reason_of
from cache.runtime.locks import only_writer
from cache.runtime.machine_limits import cores
from cache.runtime.own_code import own_code_in
from cache.runtime.signals import PARENT
from distill.data.folders import Data, given_of, open_folder
from distill.data.identity_reader import IdentityReader
from distill.data.tar_identities import identities_of
from distill.data.teacher_texts import settled
from distill.data_identity import DataIdentity, identity_in, refuse_other_data
from distill.headline import headline, headline_splits
from distill.record.boards import TENSORBOARD_ALONE, Boards
from distill.record.run_files import CONFIG, LAST, METRICS, SUMMARY, SWEEP
from distill.settings import differences, from_toml, to_toml
from distill.spread import as_columns
from distill.sweep.plan import PlannedRun, Sweep
from distill.train.stopping import Stopped, listening

CONFIGS, LOGS = "configs", "logs"
NEW, INTERRUPTED, FINISHED, FAILED = "new", "interrupted", "finished", "failed"
DAMAGED = "damaged"
ELSEWHERE = "choose another --out, or move that folder away."
MOVE_AWAY = "move that folder away, and the run is trained anew."
POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a sweep reads and writes.

    ``boards`` are what runs write to beside TensorBoard; ``code`` the file of students of one's own.
    """

    cache: Path
    data: Data
    out: Path
    boards: Boards = TENSORBOARD_ALONE
    code: Path | None = None

    def folder(self, run: PlannedRun) -> Path:
        """Return a run's folder."""
        return self.out / run.name

    def code_of(self, run: PlannedRun) -> Path | None:
        """Return the file that a run's student is in, where it is one of one's own."""
        return self.code if own_code_in(run.config.student.arch) else None


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended: ``finished`` with its summary, or ``failed`` with its error."""

    run: PlannedRun
    status: str
    summary: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    skipped: bool = False


class Watch(Protocol):
    """Who watches a sweep."""

    def started(self, run: PlannedRun) -> None:
        """A run begins or goes on."""

    def ended(self, result: RunResult) -> None:
        """A run has ended."""


Engine = Callable[[Sequence[PlannedRun], Place, Watch], list[RunResult]]


def run_sweep(
    sweep: Sweep, place: Place, engine: Engine, watch: Watch, *, command: Sequence[str] = ()
) -> list[RunResult]:
    """Do what is left of a sweep and return how every run ended, in the sweep's order.

    Raises
    ------
    UserError
        If a folder holds a run of other settings or other data, or a board is asked for and not installed;
        nothing is begun then.
    Stopped
        After SIGTERM or Ctrl-C, with every run saved.
    """
    place.boards.check()
    state = states(sweep, place)
    with only_writer(place.out):
        remove_temporaries(place.out)
        remove_temporaries(place.out / CONFIGS)
        write_json(place.out / SWEEP, _described(sweep, place, command))
        for run in sweep.runs:
            with replacing(config_file(run, place)) as temporary:
                temporary.write_text(to_toml(run.config), encoding="utf-8")
        results = {}
        for run in (run for run in sweep.runs if state[run.name] in (FINISHED, DAMAGED)):
            results[run.name] = _not_begun(run, place, state[run.name])
            watch.ended(results[run.name])
        left = [run for run in sweep.runs if state[run.name] in (NEW, INTERRUPTED)]
        results |= {result.run.name: result for result in engine(left, place, watch)}
    return [results[run.name] for run in sweep.runs]


def _described(sweep: Sweep, place: Place, command: Sequence[str]) -> dict[str, Any]:
    names = ("name", "point", "settings", "seed")
    return {
        "question": sweep.question,
        "command": list(command),
        "cache": str(place.cache),
        "data": list(given_of(place.data)) or None,
        "runs": [{name: getattr(run, name) for name in names} for run in sweep.runs],
    }


def config_file(run: PlannedRun, place: Place) -> Path:
    """Return where a run's config is for whoever starts it."""
    return place.out / CONFIGS / f"{run.name}.toml"


def states(sweep: Sweep, place: Place) -> dict[str, str]:
    """Return what there is of every run: ``new``, ``interrupted``, ``finished`` or ``damaged``, by name.

    Raises
    ------
    UserError
        If there are no images to train on, or a folder holds something else, or a run of other settings or
        other data.
    """
    # Otherwise every run would find out for itself; what is wrong with a class, each will.
    cache = EmbeddingCache.open(place.cache)
    folder = open_folder(cache, place.data, shared_classes=True, complete=True, fix="")
    identities = identities_of(cache, folder)
    return {run.name: _state(run, place.folder(run), identities) for run in sweep.runs}


def _state(run: PlannedRun, folder: Path, identities: IdentityReader) -> str:
    if not folder.exists() or (folder.is_dir() and all(map(is_leftover, folder.iterdir()))):
        return NEW
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} is there and holds no run", fix="move it away, or choose another --out.")
    try:
        text = (folder / CONFIG).read_text(encoding="utf-8")
        config = settled(run.config, identities.cache)
        changed = differences(from_toml(text, where=str(folder / CONFIG)), config)
        summary = read_summary(folder)
    except (UserError, OSError, ValueError):
        return DAMAGED
    if changed:
        raise CacheMismatch(f"{folder} holds a run of other settings ({'; '.join(changed)})", fix=ELSEWHERE)
    made_from = _made_from(folder, summary)
    if made_from is not None:
        refuse_other_data(identities.of(run.config).differences(made_from), where=folder, fix=ELSEWHERE)
    return FINISHED if summary else INTERRUPTED


def _made_from(folder: Path, summary: dict[str, Any]) -> DataIdentity | None:
    """Return the data that a run was made from; None where it has kept nothing yet, or nothing readable."""
    if summary:
        return identity_in(summary, folder / SUMMARY)
    if not (folder / LAST).is_file():
        return None
    # Here, because it imports torch, which a plan of new runs does without.
    from distill.checkpoint import read_checkpoint

    try:
        return identity_in(read_checkpoint(folder / LAST), folder / LAST)
    except UserError:
        return None  # the run itself says so, and fails alone


def read_summary(folder: Path) -> dict[str, Any]:
    """Return a finished run's summary; empty where there is none.

    Raises
    ------
    UserError
        If it is damaged.
    """
    path = folder / SUMMARY
    try:
        summary = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if not isinstance(summary, dict):
            raise ValueError("it is no table")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({reason_of(error)})", fix=MOVE_AWAY) from error
    return summary if summary.get("status") == FINISHED else {}


def _not_begun(run: PlannedRun, place: Place, state: str) -> RunResult:
    folder = place.folder(run)
    if state == FINISHED:
        return RunResult(run=run, status=FINISHED, summary=read_summary(folder), skipped=True)
    error = UserError(f"{folder} is damaged: its {CONFIG} or {SUMMARY} cannot be read", fix=MOVE_AWAY)
    return RunResult(run=run, status=FAILED, error=str(error))


def last_line(folder: Path) -> dict[str, Any]:
    """Return a run's newest metrics; empty where there are none yet, or none that can be read."""
    try:
        line = json.loads((folder / METRICS).read_text(encoding="utf-8").splitlines()[-1])
    except (OSError, ValueError, IndexError, RecursionError):
        return {}
    return line if isinstance(line, dict) and {"epoch", "images_per_s"} <= line.keys() else {}


def train_command(run: PlannedRun, place: Place) -> list[str]:
    """Return the command that begins a run, or goes on with it, as a person writes it."""
    out = place.folder(run)
    data = [word for one in given_of(place.data) for word in ("--data", one)]
    words = ["distill", "train", place.cache, *data, "--out", out]
    words += ["--recipe", config_file(run, place), *place.boards.options()]
    if code := place.code_of(run):
        words += ["--code", code]
    return [*map(str, words), *(["--resume"] if (out / CONFIG).is_file() else [])]


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Runs in processes of their own on this machine, ``jobs`` at once; each has its log in ``OUT/logs``."""

    jobs: int = 1

    def __call__(self, runs: Sequence[PlannedRun], place: Place, watch: Watch) -> list[RunResult]:
        """Do the runs; see :func:`run_sweep`."""
        waiting, results = list(runs), []
        running: dict[str, tuple[PlannedRun, subprocess.Popen[bytes]]] = {}
        (place.out / LOGS).mkdir(parents=True, exist_ok=True)
        with listening() as stop:
            try:
                while (waiting or running) and not stop.signal_number:
                    while waiting and len(running) < self.jobs:
                        run = waiting.pop(0)
                        watch.started(run)
                        running[run.name] = (run, self._start(run, place))
                    for run, process in list(running.values()):
                        if process.poll() is not None:
                            del running[run.name]
                            results.append(result_of(run, place, process.returncode))
                            watch.ended(results[-1])
                    time.sleep(POLL_S)
            finally:
                for _, process in running.values():
                    process.terminate()
                for _, process in running.values():
                    process.wait()
            if stop.signal_number:
                raise Stopped(stop.signal_number, str(place.out), again="the same command")
        return results

    def _start(self, run: PlannedRun, place: Place) -> subprocess.Popen[bytes]:
        environment = {**os.environ, PARENT: str(os.getpid())}
        if self.jobs > 1:
            # Threads that outnumber cores wait for each other.
            environment.setdefault("OMP_NUM_THREADS", str(max(1, cores() // self.jobs)))
        # Anew: an error of an earlier attempt is not this one's.
        with open(log_file(run, place), "wb") as log:
            # A session of its own: Ctrl-C is told to the sweep, which tells its runs. -P: a cli.py or cache/
            # of the user's own in the working folder is not taken for ours.
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "cli", *train_command(run, place)[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )


def log_file(run: PlannedRun, place: Place) -> Path:
    """Return where a run's own words go."""
    return place.out / LOGS / f"{run.name}.log"


def result_of(run: PlannedRun, place: Place, status: int) -> RunResult:
    """Return how a run ended whose process left with a status."""
    try:
        summary = read_summary(place.folder(run))
    except UserError:
        summary = {}
    log = log_file(run, place)
    if status == 0 and summary:
        return ended(run, summary)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    errors = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    if status == -signal.SIGKILL and not errors:
        errors = ["it was killed, most likely because the memory was full. Fix: give fewer --jobs."]
    last = errors or [line for line in lines if line.strip()] or [f"it left with status {status}"]
    return ended(run, last[-1], log)


def ended(run: PlannedRun, end: dict[str, Any] | object, log: Path | None = None) -> RunResult:
    """Return the result of a run that ended with a summary, or an error of which its ``log`` tells more."""
    if isinstance(end, dict):
        return RunResult(run=run, status=FINISHED, summary=end)
    return RunResult(run=run, status=FAILED, error=f"{end} (its log: {log})" if log else str(end))


def means_of(results: Sequence[RunResult]) -> list[dict[str, Any]]:
    """Return for every point ``n`` finished seeds, and the mean and deviation (``_std``) of ID and OOD.

    The splits are those of :func:`distill.headline.headline_splits`, the numbers of
    :func:`distill.headline.headline`. Deviations are of n - 1, None where n is 1; a mean is None where no run
    of the point has the metric.
    """
    means, splits = [], headline_splits([result.summary for result in results])
    for point in dict.fromkeys(result.run.point for result in results):
        ended = [r.summary for r in results if r.run.point == point and r.status == FINISHED]
        line: dict[str, Any] = {"point": point, "n": len(ended)}
        for split in splits:
            values = [value for summary in ended if (value := headline(summary, split)) is not None]
            line |= as_columns(split, values)
        means.append(line)
    return means


def chosen_point(results: Sequence[RunResult], split: str) -> tuple[str, float] | None:
    """Return the point of the highest mean on what is set aside, and that mean; None where none is judged.

    Of equals it is the first. ``split`` is one of :data:`distill.headline.SET_ASIDE`: no test chooses.
    """
    means: dict[str, float] = {}
    for point in dict.fromkeys(result.run.point for result in results):
        ended = [r.summary for r in results if r.run.point == point and r.status == FINISHED]
        values = [value for summary in ended if (value := headline(summary, split)) is not None]
        if values:
            means[point] = sum(values) / len(values)
    return max(means.items(), key=lambda one: one[1], default=None)
