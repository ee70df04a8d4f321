"""Shipped models at work: predict, serve."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cache.runtime.errors import missing_package, printable
from cli.root import main
from distill.commands.options import (
    BATCH_SIZE,
    EXISTING_FOLDER,
    FILE_TO_WRITE,
    THREADS,
    lines,
    options,
    table,
    warn,
)

session_options = options(
    click.option(
        "--precision",
        type=click.Choice(["float32", "float16", "int8"]),
        help="Which of the exported graphs  [default: the first]",
    ),
    click.option("--threads", default=0, show_default="all cores", type=THREADS, help="Of onnxruntime."),
)
"""How a graph is run."""


@main.command()
@click.argument("model", type=EXISTING_FOLDER)
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--bank", metavar="NAME", help="Text bank whose classes are chosen from  [default: the run's]")
@click.option(
    "--labels",
    multiple=True,
    callback=lines,
    metavar="A,B,...|@FILE",
    help="Choose from these labels of any text bank instead; repeatable, for labels with commas; @FILE has "
    "one a line.",
)
@click.option("--top", default=5, show_default=True, type=click.IntRange(min=1), help="Labels an image.")
@click.option(
    "--reject",
    is_flag=True,
    help="Say 'none of these' below the cosine that 95% of ID images reach; which images, it says.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "jsonl", "csv"]),
    default="table",
    show_default=True,
    help="How results are printed.",
)
@click.option(
    "--out", type=FILE_TO_WRITE, help="Write them to this file instead; its ending chooses the format."
)
@click.option("--batch-size", default=32, show_default=True, type=BATCH_SIZE, help="Images at once.")
@session_options
@click.pass_context
def predict(
    ctx: click.Context,
    model: Path,
    images: tuple[Path, ...],
    bank: str | None,
    labels: tuple[str, ...],
    top: int,
    reject: bool,
    precision: str | None,
    form: str,
    out: Path | None,
    batch_size: int,
    threads: int,
) -> None:
    """Label IMAGES, files or folders, with an exported MODEL; no torch, no teacher, no GPU.

    \b
    Examples:
      distill predict models/first photo.jpg
      distill predict models/first photos/ --labels "red apple,lemon,plum" --reject --format jsonl
    """
    from cache.runtime.progress import progress_for
    from distill.deploy.model import Model
    from distill.deploy.predict import image_files
    from distill.deploy.predict import predict as label

    if ctx.get_parameter_source("labels") != click.core.ParameterSource.DEFAULT and not any(labels):
        raise click.UsageError("--labels names nothing: give at least one, as --labels a,b,c.")
    if out is not None and ctx.get_parameter_source("form") == click.core.ParameterSource.DEFAULT:
        form = {".jsonl": "jsonl", ".csv": "csv"}.get(out.suffix, "jsonl")
    if out is not None and form == "table":
        raise click.UsageError("--out takes --format jsonl or csv.")
    files = image_files(images)
    opened = Model.open(model, precision=precision, threads=threads)
    warn(opened.info.warning(opened.precision))
    classes = opened.class_set(bank=bank, labels=labels)
    if reject:
        click.echo(opened.rejection().said(), err=True)
    top = min(top, len(classes))
    progress = progress_for("predicting")
    found = label(
        opened,
        files,
        classes,
        top=top,
        reject=reject,
        batch_size=batch_size,
        # A few images on a terminal need no bar.
        progress=progress if len(files) > batch_size else None,
    )
    try:
        unread = _printed(found, form, out, top)
    finally:
        progress.close()
    if unread:
        click.echo(f"{unread:,} of {len(files):,} images could not be read.", err=True)
    if unread == len(files):
        sys.exit(1)


def _printed(predictions: Iterator[Any], form: str, out: Path | None, top: int) -> int:
    """Write predictions as they come; return how many images could not be read."""
    from cache.runtime.atomic_files import replacing
    from distill.deploy.predict import write_csv, write_jsonl

    def written(file: Any) -> int:
        lines = write_csv(file, predictions, top=top) if form == "csv" else write_jsonl(file, predictions)
        return _count_errors(lines)

    if out is not None:
        with replacing(out) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
            unread = written(file)
        click.echo(f"wrote {out}")
        return unread
    if form != "table":
        return written(sys.stdout)
    every = list(predictions)
    rows = []
    for one in every:
        for place, label in enumerate(one.labels):
            name = one.image if place == 0 else ""
            said = one.answer if place == 0 else label.label
            rows.append(
                [
                    name,
                    said,
                    label.label if one.none_of_these else "",
                    f"{label.score:.3f}",
                    f"{label.similarity:.3f}",
                ]
            )
    if rows:
        nearest = any(one.none_of_these for one in every)
        keep = (0, 1, 2, 3, 4) if nearest else (0, 1, 3, 4)
        heads = ["image", "label", "nearest", "score", "cosine"]
        table("labels, best first", [heads[i] for i in keep], [[row[i] for i in keep] for row in rows])
    return _count_errors(iter(every))


def _count_errors(predictions: Iterator[Any]) -> int:
    count = 0
    for one in predictions:
        if one.error:
            count += 1
            click.echo(printable(f"skipped {one.image}: {one.error}"), err=True)
    return count


@main.command()
@click.argument("model", type=EXISTING_FOLDER)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: any that is free."
)
@session_options
@click.option(
    "--max-megabytes", default=10.0, show_default=True, type=click.FloatRange(min=0.001), help="Of a request."
)
@click.option(
    "--max-pixels",
    default=50_000_000,
    show_default=True,
    type=click.IntRange(1, 89_000_000),
    help="Of an image.",
)
@click.option(
    "--rate",
    default=100.0,
    show_default=True,
    type=click.FloatRange(min=0.01),
    help="Requests a second of one client; ten seconds' worth may come at once.",
)
def serve(
    model: Path,
    host: str,
    port: int,
    precision: str | None,
    threads: int,
    max_megabytes: float,
    max_pixels: int,
    rate: float,
) -> None:
    """Serve MODEL over HTTP: post an image, get labels; a page to drop one on.

    It knows no users: where others can reach --host, put a server with authentication before it.

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
    limits = Limits(megabytes=max_megabytes, pixels=max_pixels, rate=rate)
    run(
        opened,
        host=host,
        port=port,
        limits=limits,
        ready=lambda address: click.echo(f"serving {model} ({opened.precision}) on {address}"),
    )
    click.echo("stopped")
