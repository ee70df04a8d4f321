"""A sweep: one base recipe, what is changed in it, and the seeds -> runs with names and configs.

    question = "Does k of vlalign matter?"
    recipe = "paper-resnet18"
    seeds = [0, 1, 2]

    [base]                      # for every run
    loss.vlalign = 1.0

    [grid]                      # every combination
    loss.vlalign_k = [16, 64, 256]
    loss.vlalign_filter = [false, true]

``[one_at_a_time]`` changes one setting of the base after the other, and keeps the base itself; each
``[[runs]]`` is a list of settings with an optional ``name``. All may be in one file, and in all of them
``recipe`` may be changed like a setting.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.runtime.atomic_files import read_text
from cache.runtime.errors import UserError, WrongOption, nearest_names
from cache.runtime.machine_limits import RUNS
from distill.config import RunConfig
from distill.config_fields import require
from distill.settings import flat, load_recipe, parsed_settings, toml_file, toml_table, with_values
from distill.student.own_code import with_code

SWEEPS = Path(__file__).parents[1] / "recipes" / "sweeps"
KEYS = ("question", "recipe", "seeds", "base", "grid", "one_at_a_time", "runs")
SEED, RECIPE = "train.seed", "recipe"
Settings = dict[str, Any]
# What a file system allows, less what a config and its temporary file add.
NAME_BYTES = 200


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of a sweep: its name, which is its folder's, what it changes in the base, and its config."""

    name: str
    point: str
    settings: Settings
    seed: int
    config: RunConfig


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The runs of a sweep, seed after seed of each point, and the question that they answer."""

    question: str
    runs: tuple[PlannedRun, ...]


def load_sweep(name: str, *, settings: Sequence[str] = ()) -> Sweep:
    """Return the sweep in a TOML file, or one that comes with the package by its name.

    ``settings`` (``section.key=value``) are put over the base of every run.

    Raises
    ------
    UserError
        If there is none, it is not TOML, a key or value in it is wrong, a grid is empty, or two runs have
        the same name or the same settings; a :class:`cache.runtime.errors.WrongOption` if it is so with
        ``settings`` alone.
    """
    path = toml_file(name, SWEEPS, what="sweep")
    table = _beside(toml_table(read_text(path), where=str(path)), path.parent)
    require(
        bool(table), f"{path} says nothing", f"a sweep has {', '.join(KEYS)}: 'distill sweep losses' is one."
    )
    over = parsed_settings(settings)
    try:
        return _sweep(table, path.stem, over)
    except UserError as error:
        try:
            _sweep(table, path.stem, {})
        except UserError as of_file:
            raise UserError(f"{path}: {of_file.problem}", fix=of_file.fix) from of_file
        raise WrongOption(f"--set {' '.join(settings)}: {error.problem}", fix=error.fix) from error


def _beside(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a sweep whose recipe, where it is a file beside the sweep's, is named from anywhere."""
    recipe = table.get(RECIPE)
    if not isinstance(recipe, str) or Path(recipe).is_file() or not (folder / recipe).is_file():
        return table
    return {**table, RECIPE: str(folder / recipe)}


def _sweep(table: dict[str, Any], name: str, over: Settings) -> Sweep:
    for key in table:
        require(
            key in KEYS,
            f"{key} is not a key of a sweep",
            f"{nearest_names(key, KEYS)}a sweep has {', '.join(KEYS)}; settings stand below [base].",
        )
    question, recipe = table.get("question", f"sweep {name}"), table.get(RECIPE, "paper-resnet18")
    require(
        isinstance(question, str), f"question is {question!r}, expected a text", 'write question = "...".'
    )
    settings = {**_section(table, "base"), **over}
    base = _config({RECIPE: recipe, **settings})
    runs = [
        PlannedRun(
            name=f"{point},seed={seed}",
            point=point,
            settings=changed,
            seed=seed,
            config=_config({RECIPE: recipe, **settings, **changed, SEED: seed}),
        )
        for point, changed in _points(table)
        for seed in _seeds(table.get("seeds", [base.train.seed]))
    ]
    _check_apart(runs, [*settings, *(key for run in runs for key in run.settings)])
    varied = [key for key in over if any(key in run.settings for run in runs)]
    require(
        not varied,
        f"{', '.join(varied)} is what the runs of this sweep differ in",
        "change the file, or leave that setting out.",
    )
    return Sweep(question=question, runs=tuple(runs))


