"""``distill texts``: the text banks of an exported model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from cache.runtime.errors import printable
from distill.commands.options import (
    EXISTING_FOLDER,
    device_option,
    json_option,
    model_teacher_options,
    option,
    refuse_given,
)


@click.command()
@click.argument("model", type=EXISTING_FOLDER)
@option("--add TEXT", "A class name or a text to embed. Repeatable.", multiple=True)
@option("--bank", "Text bank that it is added to.", default="added")
@option("--template", "Put round each name; '{}' is it  [default: the labels']", metavar="'a photo of {}'")
@option("--cache", "A cache of the model's teacher that keeps its text tower.", EXISTING_FOLDER)
@model_teacher_options
@device_option
@json_option("Print the banks and labels as JSON.")
@click.pass_context
def texts(ctx: click.Context, model: Path, add: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """List MODEL's text banks, or add texts to them.

    --add has them embedded by the teacher's text tower: what --cache keeps (cache-features
    --keep-text-tower), or that of --teacher-model.

    \b
    Examples:
      distill texts models/first
      distill texts models/first --add zebra --add "okapi" --cache artifacts/photos
    """
    if add:
        from distill.deploy.add_texts import add_texts

        added = add_texts(model, add, **given)
        if not as_json:
            names = ", ".join(repr(label) for label in added)
            click.echo(f"added {names} to the text bank {given['bank']!r} of {model}")
            return
    else:
        refuse_given(ctx, "bank", "template", "cache", "teacher_model", "pretrained", without="--add")
    from distill.deploy.info import ModelInfo
    from distill.deploy.model import load_banks

    info = ModelInfo.load(model)
    banks = {name: list(classes.labels) for name, classes in load_banks(model, info).items()}
    if as_json:
        click.echo(json.dumps(banks, ensure_ascii=False, indent=2))
        return
    for name, labels in banks.items():
        click.echo(printable(f"{name} ({len(labels)}): {', '.join(labels)}"))
    teacher = info.source["teacher"]
    click.echo(printable(f"embedded by the teacher {teacher['model']} ({teacher['pretrained']})"))
