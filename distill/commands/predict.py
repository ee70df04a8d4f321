"""``distill predict``: images labelled by an exported model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.runtime.errors import printable
from distill.commands.options import (
    COUNT,
    EXISTING_FOLDER,
    FILE_TO_WRITE,
    batch_size,
    given_options,
    graph_options,
    lines,
    option,
)
from distill.commands.tables import table, warn, working

if TYPE_CHECKING:
    from distill.deploy.predict import Prediction

FORMATS = {".jsonl": "jsonl", ".csv": "csv"}
"""What the ending of --out means."""


@click.command()
@click.argument("model", type=EXISTING_FOLDER)
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@option("--bank NAME", "Text bank whose classes are chosen from  [default: the run's]")
@option(
    "--labels A,B,...|@FILE",
    "From these labels of any text bank instead; repeatable, for labels with commas; @FILE has one a line.",
    multiple=True,
    callback=lines,
)
@option("--top", "Labels an image.", COUNT, 5)
@option("--reject", "Say 'none of these' below the cosine that 95% of ID images reach.", bool)
@option("--format", "How results are printed.", ["table", "jsonl", "csv"], "table")
@option("--out", "Write them to this file instead; its ending chooses the format.", FILE_TO_WRITE)
@batch_size(default=32)
@graph_options
@click.pass_context
def predict(
    ctx: click.Context, model: Path, images: tuple[Path, ...], format: str, out: Path | None, **given: Any
) -> None:
    """Label IMAGES with an exported MODEL.

    IMAGES are files or folders. It takes no torch, no teacher and no GPU.

    \b
    Examples:
      distill predict models/first photo.jpg
      distill predict models/first photos/ --labels "red apple,lemon,plum" --reject --format jsonl
    """
    from distill.deploy.model import Model
    from distill.deploy.predict import image_files
    from distill.deploy.predict import predict as label

    if given_options(ctx, "labels") and not any(given["labels"]):
        raise click.UsageError("--labels names nothing: give at least one, as --labels a,b,c.")
    if out is not None and not given_options(ctx, "format"):
        format = FORMATS.get(out.suffix, "jsonl")
    if out is not None and format == "table":
        raise click.UsageError("--out takes --format jsonl or csv.")
    files = image_files(images)
    opened = Model.open(model, precision=given["precision"], threads=given["threads"])
    warn(opened.info.warning(opened.precision))
    classes = opened.class_set(bank=given["bank"], labels=given["labels"])
    if given["reject"]:
        click.echo(opened.rejection().said(), err=True)
    top, size = min(given["top"], len(classes)), given["batch_size"]
    with working("predicting") as progress:
        # A few images on a terminal need no bar.
        shown = progress if len(files) > size else None
        answers = label(
            opened, files, classes, top=top, reject=given["reject"], batch_size=size, progress=shown
        )
        unread = _printed(answers, format, out, top)
    if unread:
        click.echo(f"{unread:,} of {len(files):,} images could not be read.", err=True)
    if unread == len(files):
        sys.exit(1)


def _printed(predictions: Iterator[Prediction], format: str, out: Path | None, top: int) -> int:
    """Write predictions as they come; return how many images could not be read."""
    from cache.runtime.atomic_files import replacing
    from distill.deploy.predict import write_csv, write_jsonl

    def written(file: Any) -> int:
        lines = write_csv(file, predictions, top=top) if format == "csv" else write_jsonl(file, predictions)
        return _count_errors(lines)

    if out is not None:
        with replacing(out) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
            unread = written(file)
        click.echo(f"wrote {out}")
        return unread
    if format != "table":
        return written(sys.stdout)
    every = list(predictions)
    _print_table(every)
    return _count_errors(iter(every))


def _print_table(predictions: list[Prediction]) -> None:
    lines = [["image", "label", "nearest", "score", "cosine"]]
    for one in predictions:
        for place, label in enumerate(one.labels):
            first = [one.image, one.answer] if place == 0 else ["", label.label]
            nearest = label.label if one.none_of_these else ""
            lines.append([*first, nearest, f"{label.score:.3f}", f"{label.similarity:.3f}"])
    if not any(one.none_of_these for one in predictions):
        lines = [[*line[:2], *line[3:]] for line in lines]
    if len(lines) > 1:
        table("labels, best first", lines[0], lines[1:])


def _count_errors(predictions: Iterator[Prediction]) -> int:
    count = 0
    for one in predictions:
        if one.error:
            count += 1
            click.echo(printable(f"skipped {one.image}: {one.error}"), err=True)
    return count
