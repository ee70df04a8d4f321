"""Run folders -> frozen values. What cannot be read is named, with the reason, and left out."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from cache.runtime.errors import UserError, reason_of
from distill.data_identity import DataIdentity
from distill.judge.outputs import RunOutputs, load_outputs
from distill.record.run_files import OUTPUTS

CONFIG, METRICS, SUMMARY, SWEEP = "config.toml", "metrics.jsonl", "summary.json", "sweep.json"
DEPTH = 2
RESULTS = (
    "_accuracy",
    "_loss",
    "_precision",
    "_metrics",
    "_ece",
    "_auroc",
    "_mean",
    "seconds",
    "images_per_s",
)
DEFAULT_QUESTION = "How do these runs compare?"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run as its folder tells it.

    ``settings`` are all of its config by dotted name, ``history`` one line of metrics an epoch; ``summary``
    is empty until the run has finished; ``outputs`` is None with the reason in ``note``. ``point`` is what
    the sweep that made it calls its settings, '' for none. ``identity`` is what the run was made from and
    judged on, ``data`` what that is called among the runs that were collected with it.
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
    def robotics(self) -> bool:
        """Whether its images have several objects each."""
        return "per_object_average_precision" in self.summary


@dataclass(frozen=True, kw_only=True)
class Collected:
    """The runs of a folder, in the order of their sweep or names; ``unreadable`` are (name, reason).

    ``other_data`` says in what the data of the finished runs differ, where they do.
    """

    question: str
    finished: tuple[Run, ...]
    unfinished: tuple[Run, ...]
    unreadable: tuple[tuple[str, str], ...]
    other_data: tuple[str, ...] = ()


def collect(folder: Path) -> Collected:
    """Read a run's folder, or every run one or two levels below a folder.

    Runs within a run (few-shot runs) are not looked for.

    Raises
    ------
    UserError
        If there is no run.
    """
    found = [folder] if (folder / CONFIG).is_file() else _in_order(_below(folder, DEPTH))
    if not found:
        raise UserError(
            f"{folder} holds no run: no {CONFIG} in it, or up to {DEPTH} levels below",
            fix="give the folder of a run, or one that holds such folders.",
        )
    runs, unreadable = [], []
    for path in found:
        name = str(path.relative_to(folder)) if path != folder else path.resolve().name
        try:
            runs.append(read_run(path, name))
        except UserError as error:
            unreadable.append((name, error.problem))
    finished, other_data = _with_data([run for run in runs if run.finished])
    return Collected(
        question=_question(folder),
        finished=tuple(finished),
        unfinished=tuple(run for run in runs if not run.finished),
        unreadable=tuple(unreadable),
        other_data=tuple(other_data),
    )


def _with_data(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Return the runs with a letter for the data of each, and what separates every other from the first.

    Runs have one letter where nothing separates them but what a setting chose, such as another text bank.
    """
    found: list[Run] = []
    named = []
    for run in runs:
        at = next((i for i, known in enumerate(found) if not data_differences(run, known)), len(found))
        if at == len(found):
            found.append(run)
        elif run.identity is not None and (known := found[at].identity) is not None:
            found[at] = replace(found[at], identity=known.joined(run.identity))
        named.append(replace(run, data=_letter(at)))
    lines = []
    for letter, other in ((_letter(i), run) for i, run in enumerate(found[1:], start=1)):
        differ = data_differences(other, found[0], here=f"in {letter}", there=f"in {_letter(0)}")
        lines.append(f"data {letter} is not data {_letter(0)}: {'; '.join(differ)}")
    return named, lines


def data_differences(one: Run, other: Run, *, here: str = "here", there: str = "there") -> list[str]:
    """Return a line for everything that separates the data of two runs, and what of it was judged."""
    if one.identity is None or other.identity is None:
        known = one.identity is other.identity
        return [] if known else ["one of them does not say what it was made from"]
    return one.identity.differences(other.identity, here=here, there=there) + unread_differences(
        one, other, here=here, there=there
    )


def judged_differences(one: Run, other: Run) -> list[str]:
    """Return the lines of :func:`data_differences` that are about what was judged, as far as it is known."""
    lines = unread_differences(one, other)
    if one.identity is not None and other.identity is not None:
        lines += one.identity.judged_differences(other.identity)
    return lines


def unread_differences(one: Run, other: Run, *, here: str = "here", there: str = "there") -> list[str]:
    """Return a line for every split of which two runs could not read the same images."""
    mine, theirs = (_dict_of(run.summary.get("unreadable_images")) for run in (one, other))
    return [
        f"{split}: {len(keys)} images could not be read {here}, {len(theirs[split])} {there}"
        for split, keys in mine.items()
        if set(keys) != set(theirs.get(split, keys))
    ]


