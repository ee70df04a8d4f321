"""``distill serve``: an exported model over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cache.runtime.errors import missing_package
from distill.commands.options import EXISTING_FOLDER, graph_options, option
from distill.commands.tables import warn


@click.command()
@click.argument("model", type=EXISTING_FOLDER)
@option("--host", "Address to listen on.", default="127.0.0.1")
@option("--port", "0: any that is free.", click.IntRange(0, 65535), 8000)
@graph_options
@option("--max-megabytes megabytes", "Of a request.", click.FloatRange(min=0.001), 10.0)
@option("--max-pixels pixels", "Of an image.", click.IntRange(1, 89_000_000), 50_000_000)
@option(
    "--rate", "Requests a second of one client, ten times that at once.", click.FloatRange(min=0.01), 100.0
)
def serve(model: Path, host: str, port: int, precision: str | None, threads: int, **limits: Any) -> None:
    """Serve MODEL over HTTP: post an image, get labels.

    There is a page to drop one on. It knows no users: where others can reach --host, put a server with
    authentication before it.

    \b
    Examples:
      distill serve models/first
      curl --data-binary @photo.jpg "http://127.0.0.1:8000/predict?labels=rose,tulip&top=2"
    """
    from distill.deploy.model import Model

    try:
        from distill.deploy.limits import Limits
        from distill.deploy.serve import serve as run
    except ImportError as error:
        raise missing_package(error, extra="serve") from error
    opened = Model.open(model, precision=precision, threads=threads)
    warn(opened.info.warning(opened.precision))
    run(
        opened,
        host=host,
        port=port,
        limits=Limits(**limits),
        ready=lambda address: click.echo(f"serving {model} ({opened.precision}) on {address}"),
    )
    click.echo("stopped")
