"""``distill serve``: an exported model over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cache.runtime.errors import missing_package
from distill.commands.options import EXISTING_FOLDER, graph_options
from distill.commands.tables import warn


@click.command()
@click.argument("model", type=EXISTING_FOLDER)
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", default=8000, type=click.IntRange(0, 65535), help="0: any that is free.")
@graph_options
@click.option(
    "--max-megabytes", "megabytes", default=10.0, type=click.FloatRange(min=0.001), help="Of a request."
)
@click.option(
    "--max-pixels", "pixels", default=50_000_000, type=click.IntRange(1, 89_000_000), help="Of an image."
)
@click.option(
    "--rate",
    default=100.0,
    type=click.FloatRange(min=0.01),
    help="Requests a second of one client; ten seconds' worth may come at once.",
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
