"""``distill describe``: a language model's description of every class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cache.runtime import machine_limits as bounds
from distill.commands.options import EXISTING_FOLDER, FILE, FILE_TO_WRITE, WHOLE, option
from distill.commands.tables import working


@click.command()
@click.argument("data", type=EXISTING_FOLDER)
@option("--model", "The language model's name on that server.", required=True)
@option("--base-url", "An OpenAI-compatible server, e.g. http://localhost:8000/v1  [default: OpenAI's]")
@option("--out", "The file to write  [default: DATA/chatgpt.txt]", FILE_TO_WRITE)
@option("--prompt", "What is asked; {} is the class name  [default: one sentence on its appearance]")
@option("--label2text", "Class names; found in DATA, else the folders' names.", FILE)
@option("--workers", "Requests at once.", click.IntRange(1, bounds.REQUESTS), 4)
@option("--retries max_retries", "Tries more of a request that failed, at longer waits.", WHOLE, 6)
def describe(data: Path, **given: Any) -> None:
    """Ask a language model to describe every class of DATA.

    The key is read from OPENAI_API_KEY. Run again, it goes on.

    Example: distill describe photos --model llama3 --base-url http://localhost:8000/v1
    """
    from cache.prepare.describe import describe as ask

    given = {name: value for name, value in given.items() if value is not None}
    with working("describing", "classes") as progress:
        summary = ask(data, progress=progress, **given)
    click.echo(
        f"{summary.out}: {summary.classes} descriptions ({summary.asked} asked now, {summary.reused} before)"
    )
