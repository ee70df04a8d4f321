"""JSON that anybody may have written -> our frozen values: each of its type, each number within bounds."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

# What memory and time are taken by: the rows' length, pixels a side, views of an image, what is done to it.
LARGEST = {"embed_dim": 2**16, "image_size": 4096, "side": 4096, "views": 1000, "scale": 1}
LARGEST |= {"operations": 16, "magnitude": 30}
MOST = 2**62
Value = TypeVar("Value")


def value_of(hint: type[Value], given: Any, *, name: str) -> Value:
    """Return a JSON value as a type says it: a dataclass, tuple, dict, text, number, truth value or any.

    Raises
    ------
    ValueError
        If a field is missing, unknown, of another type or out of bounds; the message names it.
    """
    if hint is Any:
        return given
    if isinstance(hint, UnionType):
        return None if given is None else value_of(get_args(hint)[0], given, name=name)  # type: ignore[return-value]
    if from_json := getattr(hint, "from_json", None):
        return from_json(given)
    if is_dataclass(hint):
        return dataclass_of(hint, given, name=name)
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin is tuple:
        items = list(given) if isinstance(given, tuple) else _checked(list, given, name)
        return tuple(value_of(inner[0], item, name=name) for item in items)  # type: ignore[return-value]
    if origin is dict:
        table = _checked(dict, given, name)
        return {key: value_of(inner[1], item, name=f"{name} {key}") for key, item in table.items()}  # type: ignore[return-value]
    return _checked(hint, given, name)


def dataclass_of(hint: Any, given: Any, *, name: str) -> Any:
    """Return a JSON table as a dataclass; see :func:`value_of`."""
    table, (types, needed) = _checked(dict, given, name), _fields_of(hint)
    for odd, problem in ((needed - table.keys(), "has no"), (table.keys() - types, "has an unknown")):
        if odd:
            raise ValueError(f"{name:.80} {problem} {min(odd)!r:.80}")
    return hint(**{key: value_of(types[key], item, name=key) for key, item in table.items()})


# A journal has thousands of lines, and types are texts until they are looked up.
@cache
def _fields_of(hint: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """Return a dataclass's types by its fields' names, and the names of those that must be given."""
    needed = (f.name for f in fields(hint) if f.default is MISSING and f.default_factory is MISSING)
    return get_type_hints(hint), frozenset(needed)


def _checked(hint: Any, given: Any, name: str) -> Any:
    fits = isinstance(given, (int, float) if hint is float else hint)
    if hint in (int, float):
        fits = fits and not isinstance(given, bool)
        if hint is int or name in LARGEST:
            fits = fits and 0 <= given <= LARGEST.get(name, MOST)
    if not fits:
        raise ValueError(f"{name:.80} is {given!r:.80}, expected {hint.__name__}")
    return given
