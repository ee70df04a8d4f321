"""How a cache was made, as its manifest keeps it: enough to make any part of it again."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from cache.spec import LOCAL_DIR

Options = TypeVar("Options")
# What changes no number of a cache: another machine may want other values.
NOT_KEPT = ("device", "workers", "strict", "rebuild", "cluster", "compile")


def described(command: str, data: Path, options: Any) -> dict[str, Any]:
    """Return what a manifest says of a command: its name, its data folder, its options, with whole paths."""
    given = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in NOT_KEPT}
    given |= {name: anywhere(given[name]) for name in ("model", "pretrained") if given[name]}
    return {
        "command": command,
        "data": str(data.resolve()),
        "options": {name: _plain(value) for name, value in given.items()},
    }


def options_of(kind: type[Options], made_by: dict[str, Any], **changed: Any) -> Options:
    """Return the options that a manifest keeps, with other values for some of them.

    Raises
    ------
    TypeError
        If there is one that this version does not know.
    """
    given = {name: _back(name, value) for name, value in made_by["options"].items()}
    return kind(**{**given, **{name: value for name, value in changed.items() if value is not None}})


def anywhere(name: str) -> str:
    """Return a model or its weights so that it is found from any working folder."""
    kind = LOCAL_DIR if name.startswith(LOCAL_DIR) else ""
    path = Path(name.removeprefix(kind))
    return f"{kind}{path.resolve()}" if path.exists() else name


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return str(value.resolve()) if isinstance(value, Path) else value


PATHS = ("label2text", "descriptions", "negative_descriptions", "captions", "text_files")


def _back(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_back(name, part) for part in value)
    return Path(value) if name in PATHS and value is not None else value
