"""A run's config as TOML, and its settings by their names.

A recipe is a TOML file of a config's sections; ``--set section.key=value`` changes one value.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from cache.runtime.atomic_files import read_text
from cache.runtime.errors import UserError, WrongOption, nearest_names, reason_of
from distill.config import RoboticsConfig, RunConfig
from distill.config_fields import require

T = TypeVar("T")
RECIPES = Path(__file__).parent / "recipes"
# What other programs, and other commands here, call our settings and options.
OTHER_WORDS = {
    "backbone": "arch",
    "baseline": "closed_set",
    "config": "recipe",
    "gpu": "device",
    "img_size": "image_size",
    "json": "format",
    "learning_rate": "lr",
    "model": "arch",
    "neighbours": "nearest_images",
    "neighbors": "neighbours",
    "num_workers": "workers",
    "output": "out",
    "output_dir": "out",
    "pretrained": "start",
    "resolution": "image_size",
    "scheduler": "schedule",
    "student": "arch",
    "texts": "text_share",
    "views": "replay_views",
    "wd": "weight_decay",
    "weights": "start",
}
EXAMPLES = {int: "10", float: "0.5", bool: "true", str: '"name"'}


def names_in(folder: Path) -> list[str]:
    """Return the names of the TOML files in a folder."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def toml_file(name: str, folder: Path, *, what: str) -> Path:
    """Return a folder's TOML file by its name, or another by its path; UserError if it is neither."""
    names = names_in(folder)
    path = folder / f"{name}.toml" if name in names else Path(name)
    if not path.is_file():
        if path.suffix == ".toml":
            raise UserError(f"the {what} {name} does not exist", fix="check the path.")
        raise UserError(
            f"no {what} is called {name!r}",
            fix=f"{nearest_names(name, names)}choose from {', '.join(names)}, or give a TOML file.",
        )
    return path


def load_recipe(name: str) -> RunConfig:
    """Return a built-in recipe by its name, or one in a TOML file by its path.

    Raises
    ------
    UserError
        If there is none, it is not TOML, or a key or value in it is wrong.
    """
    path = toml_file(name, RECIPES, what="recipe")
    return from_toml(read_text(path), where=str(path))


def from_toml(text: str, *, where: str) -> RunConfig:
    """Return the config that a TOML text holds; ``where`` is named in errors."""
    table = toml_table(text, where=where)
    try:
        return _built(RunConfig, table, prefix="")
    except UserError as error:
        raise UserError(f"{where}: {error.problem}", fix=error.fix) from error


def toml_table(text: str, *, where: str) -> dict[str, Any]:
    """Return what a TOML text says; UserError that names ``where`` if it is not TOML."""
    try:
        table = tomllib.loads(text)
        _check_numbers(table)
        return table
    except (ValueError, RecursionError) as error:  # ValueError: of a number of too many digits as well
        raise UserError(f"{where} is not TOML ({reason_of(error)})", fix="mend that line.") from error


def _check_numbers(value: Any) -> None:
    """Refuse what is no number to TOML, but to Python: neither a float nor, beyond some digits, a text."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _check_numbers(part)
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("a number has more than 64 bits")


def _built(section: type[T], table: dict[str, Any], *, prefix: str) -> T:
    hints = get_type_hints(section)
    fixes = {one.name: one.metadata.get("fix", "") for one in fields(section)}  # type: ignore[arg-type]
    values = {}
    for name, value in table.items():
        if name not in hints:
            raise UserError(
                f"{prefix}{name} is not a setting",
                fix=f"{nearest_names(name, hints)}settings here are {', '.join(sorted(hints))}.",
            )
        values[name] = _value(hints[name], value, f"{prefix}{name}", fix=fixes[name])
    return section(**values)


def _value(hint: Any, value: Any, name: str, *, fix: str = "") -> Any:
    if is_dataclass(hint):
        require(isinstance(value, dict), f"{name} is {value!r:.80}, expected a section", f"write [{name}].")
        return _built(hint, value, prefix=f"{name}.")  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        example = fix or f"write {name} = [{EXAMPLES[inner]}]."
        require(isinstance(value, list | tuple), f"{name} is {value!r:.80}, expected a list", example)
        return tuple(_value(inner, item, name) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, bool | int | float):
        # A bare word that TOML reads as something else. Which words there are is stated where it is used.
        return toml_value(value)
    wrong = not isinstance(value, hint) or (hint is not bool and isinstance(value, bool))
    expected = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[hint]
    if hint in (int, float) and isinstance(value, str) and value.lstrip("+-").isdecimal():
        expected += " of at most 64 bits"  # a text since TOML has no such number
    require(not wrong, f"{name} is {value!r:.80}, expected {expected}", f"write {name} = {EXAMPLES[hint]}.")
    return value


def with_settings(config: RunConfig, settings: Sequence[str]) -> RunConfig:
    """Return ``config`` with ``section.key=value`` settings applied; a bare word is a text.

    Raises
    ------
    WrongOption
        If a setting has no ``=``, an unknown name or a value of the wrong type.
    """
    values = parsed_settings(settings)
    try:
        return with_values(config, values, where="--set ")
    except UserError as error:
        raise WrongOption(error.problem, fix=error.fix) from error


def parsed_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Return ``section.key=value`` settings as values by dotted name; WrongOption where there is no ``=``."""
    values = {}
    for setting in settings:
        name, separator, value = setting.partition("=")
        if not separator:
            raise WrongOption(f"--set {setting!r} has no '='", fix="write --set section.key=value.")
        values[name.strip()] = parsed_value(value.strip())
    return values


