"""``distill predict``, ``serve``: images, or episodes, labelled by an exported model, here or over HTTP."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.runtime.errors import WrongOption, missing_package, printable
from distill.commands.options import (
    COUNT,
    EXISTING_FOLDER,
    FILE_TO_WRITE,
    batch_size,
    given_options,
    graph_options,
    model_teacher_options,
    names_option,
    option,
)
from distill.commands.tables import table, warn, working

if TYPE_CHECKING:
    from distill.deploy.model import Model, Prediction

Labelling = Callable[..., "Iterator[Prediction]"]
FORMATS = {".jsonl": "jsonl", ".csv": "csv"}
"""What the ending of --out means."""
# Among 20,000 words no answer's probability need be large.
LEAST_TOLD = 0.001


@click.command()
@click.argument("model", type=EXISTING_FOLDER)
@click.argument("images", nargs=-1, required=True)
@option("--bank NAME", "Text bank whose classes are chosen from  [default: the run's]")
@names_option(
    "From these instead: labels of any text bank, or words of the model's vocabulary",
    separate=lambda given: (given,),  # by the model, which may have a name with commas
)
@option("--open open_", "From all words of the model's vocabulary instead.", bool)
@option("--top", "Labels an image.", COUNT, 5)
@option("--reject", "Say 'none of these' of images of something else; 95% of ID images pass.", bool)
@option("--threshold", "Score from which an object is there  [default: the run's]", click.FloatRange(0, 1))
@option("--format", "How results are printed.", ["table", "jsonl", "csv"], "table")
@option("--out", "Write them to this file instead; its ending chooses the format.", FILE_TO_WRITE)
@batch_size(default=32)
@graph_options
@click.pass_context
def predict(
    ctx: click.Context, model: Path, images: tuple[str, ...], format: str, out: Path | None, **given: Any
) -> None:
    """Label IMAGES with an exported MODEL.

    IMAGES are files, folders with all below them, lists, tars, parquet, or addresses of any of these; for a
    model of episodes their HDF5 files, whose objects it names. It takes no torch, no teacher and no GPU.

    \b
    Examples:
      distill predict models/first photo.jpg
      distill predict models/first photos/ --names "red apple,lemon,plum" --reject --format jsonl
      distill predict models/first photo.jpg --open
      distill predict models/robot episodes/val.h5 --threshold 0.6
    """
    from distill.deploy.info import ModelInfo

    if given_options(ctx, "names") and not any(given["names"]):
        raise click.UsageError("--names is empty: give at least one, as --names a,b,c.")
    beside = given_options(ctx, "names", "bank", "reject")
    if given["open_"] and beside:
        raise click.UsageError(f"--open chooses from all words: leave {beside[0]} out.")
    if out is not None and not given_options(ctx, "format"):
        format = FORMATS.get(out.suffix, "jsonl")
    if out is not None and format == "table":
        raise click.UsageError("--out takes --format jsonl or csv.")
    of = "image" if ModelInfo.load(model).objects is None else "episode"
    items, choices, labelled = (_of_photos if of == "image" else _of_episodes)(model, images, given)
    count, top, size = len(items), min(given["top"], len(choices)), given["batch_size"]
    with working("predicting", f"{of}s") as progress:
        # A few images on a terminal need no bar.
        shown = progress if count > size else None
        answers = labelled(items, choices, top=top, batch_size=size, progress=shown)
        unread = _printed(answers, format, out, top, of)
    if unread:
        click.echo(f"{unread:,} of {count:,} {of}s could not be read.", err=True)
    if of == "image":
        for line in items.account.in_words():
            click.echo(printable(f"left out: {line}"), err=True)
    if unread == count:
        sys.exit(1)


def _opened(model: Path, precision: str | None, threads: int) -> Model:
    """Open a model of photos, and say what is not as it was when it was checked."""
    from cache.sources.decoders import in_its_place
    from distill.deploy.model import Model

    opened = Model.open(model, precision=precision, threads=threads)
    warn(opened.info.warning(opened.precision))
    warn(in_its_place(opened.info.preprocessing.decoder))
    return opened


def _of_photos(model: Path, images: tuple[str, ...], given: dict[str, Any]) -> tuple[Any, Any, Labelling]:
    """Return the images, the classes that they are of, and what labels them."""
    from distill.deploy.pictures import Pictures
    from distill.deploy.predict import predict

    if given["threshold"] is not None:
        raise click.UsageError("--threshold is of models of episodes: photos have --reject.")
    pictures = Pictures.of(images)
    for note in pictures.notes:
        click.echo(printable(note), err=True)
    opened = _opened(model, given["precision"], given["threads"])
    classes = (
        opened.open_set if given["open_"] else opened.class_set(bank=given["bank"], names=given["names"])
    )
    if given["reject"]:
        click.echo(opened.rejection(classes).in_words(), err=True)
    return pictures, classes, partial(predict, opened, reject=given["reject"])


def _of_episodes(model: Path, files: tuple[str, ...], given: dict[str, Any]) -> tuple[Any, Any, Labelling]:
    """Return the episodes, the objects that may be in them, and what names those that are."""
    from distill.deploy.episode_model import EpisodeModel
    from distill.deploy.predict_episodes import episodes_in, predict_episodes

    if given["reject"]:
        raise click.UsageError("--reject is of models of photos: episodes have --threshold.")
    if given["open_"]:
        raise click.UsageError("--open is of models of photos: objects of episodes have two texts each.")
    opened = EpisodeModel.open(model, precision=given["precision"], threads=given["threads"])
    warn(opened.info.warning(opened.precision))
    objects = opened.objects(bank=given["bank"], names=given["names"])
    episodes = episodes_in([*map(Path, files)], opened.scoring.keys)
    return episodes, objects, partial(predict_episodes, opened, threshold=given["threshold"])


def _printed(predictions: Iterator[Prediction], format: str, out: Path | None, top: int, of: str) -> int:
    """Write predictions as they come; return how many images could not be read."""
    from cache.runtime.atomic_files import replacing
    from distill.deploy.predict import write_csv, write_jsonl

    def written(file: Any) -> int:
        csv = format == "csv"
        each = write_csv(file, predictions, top=top, of=of) if csv else write_jsonl(file, predictions)
        return _count_errors(each)

    if out is not None:
        with replacing(out) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
            unread = written(file)
        click.echo(f"wrote {out}")
        return unread
    if format != "table":
        return written(sys.stdout)
    every = list(predictions)
    _print_table(every, of)
    return _count_errors(iter(every))


def _print_table(predictions: list[Prediction], of: str) -> None:
    lines = [[of, "label", "nearest", "score", "cosine"]]
    for one in predictions:
        for place, label in enumerate(one.labels):
            first = [one.image, one.answer] if place == 0 else ["", label.label]
            nearest = label.label if one.none_of_these else ""
            score = f"{label.score:.3f}" if label.score >= LEAST_TOLD else f"<{LEAST_TOLD}"
            lines.append([*first, nearest, score, f"{label.similarity:.3f}"])
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
@model_teacher_options
def serve(model: Path, host: str, port: int, precision: str | None, threads: int, **more: Any) -> None:
    """Serve MODEL over HTTP: post an image, get labels.

    There is a page to drop one on; with --teacher-model the teacher's answer is beside the model's. It knows
    no users: where others can reach --host, put a server with authentication before it.

    \b
    Examples:
      distill serve models/first
      curl --data-binary @photo.jpg "http://127.0.0.1:8000/predict?names=rose,tulip&top=2"
    """
    try:
        from distill.deploy.beside_teacher import teacher_beside
        from distill.deploy.limits import Limits
        from distill.deploy.serve import serve as run
    except ImportError as error:
        raise missing_package(error, extra="serve") from error
    teacher_model, pretrained = more.pop("teacher_model"), more.pop("pretrained")
    if pretrained is not None and teacher_model is None:
        raise WrongOption("--pretrained is of --teacher-model", fix="give that too, or leave it out.")
    opened = _opened(model, precision, threads)
    teacher = teacher_beside(opened.info, teacher_model, pretrained=pretrained) if teacher_model else None
    run(
        opened,
        host=host,
        port=port,
        limits=Limits(**more),
        teacher=teacher,
        ready=lambda address: click.echo(f"serving {model} ({opened.precision}) on {address}"),
    )
    click.echo("stopped")
