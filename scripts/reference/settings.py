"""The page of settings: every field of a run's config, its default, what it takes, its meaning."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, get_type_hints

from distill.config import RunConfig
from distill.settings import toml_value
from reference.commands import commands

INTRODUCTION = """# Settings

Every setting of a run, made from the code. A recipe is a TOML file of these sections,
`--set section.key=value` changes one, and a run's `config.toml` has them all. The defaults here are those of
a recipe that does not say otherwise; `distill recipes NAME` prints what a recipe sets.
"""
KINDS = {int: "whole number", float: "number", bool: "`true` or `false`", str: "text"}


def page() -> str:
    """Return the page's Markdown."""
    parts = [INTRODUCTION]
    for section, kind in sections():
        parts.append(f"## {f'`[{section}]`' if section else 'Outside all sections'}")
        rows = ["| setting | default | takes | |", "|---|---|---|---|"]
        hints = get_type_hints(kind)
        for one in own_fields(kind):
            name = f"{section}.{one.name}" if section else one.name
            shown = f'<span id="{name.replace(".", "-")}"></span>`{name}`'
            cells = (
                shown,
                f"`{_default(one)}`",
                _takes(one, hints[one.name]),
                _cell(meaning(kind, section, one.name)),
            )
            rows.append("| " + " | ".join(cells) + " |")
        parts += [_first(kind), "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def sections() -> Iterator[tuple[str, Any]]:
    """Yield the config's own fields as section '', then every section by its name."""
    yield "", RunConfig
    hints = get_type_hints(RunConfig)
    for one in fields(RunConfig):
        if is_dataclass(hints[one.name]):
            yield one.name, hints[one.name]


def own_fields(kind: Any) -> list[Field[Any]]:
    """Return a section's fields that are no sections."""
    hints = get_type_hints(kind)
    return [one for one in fields(kind) if not is_dataclass(hints[one.name])]


def meaning(kind: Any, section: str, name: str) -> str:
    """Return what the section's docstring says of a field, or the option that carries it; '' of neither."""
    words = re.sub(r"\s+", " ", inspect.cleandoc(kind.__doc__ or ""))
    told = [
        clause.strip() for clause in re.split(r"(?<=[.;])\s+(?![^(]*\))", words) if f"``{name}``" in clause
    ]
    text = " ".join(told).rstrip(";")
    if not text.startswith(f"``{name}``"):  # else the docstring is about something else, and names it
        text = _said_by_options().get(f"{section}.{name}" if section else name, "") or text
    text = re.sub(r":\w+:`~?\.?([\w.]+)`", r"`\1`", text).replace("``", "`")
    return text[:1].upper() + text[1:] if not text.startswith("`") else text


@cache
def _said_by_options() -> dict[str, str]:
    said: dict[str, str] = {}
    for _, command in commands():
        for option in command.params:
            help = getattr(option, "help", None) or ""
            if found := re.search(r"\s*\[([a-z_]+(?:\.[a-z_]+)?)\]\s*$", help):
                said.setdefault(found[1], re.sub(r"\s*\[default[^\]]*\]", "", help[: found.start()]))
    return said


def _first(kind: Any) -> str:
    words = re.sub(r"\s+", " ", inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0])
    return words.replace("``", "`")


def _default(one: Field[Any]) -> str:
    value = one.default if one.default is not MISSING else one.default_factory()  # type: ignore[misc]
    if isinstance(value, float) and value not in (0, 1) and len(str(value)) > 8:
        value = round(value, 3)
    if isinstance(value, tuple):
        value = tuple(round(v, 3) if isinstance(v, float) else v for v in value)
    return toml_value(value)


def _takes(one: Field[Any], hint: Any) -> str:
    if "choices" in one.metadata:
        return ", ".join(f"`{word}`" for word in one.metadata["choices"])
    kind = KINDS.get(hint) or "list of " + KINDS[hint.__args__[0]] + "s"
    fix = one.metadata.get("fix", "").removeprefix("give ").removesuffix(".")
    return f"{kind}; {fix}" if fix else kind


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
