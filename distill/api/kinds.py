"""Whether an argument is of a kind that its annotation names: else Python's own error would not say which."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from inspect import Parameter, signature
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cache.runtime.errors import UserError, nearest_names


@cache
def kinds_of(function: Callable[..., Any], more: type | None = None) -> dict[str, Any]:
    """Return the annotation of each argument of a function, ``more`` a TypedDict of those by name alone."""
    arguments = signature(function, eval_str=True).parameters.values()
    own = {one.name: one.annotation for one in arguments if one.kind is not Parameter.VAR_KEYWORD}
    unsaid = {name: Any for name, kind in own.items() if kind is Parameter.empty}
    return own | unsaid | (get_type_hints(more) if more else {})


def check_kinds(given: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Refuse an argument, or a part of a list, of no kind that its annotation names; UserError names it."""
    for name, value in given.items():
        _check(name, value, kinds[name])


def _check(name: str, value: Any, annotation: Any) -> None:
    kinds = _alternatives(annotation)
    # What is annotated as a text within another module's alias is known there alone.
    if any(kind is Any or isinstance(kind, str) for kind in kinds):
        return
    fitting = [kind for kind in kinds if _is(value, kind)]
    if not fitting:
        raise UserError(f"{name} is {value!r:.80}", fix=_fix(value, kinds))
    for kind in fitting:
        if isinstance(value, list | tuple) and get_args(kind):
            for one in value:
                _check(f"one of {name}", one, get_args(kind)[0])


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in (Union, UnionType):
        return tuple(kind for one in get_args(annotation) for kind in _alternatives(one))
    return (annotation,)


def _is(value: Any, kind: Any) -> bool:
    kind, choices = get_origin(kind) or kind, get_args(kind)
    if kind is Literal:
        return isinstance(value, str) and value in choices
    if kind in (int, float):  # numpy's too; a truth value is an int of Python's, and an int does for a float
        number = isinstance(value, Real) and not isinstance(value, bool)
        return number and (kind is float or isinstance(value, Integral))
    if _is_list(kind):  # an array or a set does for a list; a text is one too, of letters
        return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    return isinstance(value, kind)


def _is_list(kind: Any) -> bool:
    return issubclass(kind, Iterable) and not issubclass(kind, str | Mapping)


def _fix(value: Any, kinds: tuple[Any, ...]) -> str:
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    if choices:
        near = nearest_names(value, choices) if isinstance(value, str) else ""
        return f"{near}choose from {', '.join(choices)}."
    if isinstance(value, str) and any(_is_list(get_origin(kind) or kind) for kind in kinds):
        return f"give {[value]!r:.80}."
    names = (kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind) for kind in kinds)
    plain = (re.sub(r"[a-z_]+[.]|'", "", name).replace("NoneType", "None") for name in names)
    return f"give {' or '.join(plain)}."
