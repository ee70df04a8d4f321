"""What an error says to a caller of Python: arguments by their names, where commands have options."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from cache.runtime.errors import UserError, nearest_names
from distill.api.kinds import check_kinds, kinds_of
from distill.settings import parsed_value, setting_called

P = ParamSpec("P")
R = TypeVar("R")
# What options are called as arguments and settings, where it is not their own name; and arguments of another
# function than the one that is called.
_CALLED = {
    **{name: name for name in ("vocabulary", "formats", "precisions", "data", "teacher")},
    **{f"{name}_column": f"columns {name}" for name in ("path", "image", "label", "split", "key", "caption")},
    "keep_text_tower": "keep_text_tower=True",
    "preprocess": "preprocessing",
    "template": "templates",
    "text_file": "text_files",
    "set": "settings",
    "start": "student.start",
    "prompts": "prompts.learner",
}
# A command is left as it is: who calls from Python can run one too.
_COMMAND = r"'(?:distill|ray|npm|pip) [^']*'|\b(?:distill|pip|cache add-texts|cache-features)\b[^,;()]*"
_SETTING = r"--set (?P<setting>[a-z_]+(?:\.[a-z_]+)?)(?:=(?P<value>[^\s,;)]*[^\s,;).]))?"
# What follows an option is its value where that is a number or one of these, else the sentence goes on.
_VALUE = (
    r"\d+(?:\.\d+)?|FILE|timm:NAME|auto|cpu|float32|float16|bfloat16|scratch|pretrained|labels|descriptions|default|outside|"
    "graph|static|qat|coop|linear|means|train"
)
_OPTION = rf"(?<![\w-])--(?P<option>[a-z][a-z0-9-]*)(?: (?P<of>(?:{_VALUE})(?!,?[\w-])))?"
_WORDS = re.compile(f"(?P<command>{_COMMAND})|{_SETTING}|{_OPTION}")


def told_in_python(more: type | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return what has a function's errors name its arguments, and those of ``more``, a TypedDict.

    An argument of no kind that its annotation names is refused.
    """

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def told(*args: P.args, **kwargs: P.kwargs) -> R:
            kinds = kinds_of(function, more)
            if unknown := next((name for name in kwargs if name not in kinds), None):
                raise _unknown(function, unknown, kinds)
            try:
                check_kinds({**dict(zip(kinds, args, strict=False)), **kwargs}, kinds)
                return function(*args, **kwargs)
            except UserError as error:
                error.reworded(partial(in_python, kinds=kinds))
                raise

        return told

    return decorated


def _unknown(function: Callable[..., Any], name: str, arguments: Mapping[str, Any]) -> TypeError:
    """Return Python's own error for an argument that is none, and what may be meant."""
    meant = nearest_names(name, arguments).rstrip()
    if "settings" in arguments and (setting := setting_called(name)):
        meant = f'a setting is given as settings={{"{setting}": ...}}'
    told = f"{function.__name__}() got an unexpected keyword argument {name!r}"
    return TypeError(f"{told}: {meant}" if meant else told)


def in_python(text: str, *, kinds: Mapping[str, Any]) -> str:
    """Return a text in which options are called as the arguments that stand for them.

    ``kinds`` are the arguments, each with its annotation. What is none of them is a setting's, where there is
    one of that name.
    """

    def named(found: re.Match[str]) -> str:
        if found["command"]:
            return found[0]
        if found["setting"] and not found["value"]:
            return found["setting"]
        if found["setting"]:
            return f'settings={{"{found["setting"]}": {_literal(found["value"])}}}'
        option = found["option"].replace("-", "_")
        name = option if option in kinds else _CALLED.get(option) or setting_called(option)
        if not name:
            return found[0]
        if kinds.get(name) is bool and not text[: found.start()].endswith(("leave ", "leave out ")):
            return f"{name}=True"
        return f"{name}={_literal(found['of'])}" if found["of"] else name

    return _WORDS.sub(named, text)


def _literal(text: str) -> str:
    """Return a value of the command line as Python writes it."""
    value = parsed_value(text)
    return f'"{value}"' if isinstance(value, str) else repr(value)
