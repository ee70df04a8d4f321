"""A run's config as TOML, and its settings by their names.

A recipe is a TOML file of a config's sections; ``--set section.key=value`` changes one value.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from cache.runtime.atomic_files import read_text
from cache.runtime.errors import UserError, WrongOption, nearest_names, reason_of
from distill.config import RoboticsConfig, RunConfig, require

T = TypeVar("T")
RECIPES = Path(__file__).parent / "recipes"


def recipe_names() -> list[str]:
    """Return the names of the built-in recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(name: str) -> RunConfig:
    """Return a built-in recipe by its name, or one in a TOML file by its path.

    Raises
    ------
    UserError
        If there is none, it is not TOML, or a key or value in it is wrong.
    """
    names = recipe_names()
    path = RECIPES / f"{name}.toml" if name in names else Path(name)
    if not path.is_file():
        raise UserError(
            f"no recipe is called {name!r}",
            fix=f"{nearest_names(name, names)}choose from {', '.join(names)}, or give a TOML file.",
        )
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
        return _loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: of a number of too many digits as well
        raise UserError(f"{where} is not TOML ({reason_of(error)})", fix="mend that line.") from error


def _loads(text: str) -> dict[str, Any]:
    table = tomllib.loads(text)
    _check_numbers(table)
    return table


def _check_numbers(value: Any) -> None:
    """Refuse what is no number to TOML, but to Python: neither a float nor, beyond some digits, a text."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _check_numbers(part)
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("a number has more than 64 bits")


def _built(section: type[T], table: dict[str, Any], *, prefix: str) -> T:
    hints = get_type_hints(section)
    values = {}
    for name, value in table.items():
        if name not in hints:
            raise UserError(
                f"{prefix}{name} is not a setting",
                fix=f"{nearest_names(name, hints)}settings here are {', '.join(sorted(hints))}.",
            )
        values[name] = _value(hints[name], value, f"{prefix}{name}")
    return section(**values)


def _value(hint: Any, value: Any, name: str) -> Any:
    if is_dataclass(hint):
        require(isinstance(value, dict), f"{name} is {value!r:.80}, expected a section", f"write [{name}].")
        return _built(hint, value, prefix=f"{name}.")  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        example = f"[{_example(inner)}]"
        require(
            isinstance(value, list), f"{name} is {value!r:.80}, expected a list", f"write {name} = {example}."
        )
        return tuple(_value(inner, item, name) for item in value)
    if get_origin(hint) in (Union, UnionType):
        raise TypeError(f"{name}: settings have one type")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, bool | int | float):
        # A bare word that TOML reads as something else. Which words there are is stated where it is used.
        return _toml(value)
    wrong = not isinstance(value, hint) or (hint is not bool and isinstance(value, bool))
    expected = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[hint]
    require(not wrong, f"{name} is {value!r:.80}, expected {expected}", f"write {name} = {_example(hint)}.")
    return value


def _example(hint: Any) -> str:
    return {int: "10", float: "0.5", bool: "true", str: '"name"'}[hint]


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
        values[name.strip()] = _parsed(value.strip())
    return values


def with_values(config: RunConfig, values: Mapping[str, Any], *, where: str = "") -> RunConfig:
    """Return ``config`` with other values of some settings, by dotted name; ``where`` begins an error.

    Raises
    ------
    UserError
        If a name is unknown or a value of the wrong type.
    """
    table = asdict(config)
    for name, value in values.items():
        *sections, key = name.split(".")
        place: Any = table
        for section in sections:
            if not isinstance(place.get(section), dict):
                raise _unknown(name, table, where)
            place = place[section]
        if key not in place or isinstance(place[key], dict):
            raise _unknown(name, table, where)
        place[key] = value
    return _built(RunConfig, _lists(table), prefix="")


def _unknown(name: str, table: dict[str, Any], where: str) -> UserError:
    names = [f"{s}.{key}" for s, part in table.items() if isinstance(part, dict) for key in part]
    names += [key for key, part in table.items() if not isinstance(part, dict)]
    near = nearest_names(name, names)
    section = name.partition(".")[0]
    here = [key for key in names if key.startswith(f"{section}.")] or names
    return UserError(f"{where}{name} is not a setting", fix=f"{near}settings here are {', '.join(here)}.")


def _parsed(text: str) -> Any:
    try:
        return _loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lists(item) for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def to_toml(config: RunConfig) -> str:
    """Return ``config`` as TOML that :func:`from_toml` reads back; ``[robotics]`` only where it is needed."""
    plain = [f for f in fields(config) if not is_dataclass(getattr(config, f.name))]
    lines = [f"{f.name} = {_toml(getattr(config, f.name))}" for f in plain]
    for section in (f for f in fields(config) if f not in plain):
        value = getattr(config, section.name)
        if value == RoboticsConfig():
            continue
        lines += ["", f"[{section.name}]"]
        lines += [f"{f.name} = {_toml(getattr(value, f.name))}" for f in fields(value)]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    return f"[{', '.join(map(_toml, value))}]" if isinstance(value, tuple) else repr(value)


def differences(one: RunConfig, other: RunConfig) -> list[str]:
    """Return one ``section.key: here -> there`` line for every setting that differs."""
    lines = []
    for name, mine in asdict(one).items():
        theirs = asdict(other)[name]
        if isinstance(mine, dict):
            lines += [
                f"{name}.{key}: {mine[key]} -> {theirs[key]}" for key in mine if mine[key] != theirs[key]
            ]
        elif mine != theirs:
            lines.append(f"{name}: {mine} -> {theirs}")
    return lines


def with_part(config: RunConfig, section: str, **values: Any) -> RunConfig:
    """Return ``config`` with values of one section replaced."""
    return replace(config, **{section: replace(getattr(config, section), **values)})
