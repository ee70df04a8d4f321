"""Run folders -> frozen values. What cannot be read is named, with the reason, and left out."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from cache.runtime.errors import UserError, reason_of
from cache.runtime.folder_kinds import is_instead
from cache.runtime.json_values import value_of
from cache.runtime.progress import Progress, Silent, counting
from distill.config import RoboticsConfig
from distill.data_identity import DataIdentity, Sides
from distill.judge.calibration import Calibration
from distill.judge.outputs import RunOutputs, load_outputs
from distill.record.run_files import CONFIG, METRICS, OUTPUTS, SUMMARY, SWEEP
from distill.settings import flat

DEPTH = 2
TEACHER = "teacher_metrics"
OBJECTS = "per_object_average_precision"
RESULTS = (
    *("_accuracy", "_loss", "_precision", "_recall", "_metrics", "_ece", "_auroc", "_mean", "_cosine"),
    *("seconds", "images_per_s"),
)
DEFAULT_QUESTION = "How do these runs compare?"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run as its folder tells it.

    ``settings`` are all of its config by dotted name, ``history`` one line of metrics an epoch; ``summary``
    is empty until the run has finished; ``outputs`` is None with the reason in ``note``. ``point`` is what
    the sweep that made it calls its settings, '' for none. ``identity`` is what the run was made from and
    judged on, ``data`` what that is called among the runs that were collected with it;
    ``calibration`` how far its probabilities can be believed, None of episodes.
    """

    name: str
    path: Path
    settings: dict[str, Any]
    config: str
    history: tuple[dict[str, Any], ...]
    summary: dict[str, Any]
    outputs: RunOutputs | None = None
    note: str = ""
    point: str = ""
    identity: DataIdentity | None = None
    data: str = ""
    calibration: Calibration | None = None

    @property
    def finished(self) -> bool:
        """Whether the run has its summary, which is written last."""
        return bool(self.summary)

    @property
    def seed(self) -> Any:
        """The run's seed."""
        return self.settings.get("train.seed")

    @property
    def epochs(self) -> str:
        """How many epochs it has trained, of how many."""
        return f"{len(self.history)} of {self.settings.get('train.epochs', '?')}"

    @property
    def episodes(self) -> bool:
        """Whether it is of episodes, which have several objects each; its summary tells."""
        return OBJECTS in self.summary

    def table(self, *names: str) -> dict[str, Any]:
        """Return a table of the summary, by the names that lead to it; empty where there is none."""
        value = self.summary
        for name in names:
            inner = value.get(name)
            value = inner if isinstance(inner, dict) else {}
        return value

    def number(self, *names: str) -> float | None:
        """Return a number of the summary, by the names that lead to it; None where there is none."""
        *tables, last = names
        value = self.table(*tables).get(last)
        return value if isinstance(value, int | float) else None


@dataclass(frozen=True, kw_only=True)
class Collected:
    """The runs of a folder, in the order of their sweep or names; ``unreadable`` are (name, reason).

    ``other_data`` says in what the data of the finished runs differ, where they do: of photos (False), and of
    episodes (True).
    """

    question: str
    finished: tuple[Run, ...]
    unfinished: tuple[Run, ...]
    unreadable: tuple[tuple[str, str], ...]
    other_data: dict[bool, tuple[str, ...]]

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """The runs that no number is of: (name, what they are)."""
        unfinished = ((run.name, f"is unfinished: {run.epochs} epochs") for run in self.unfinished)
        return (*unfinished, *((name, f"was skipped: {reason}") for name, reason in self.unreadable))