def with_values(config: RunConfig, values: Mapping[str, Any], *, where: str = "") -> RunConfig:
    """Return ``config`` with other values of some settings, by dotted name; ``where`` begins an error.

    Raises
    ------
    UserError
        If a name is unknown or a value of the wrong type.
    """
    table = asdict(config)
    # Those of the run itself last.
    names = sorted(flat(table), key=lambda name: "." not in name)
    for name, value in values.items():
        if name not in names:
            raise UserError(f"{where}{name} is not a setting", fix=_meant(name, names))
        section, _, key = name.rpartition(".")
        (table[section] if section else table)[key] = value
    return _built(RunConfig, table, prefix="")


def _meant(name: str, names: Sequence[str]) -> str:
    """Return which setting an unknown name may mean: of its section, or by its last word alone."""
    section, _, last = name.rpartition(".")
    ends = [other for other in names if other.rpartition(".")[2] == last]
    if (word := other_word(name, names)) is not None:
        ends = [word]
    near = f"did you mean {' or '.join(map(repr, ends))}? " if ends else nearest_names(name, names)
    here = [other for other in names if section and other.startswith(f"{section}.")]
    if here or not near:
        return f"{near}settings here are {', '.join(here or names)}."
    return f"{near}a setting is written section.key, as 'distill recipes head-first' prints them."


def other_word(name: str, choices: Iterable[str]) -> str | None:
    """Return which of some options or settings goes by another word, ``section.`` before it; None: none."""
    section, dot, last = name.casefold().replace("-", "_").rpartition(".")
    meant = section + dot + OTHER_WORDS.get(last, "")
    return next((choice for choice in choices if choice.replace("-", "_") == meant), None)


def setting_called(name: str) -> str:
    """Return the setting whose last word is an option's name, as weight-decay's is; '' if there is none."""
    last = {setting.rpartition(".")[2]: setting for setting in flat(asdict(RunConfig()))}
    del last["name"]  # an optimizer's: who writes --name has another in mind
    return last.get(other_word(name, last) or name.replace("-", "_"), "")


def flat(table: dict[str, Any]) -> dict[str, Any]:
    """Return the values of nested tables by dotted name."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        inner = flat(value) if isinstance(value, dict) else {"": value}
        values |= {f"{key}.{name}" if name else key: leaf for name, leaf in inner.items()}
    return values


def parsed_value(text: str) -> Any:
    """Return a TOML value; what is none is a text."""
    try:
        return toml_table(f"value = {text}", where=text)["value"]
    except UserError:
        return text


def to_toml(config: RunConfig) -> str:
    """Return ``config`` as TOML that :func:`from_toml` reads back; ``[robotics]`` only where it is needed."""
    plain, sections = [], []
    for name, value in ((f.name, getattr(config, f.name)) for f in fields(config)):
        if not is_dataclass(value):
            plain.append(f"{name} = {toml_value(value)}")
        elif value != RoboticsConfig():
            sections += ["", f"[{name}]"]
            sections += [f"{f.name} = {toml_value(getattr(value, f.name))}" for f in fields(value)]
    return "\n".join([*plain, *sections, ""])


def toml_value(value: Any) -> str:
    """Return a number, text, truth value or list of them as TOML: JSON, but for floats that JSON lacks."""
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def differences(one: RunConfig, other: RunConfig) -> dict[str, str]:
    """Return a line ``section.key: here -> there`` for every setting that differs, by its name."""
    mine, theirs = flat(asdict(one)), flat(asdict(other))
    return {name: f"{name}: {mine[name]} -> {theirs[name]}" for name in mine if mine[name] != theirs[name]}


def with_part(config: RunConfig, section: str, **values: Any) -> RunConfig:
    """Return ``config`` with values of one section replaced."""
    return replace(config, **{section: replace(getattr(config, section), **values)})
