"""``distill describe``: a language model's description of every class."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from cache.runtime import machine_limits as bounds
from distill.commands.options import EXISTING_FOLDER, FILE, FILE_TO_WRITE


@click.command()
@click.argument("data", type=EXISTING_FOLDER)
@click.option("--model", required=True, help="The language model's name on that server.")
@click.option(
    "--base-url", help="An OpenAI-compatible server, e.g. http://localhost:8000/v1  [default: OpenAI's]"
)
@click.option("--out", type=FILE_TO_WRITE, help="The file to write  [default: DATA/chatgpt.txt]")
@click.option(
    "--prompt", help="What is asked; {} is the class name  [default: one sentence on its appearance]"
)
@click.option("--label2text", type=FILE, help="Class names; found in DATA, else the folders' names.")
@click.option("--workers", default=4, type=click.IntRange(1, bounds.REQUESTS), help="Requests at once.")
@click.option(
    "--retries",
    "max_retries",
    default=6,
    type=click.IntRange(min=0),
    help="Tries more of a request that failed, each after a longer wait.",
)
def describe(data: Path, **given: Any) -> None:
    """Ask a language model to describe every class of DATA.

    The key is read from OPENAI_API_KEY. Run again, it goes on.

    Example: distill describe photos --model llama3 --base-url http://localhost:8000/v1
    """
    from cache.prepare.describe import describe as ask
    from cache.runtime.progress import progress_for

    given = {name: value for name, value in given.items() if value is not None}
    with closing(progress_for("describing", "classes")) as progress:
        summary = ask(data, progress=progress, **given)
    click.echo(
        f"{summary.out}: {summary.classes} descriptions ({summary.asked} asked now, {summary.reused} before)"
    )
