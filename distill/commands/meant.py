"""Which option was meant by one that there is none of: a setting's name, or another program's word."""

from __future__ import annotations

import click

from distill.settings import other_word, setting_called


def with_option_meant(error: click.NoSuchOption) -> click.NoSuchOption:
    """Return an error that says as well which option was meant; the same where nobody knows better."""
    if not (meant := _meant(error)):
        return error
    return click.NoSuchOption(error.option_name, f"{error.message} Did you mean {meant}?", ctx=error.ctx)


def _meant(error: click.NoSuchOption) -> str:
    """Return which options another may mean (-b or --bs --batch-size), '' where click says it, or nobody."""
    name, params = error.option_name.strip("-"), error.ctx.command.params if error.ctx else ()
    there = [option.strip("-") for param in params for option in param.opts]
    if (word := other_word(name, there)) is not None:
        return f"'--{word}'"
    if "set" in there and (setting := setting_called(name)):
        return f"'--set {setting}='"
    means = [
        one
        for one in there
        if (one.startswith(name) if len(name) == 1 else one == _initials(name) or name == _initials(one))
    ]
    return ", ".join(f"'--{one}'" for one in means)


def _initials(name: str) -> str:
    return "".join(word[:1] for word in name.split("-"))