def _config(values: Settings) -> RunConfig:
    """Return the config of a recipe with other values of some settings, as a run of it keeps it."""
    recipe = values[RECIPE]
    require(isinstance(recipe, str), f"recipe is {recipe!r}, expected a text", 'write recipe = "...".')
    given = {name: value for name, value in values.items() if name != RECIPE}
    return with_code(with_values(load_recipe(recipe), given), None, ())[0]


def _seeds(given: Any) -> list[int]:
    fine = isinstance(given, list) and given != [] and all(type(seed) is int and seed >= 0 for seed in given)
    expected = f"seeds is {given!r}, expected whole numbers of at least 0"
    require(fine, expected, "write seeds = [0, 1, 2].")
    require(len(set(given)) == len(given), f"seeds is {given!r}", "give each seed once.")
    return given


def _check_apart(runs: Sequence[PlannedRun], keys: Sequence[str]) -> None:
    require(SEED not in keys, f"{SEED} is among the settings", "give seeds = [0, 1, 2] instead.")
    names: set[str] = set()
    configs: dict[RunConfig, str] = {}
    for run in runs:
        size = len(run.name.encode())
        require(
            size <= NAME_BYTES,
            f"the name {run.name:.60}... has {size} bytes, more than {NAME_BYTES}",
            "list these runs as [[runs]], each with a shorter name.",
        )
        # Some disks do not tell large letters from small ones.
        require(
            run.name.casefold() not in names,
            f"two runs are called {run.name!r}",
            "give one of them another name in [[runs]], or take one of them out.",
        )
        names.add(run.name.casefold())
        same = configs.setdefault(run.config, run.name)
        alike = f"the runs {same!r} and {run.name!r} have the same settings"
        require(same == run.name, alike, "take one of them out.")


def _points(table: dict[str, Any]) -> list[tuple[str, Settings]]:
    """Return every point's name and what it changes in the base."""
    points = list(_changes(table))
    last = {key: key.rpartition(".")[2] for changed, _ in points for key in changed}
    often = Counter(last.values())
    label = {key: key if often[short] > 1 else short for key, short in last.items()}
    return [
        (name or ",".join(f"{label[k]}={_spelt(value)}" for k, value in changed.items()) or "base", changed)
        for changed, name in points
    ]


def _changes(table: dict[str, Any]) -> Iterator[tuple[Settings, str]]:
    """Yield what every point changes, and its own name where it has one."""
    listed = table.get("runs", [])
    require(
        isinstance(listed, list) and all(isinstance(run, dict) for run in listed),
        f"runs is {listed!r}, expected tables",
        "write [[runs]] above the settings of each.",
    )
    if not any(key in table for key in ("grid", "one_at_a_time", "runs")):
        yield {}, ""
    if "grid" in table:
        grid = _lists(table, "grid")
        count = math.prod(map(len, grid.values()))
        require(count <= RUNS, f"[grid] has {count:,} combinations", f"give at most {RUNS:,}.")
        for values in itertools.product(*grid.values()):
            yield dict(zip(grid, values, strict=True)), ""
    if "one_at_a_time" in table:
        yield {}, ""
        for key, singles in _lists(table, "one_at_a_time").items():
            yield from (({key: value}, "") for value in singles)
    require(listed != [] or "runs" not in table, "runs is empty", "write [[runs]] above each run's settings.")
    for run in listed:
        name = run.get("name", "")
        require(
            isinstance(name, str) and bool(re.fullmatch(r"[\w.,+=-]*", name)) and not name.startswith("."),
            f"the name {name!r} of a run cannot name a folder",
            "use letters, digits, '.', ',', '_', '+', '=' and '-'.",
        )
        yield flat({k: v for k, v in run.items() if k != "name"}), name


def _section(table: dict[str, Any], name: str) -> Settings:
    value = table.get(name, {})
    require(isinstance(value, dict), f"{name} is {value!r}, expected a section", f"write [{name}].")
    return flat(value)


def _lists(table: dict[str, Any], name: str) -> dict[str, list[Any]]:
    lists = _section(table, name)
    fix = f"list values, like loss.vlalign_k = [16, 64], or drop [{name}]."
    require(bool(lists), f"[{name}] is empty", fix)
    for key, values in lists.items():
        expected = f"{key} of [{name}] is {values!r}, expected a list of at least one value"
        require(isinstance(values, list) and values != [], expected, f"write {key} = [..., ...].")
    return lists


def _spelt(value: Any) -> str:
    """Return a value as a part of a folder's name."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, list):
        return "+".join(_spelt(part) for part in value) or "none"
    return re.sub(r"[^\w.+-]+", "-", str(value)) or "none"