def _dict_of(value: Any) -> dict[str, dict[str, Any]]:
    found = value if isinstance(value, dict) else {}
    return {name: keys for name, keys in found.items() if isinstance(keys, dict)}


def _letter(number: int) -> str:
    more, last = divmod(number, 26)
    return (_letter(more - 1) if more else "") + chr(ord("A") + last)


def _in_order(paths: Iterable[Path]) -> list[Path]:
    """Return runs sweep by sweep in the order that each plans, and others by name, 2 before 10."""

    def place(path: Path) -> Any:
        planned = list(_planned(path.parent))
        at = planned.index(path.name) if path.name in planned else len(planned)
        return natural(str(path.parent)), at, natural(path.name)

    return sorted(paths, key=place)


def natural(text: str) -> list[Any]:
    """Return what sorts texts as people do: numbers in them by their value."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [(0, float(part), "") if i % 2 else (1, 0.0, part) for i, part in enumerate(parts)]


@lru_cache(maxsize=64)
def _planned(folder: Path) -> dict[str, str]:
    """Return the point of every run that a sweep planned, by the run's name, in its order."""
    try:
        runs = json.loads((folder / SWEEP).read_text(encoding="utf-8"))["runs"]
        return {str(run["name"]): str(run.get("point", "")) for run in runs}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _below(folder: Path, depth: int) -> Iterator[Path]:
    for child in folder.iterdir():
        if child.is_dir() and (child / CONFIG).is_file():
            yield child
        elif child.is_dir() and depth > 1:
            yield from _below(child, depth - 1)


def read_run(path: Path, name: str) -> Run:
    """Read one run's folder.

    Raises
    ------
    UserError
        If its config, metrics or summary is missing, damaged or not what a run writes.
    """
    try:
        config = (path / CONFIG).read_text(encoding="utf-8")
        settings = dict(_dotted(tomllib.loads(config)))
        metrics = path / METRICS
        lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
        history = [_finite(json.loads(line)) for line in lines]
        summary = _finite(_summary(path))
        if not all(isinstance(value, dict) for value in [*history, summary]):
            raise ValueError(f"{METRICS} or {SUMMARY} holds something other than numbers by name")
        _check_numbers(history, summary)
        identity = DataIdentity.from_json(summary["data"]) if "data" in summary else None
    except (OSError, ValueError, RecursionError) as error:  # TOML, JSON and text decoding errors are kinds
        raise UserError(f"{path} cannot be read ({reason_of(error)})", fix="train it again.") from error
    outputs, note = _read_outputs(path) if summary else (None, "")
    return Run(
        name=name,
        path=path,
        settings=settings,
        config=config,
        history=tuple(history),
        summary=summary,
        outputs=outputs,
        note=note,
        point=_planned(path.parent).get(path.name, ""),
        identity=identity,
    )


def _finite(value: Any) -> Any:
    """Return JSON without what is no number: no chart can show it, and no browser reads it."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items() if not _is_odd(part)}
    if isinstance(value, list):
        return [_finite(part) for part in value if not _is_odd(part)]
    return value


def _is_odd(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _check_numbers(history: Sequence[dict[str, Any]], summary: dict[str, Any]) -> None:
    """Raise a ValueError for a result that is no number, or an epoch without its own."""
    flat: dict[str, Any] = {}
    for name in summary:
        if name.endswith(RESULTS) or name == "space":
            flat |= dict(_leaves(summary[name], name))
    for name, value in flat.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{name} of {SUMMARY} is {value!r:.40}")
    if not all(isinstance(line.get("epoch"), int) for line in history):
        raise ValueError(f"a line of {METRICS} has no epoch")


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield name, value
        return
    for key, part in value.items():
        yield from _leaves(part, f"{name}/{key}")


def _summary(path: Path) -> Any:
    file = path / SUMMARY
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _read_outputs(path: Path) -> tuple[RunOutputs | None, str]:
    if not (path / OUTPUTS).exists():
        return None, f"no {OUTPUTS}"
    try:
        return load_outputs(path / OUTPUTS), ""
    except UserError as error:
        return None, error.problem


def _dotted(table: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _question(folder: Path) -> str:
    """Return the sweep's question, where there is a sweep with one."""
    try:
        found = json.loads((folder / SWEEP).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return DEFAULT_QUESTION
    question = found.get("question") if isinstance(found, dict) else None
    return question if isinstance(question, str) and question.strip() else DEFAULT_QUESTION
