"""Options that say how sources of images are read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from cache.runtime import machine_limits as bounds
from cache.runtime.errors import WrongOption
from distill.commands.options import names_option, option, options

if TYPE_CHECKING:
    from cache.sources.source_options import SourceOptions

COLUMNS = ("path", "image", "label", "split", "key", "caption")
LAST = "last"


def _class_depth(ctx: click.Context, option: click.Parameter, value: str) -> int:
    """Read a number from 1, or ``last``, which is -1."""
    if value != LAST and not (value.isascii() and value.isdecimal() and 0 < int(value) < 100):
        raise click.BadParameter(f"{value!r:.40} is not a number from 1 or {LAST!r}", ctx=ctx, param=option)
    return -1 if value == LAST else int(value)


def _column(name: str) -> Any:
    return option(
        f"--{name}-column NAME",
        f"A list's column of {_OF[name]}  [default: found]",
        default="",
        show_default=False,
    )


_OF = {
    "path": "paths",
    "image": "pictures themselves",
    "label": "classes",
    "split": "splits",
    "key": "keys",
    "caption": "captions",
}

label_options = options(
    option(
        "--class-depth N",
        "Which folder below the split is the class: 1 the first, or 'last'.",
        default="1",
        callback=_class_depth,
    ),
    *map(_column, COLUMNS),
)
"""How the labels of a source are found, and its columns."""

class_names_option = names_option("Names of classes that are given as numbers, from 0")

source_options = options(
    option(
        "--split RULE rule",
        "Splits of labelled images that have none: 'id_test=0.2,ood_test=0.3 of classes'.",
        default="",
        show_default=False,
    ),
    label_options,
    class_names_option,
    option("--no-exif", "Do not turn pictures as their EXIF says.", bool),
    option("--max-pixels", "Pictures of more are left out.", click.IntRange(min=1), bounds.PICTURE_PIXELS),
)


LABEL_OPTIONS = ("class_depth", *(f"{name}_column" for name in COLUMNS), "names")


def source_options_of(given: dict[str, Any]) -> SourceOptions:
    """Take :data:`source_options` out of ``given``; UserError where one is wrong in itself."""
    from cache.sources.decoding import Decoding
    from cache.sources.split_rules import SplitRule

    rule = given.pop("rule")
    return replace(
        label_options_of(given),
        rule=SplitRule.parse(rule) if rule else None,
        decoding=Decoding(exif=not given.pop("no_exif"), max_pixels=given.pop("max_pixels")),
    )


def label_options_of(given: dict[str, Any]) -> SourceOptions:
    """Take :data:`label_options` out of ``given``; UserError where one is wrong in itself."""
    from cache.sources.list_columns import Columns
    from cache.sources.source_options import SourceOptions

    names = given.pop("names")
    if "" in names:
        raise WrongOption(f"--names: line {names.index('') + 1} has no name", fix="write one name a line.")
    return SourceOptions(
        class_depth=given.pop("class_depth"),
        columns=Columns(**{name: given.pop(f"{name}_column") for name in COLUMNS}),
        names=names,
    )