def collect(folder: Path, *, progress: Progress | None = None) -> Collected:
    """Read a run's folder, or every run one or two levels below a folder.

    Runs within a run (few-shot runs) are not looked for.

    Raises
    ------
    UserError
        If there is no run, or none that can be read.
    """
    paths = [folder] if (folder / CONFIG).is_file() else _in_order(_below(folder, DEPTH))
    if not paths:
        raise UserError(
            f"{folder} holds no run{is_instead(folder)}: no {CONFIG} in it, or up to {DEPTH} levels below",
            fix="give the folder of a run, or one that holds such folders.",
        )
    runs, unreadable = [], []
    progress = progress or Silent()
    progress.start(len(paths), "reading runs", "runs")
    for path in counting(progress, paths):
        name = str(path.relative_to(folder)) if path != folder else path.resolve().name
        try:
            runs.append(read_run(path, name))
        except UserError as error:
            unreadable.append((name, error.problem))
    if not runs:
        name, reason = unreadable[0]
        raise UserError(
            f"{folder}: none of its {len(unreadable)} runs can be read; {name}: {reason}",
            fix="train them anew, or give a folder of runs that this version wrote.",
        )
    finished, other_data = [], {}
    for episodes in (False, True):  # which never have data in common
        named, lines = _with_data([run for run in runs if run.finished and run.episodes == episodes])
        finished += named
        other_data[episodes] = tuple(lines)
    return Collected(
        question=_sweep(folder)[0] or DEFAULT_QUESTION,
        finished=tuple(finished),
        unfinished=tuple(run for run in runs if not run.finished),
        unreadable=tuple(unreadable),
        other_data=other_data,
    )


def _with_data(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Return the runs with a letter for the data of each, and what separates every other from the first.

    Runs have one letter where nothing separates them but what a setting chose, such as another text bank.
    """
    first: list[Run] = []  # of every letter
    named = []
    for run in runs:
        at = next((i for i, other in enumerate(first) if not data_differences(run, other)), len(first))
        if at == len(first):
            first.append(run)
        elif run.identity is not None and (joined := first[at].identity) is not None:
            first[at] = replace(first[at], identity=joined.joined(run.identity))
        named.append(replace(run, data=_letter(at)))
    lines = []
    for letter, other in ((_letter(i), run) for i, run in enumerate(first[1:], start=1)):
        differ = data_differences(other, first[0], (f"in {letter}", f"in {_letter(0)}"))
        lines.append(f"data {letter} is not data {_letter(0)}: {'; '.join(differ)}")
    return named, lines


def data_differences(one: Run, other: Run, sides: Sides = ("here", "there")) -> list[str]:
    """Return a line for everything that separates the data of two runs, and what of it was judged."""
    if one.identity is None or other.identity is None:
        neither = one.identity is other.identity
        return [] if neither else ["one of them does not say what it was made from"]
    return one.identity.differences(other.identity, sides) + _unread_differences(one, other, sides)


def judged_differences(one: Run, other: Run) -> list[str]:
    """Return the lines of :func:`data_differences` that are about what was judged, as far as they say it."""
    lines = _unread_differences(one, other)
    if one.identity is not None and other.identity is not None:
        lines += one.identity.judged_differences(other.identity)
    return lines


def _unread_differences(one: Run, other: Run, sides: Sides = ("here", "there")) -> list[str]:
    """Return a line for every split of which two runs could not read the same images."""
    lines = []
    for split in one.table("unreadable_images"):
        mine, theirs = (run.table("unreadable_images", split) for run in (one, other))
        if split in other.table("unreadable_images") and set(mine) != set(theirs):
            counts = f"{len(mine)} images could not be read {sides[0]}, {len(theirs)} {sides[1]}"
            lines.append(f"{split}: {counts}")
    return lines


def _letter(number: int) -> str:
    more, last = divmod(number, 26)
    return (_letter(more - 1) if more else "") + chr(ord("A") + last)


def _in_order(paths: Iterable[Path]) -> list[Path]:
    """Return runs sweep by sweep in the order that each plans, and others by name, 2 before 10."""

    def place(path: Path) -> Any:
        planned = list(_sweep(path.parent)[1])
        at = planned.index(path.name) if path.name in planned else len(planned)
        return natural(str(path.parent)), at, natural(path.name)

    return sorted(paths, key=place)


def natural(text: str) -> list[Any]:
    """Return what sorts texts as people do: numbers in them by their value."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [(0, float(part), "") if i % 2 else (1, 0.0, part) for i, part in enumerate(parts)]


@lru_cache(maxsize=64)
def _sweep(folder: Path) -> tuple[str, dict[str, str]]:
    """Return a sweep's question, and by name the point of every run that it planned; empty without one."""
    try:
        sweep = json.loads((folder / SWEEP).read_text(encoding="utf-8"))
        question = sweep.get("question")
        points = {str(run["name"]): str(run.get("point", "")) for run in sweep.get("runs", ())}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "", {}
    return question.strip() if isinstance(question, str) else "", points


def _below(folder: Path, depth: int) -> Iterator[Path]:
    for child in folder.iterdir():
        if child.is_dir() and (child / CONFIG).is_file():
            yield child
        elif child.is_dir() and depth > 1:
            yield from _below(child, depth - 1)


def _that_tell(metrics: dict[str, Any], summary: dict[str, Any]) -> dict[str, Any]:
    """Return metrics without what a split of one class has among itself: any answer is right."""
    classes = summary.get("classes")
    counts = classes.items() if isinstance(classes, dict) else ()
    alone = [split for split, count in counts if count == 1]

    def tells(name: str) -> bool:
        split = name.removesuffix("_accuracy").removesuffix("_loss").partition("@")[0]
        return split not in alone

    return {name: value for name, value in metrics.items() if tells(name)}


def _of_teacher(summary: dict[str, Any]) -> dict[str, Any]:
    told = summary.get(TEACHER)
    return {TEACHER: _that_tell(told, summary)} if isinstance(told, dict) else {}


def read_run(path: Path, name: str) -> Run:
    """Read one run's folder.

    Raises
    ------
    UserError
        If its config, metrics or summary is missing, damaged or not what a run writes.
    """
    try:
        config = (path / CONFIG).read_text(encoding="utf-8")
        # A config has no [robotics] where that is the default.
        settings = flat({"robotics": asdict(RoboticsConfig())}) | flat(tomllib.loads(config))
        history = [_json(line) for line in _text(path / METRICS).splitlines()]
        summary = _json(_text(path / SUMMARY) or "{}")
        if not all(isinstance(value, dict) for value in [*history, summary]):
            raise ValueError(f"{METRICS} or {SUMMARY} holds something other than numbers by name")
        _check_numbers(history, summary)
        identity = DataIdentity.from_json(summary["data"]) if "data" in summary else None
        told = summary.get("calibration")
        calibration = value_of(Calibration, told, name="calibration") if told is not None else None
    except (OSError, ValueError, RecursionError) as error:  # a ValueError of TOML, JSON or text decoding
        raise UserError(f"{path} cannot be read ({reason_of(error)})", fix="train it again.") from error
    outputs, note = None, f"no {OUTPUTS}" if summary else ""
    if summary and (path / OUTPUTS).exists():
        try:
            outputs, note = load_outputs(path / OUTPUTS), ""
        except UserError as error:
            note = error.problem
    return Run(
        name=name,
        path=path,
        settings=settings,
        config=config,
        history=tuple(_that_tell(line, summary) for line in history),
        summary=_that_tell(summary, summary) | _of_teacher(summary),
        outputs=outputs,
        note=note,
        point=_sweep(path.parent)[1].get(path.name, ""),
        identity=identity,
        calibration=calibration,
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _json(text: str) -> Any:
    """Return JSON without what is no number: no chart can show it, and no browser reads it."""
    return json.loads(text, object_hook=lambda table: {n: v for n, v in table.items() if not _is_odd(v)})


def _is_odd(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _check_numbers(history: Sequence[dict[str, Any]], summary: dict[str, Any]) -> None:
    """Raise a ValueError for a result that is no number, or an epoch without its own."""
    results = {name: value for name, value in summary.items() if name.endswith(RESULTS) or name == "space"}
    for name, value in flat(results).items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{name} of {SUMMARY} is {value!r:.40}")
    if not all(isinstance(line.get("epoch"), int) for line in history):
        raise ValueError(f"a line of {METRICS} has no epoch")
