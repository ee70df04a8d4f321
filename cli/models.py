"""What is shipped: export, predict, texts, serve, bench-model."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cache.errors import printable
from cli.parts import EXISTING_FOLDER, FILE_TO_WRITE, FOLDER, options, percent, refuse_given, table
from cli.root import main

MODEL = click.Path(exists=True, file_okay=False, path_type=Path)
PRECISION = click.Choice(["float32", "float16", "int8"])

teacher_options = options(
    click.option(
        "--teacher-model", metavar="NAME", help="The teacher: an open_clip name, local-dir:DIR, hf-hub:ID."
    ),
    click.option("--pretrained", metavar="TAG|FILE", help="Its weights."),
)
"""Where a teacher is found that the cache does not say, or says wrongly by now."""


def words(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Read a,b,c, or @FILE with one a line."""
    if value is None:
        return ()
    if not value.startswith("@"):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    try:
        lines = Path(value[1:]).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{value[1:]} cannot be read ({error})", ctx=ctx, param=option) from error
    return tuple(line.strip() for line in lines if line.strip())


@main.command()
@click.argument("run", type=EXISTING_FOLDER)
@click.option("--out", required=True, type=FOLDER, help="New folder for the model.")
@click.option(
    "--formats",
    default="onnx",
    show_default=True,
    callback=words,
    metavar="A,B",
    help="onnx,torch,safetensors.",
)
@click.option(
    "--precisions",
    default="float32",
    show_default=True,
    callback=words,
    metavar="A,B",
    help="Of the ONNX graph: float32,float16,int8.",
)
@click.option(
    "--preprocessing",
    type=click.Choice(["outside", "graph"]),
    default="outside",
    show_default=True,
    help="graph: the ONNX graph takes uint8 photos of any size and prepares them itself.",
)
@click.option("--checkpoint", default="last", show_default=True, help="last, or best where id_val chose one.")
@click.option("--teacher", metavar="NAME", help="Of several teachers: whose embedding  [default: the first]")
@click.option("--license", default="unknown", show_default=True, help="For the model card, e.g. mit.")
@click.option(
    "--check-images",
    default=2000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Images of each test split that the files are compared with the student on.",
)
@click.option(
    "--neighbours",
    default=200,
    show_default=True,
    type=click.IntRange(min=0),
    help="Small training images to go along, for 'distill serve' to show; 0: none.",
)
@click.option("--data", "data_dir", type=EXISTING_FOLDER, help="The images' folder  [default: the run's own]")
@click.option("--cache", "cache_dir", type=EXISTING_FOLDER, help="The cache  [default: the run's own]")
@click.option("--json", "as_json", is_flag=True, help="Print model.json's numbers as JSON.")
def export(run: Path, out: Path, as_json: bool, **given: Any) -> None:
    """Write a folder that stands alone: RUN's student, class texts, measured accuracy and a model card.

    Every file is compared with the student on the run's test images before it is kept.

    \b
    Examples:
      distill export runs/first --out models/first
      distill export runs/first --out models/small --precisions float32,float16,int8 --preprocessing graph
    """
    from cache.progress import progress_for
    from distill.deploy.export import ExportOptions, export_run

    options = ExportOptions(**given)
    progress = progress_for("exporting")
    try:
        info = export_run(run, out, options, progress=progress)
    finally:
        progress.close()
    if as_json:
        click.echo(json.dumps({"measured": info.measured, "reject": info.reject}, indent=2))
        return
    rows = [
        [
            name,
            f"{found['bytes'] / 1e6:.1f}",
            split,
            percent(numbers["accuracy"]),
            percent(numbers["student_accuracy"]),
            f"{numbers['cosine_mean']:.4f}",
            f"{numbers['largest_difference']:.1e}",
        ]
        for name, found in info.measured.items()
        for split, numbers in found["splits"].items()
    ]
    heads = ["", "MB", "split", "accuracy", "student's", "cosine", "largest difference"]
    table(f"{out}: {info.arch}, beside the student of {run}", heads, rows)
    click.echo(f"'distill predict {out} PHOTO' labels images; {out / 'README.md'} is the model card")


class_options = options(
    click.option(
        "--bank", metavar="NAME", help="Text bank whose classes are chosen from  [default: the run's]"
    ),
    click.option(
        "--labels",
        callback=words,
        metavar="A,B,...|@FILE",
        help="Choose from these labels of any text bank instead; @FILE has one a line.",
    ),
)


@main.command()
@click.argument("model", type=MODEL)
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@class_options
@click.option("--top", default=5, show_default=True, type=click.IntRange(min=1), help="Labels an image.")
@click.option(
    "--reject", is_flag=True, help="Say 'none of these' below the cosine that 95% of ID test images reach."
)
@click.option("--precision", type=PRECISION, help="Which of the exported graphs  [default: the first]")
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
@click.option(
    "--batch-size", default=32, show_default=True, type=click.IntRange(min=1), help="Images at once."
)
@click.option(
    "--threads", default=0, show_default="all cores", type=click.IntRange(min=0), help="Of onnxruntime."
)
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
    from cache.progress import progress_for
    from distill.deploy.model import Model
    from distill.deploy.predict import image_files
    from distill.deploy.predict import predict as label

    if ctx.get_parameter_source("labels") != click.core.ParameterSource.DEFAULT and not labels:
        raise click.UsageError("--labels names nothing: give at least one, as --labels a,b,c.")
    if out is not None and ctx.get_parameter_source("form") == click.core.ParameterSource.DEFAULT:
        form = {".jsonl": "jsonl", ".csv": "csv"}.get(out.suffix, "jsonl")
    if out is not None and form == "table":
        raise click.UsageError("--out takes --format jsonl or csv.")
    files = image_files(images)
    opened = Model.open(model, precision=precision, threads=threads)
    classes = opened.class_set(bank=bank, labels=labels)
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
    from cache.files import replacing
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
@click.argument("model", type=MODEL)
@click.option("--add", multiple=True, metavar="TEXT", help="A class name or a text to embed. Repeatable.")
@click.option("--bank", default="added", show_default=True, help="Text bank that it is added to.")
@click.option(
    "--template", metavar="'a photo of {}'", help="Put round each name; '{}' is it  [default: the labels']"
)
@click.option(
    "--cache",
    type=EXISTING_FOLDER,
    help="A cache that keeps the teacher's text tower  [default: the model's own]",
)
@teacher_options
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print the banks and labels as JSON.")
@click.pass_context
def texts(
    ctx: click.Context, model: Path, add: tuple[str, ...], bank: str, as_json: bool, **given: Any
) -> None:
    """List MODEL's text banks, or --add texts that its teacher's text tower embeds.

    The tower is what the cache keeps (cache-features --keep-text-tower), else the teacher itself.

    \b
    Examples:
      distill texts models/first
      distill texts models/first --add zebra --add "okapi" --cache artifacts/photos
    """
    if add:
        from distill.deploy.add_texts import add_texts

        added = add_texts(model, add, bank=bank, **given)
        if not as_json:
            click.echo(
                f"added {', '.join(repr(label) for label in added)} to the text bank {bank!r} of {model}"
            )
            return
    else:
        refuse_given(ctx, "bank", "template", "cache", "teacher_model", "pretrained", without="--add")
    from distill.deploy.info import ModelInfo
    from distill.deploy.model import load_banks

    info = ModelInfo.load(model)
    banks = load_banks(model, info)
    if as_json:
        click.echo(
            json.dumps(
                {name: list(classes.labels) for name, classes in banks.items()}, ensure_ascii=False, indent=2
            )
        )
        return
    for name, classes in banks.items():
        click.echo(printable(f"{name} ({len(classes)}): {', '.join(classes.labels)}"))


@main.command()
@click.argument("model", type=MODEL)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: any that is free."
)
@click.option("--precision", type=PRECISION, help="Which of the exported graphs  [default: the first]")
@click.option(
    "--threads", default=0, show_default="all cores", type=click.IntRange(min=0), help="Of onnxruntime."
)
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
        from distill.deploy.serve import Limits
        from distill.deploy.serve import serve as run
    except ImportError as error:
        from cache.errors import UserError

        raise UserError(
            f"{error.name} is not installed", fix="run 'pip install \"distill[serve]\"'."
        ) from error
    opened = Model.open(model, precision=precision, threads=threads)
    limits = Limits(megabytes=max_megabytes, pixels=max_pixels, rate=rate)
    run(
        opened,
        host=host,
        port=port,
        limits=limits,
        ready=lambda address: click.echo(f"serving {model} ({opened.precision}) on {address}"),
    )


@main.command("bench-model")
@click.argument("model", type=MODEL)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="Turns of each.")
@click.option(
    "--repeats", default=50, show_default=True, type=click.IntRange(min=2), help="Of one image, each turn."
)
@click.option(
    "--threads", default=0, show_default="all cores", type=click.IntRange(min=0), help="Of each candidate."
)
@click.option("--out", type=FILE_TO_WRITE, help="Write the numbers to this JSON file as well.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def bench_model(
    model: Path, rounds: int, repeats: int, threads: int, out: Path | None, as_json: bool
) -> None:
    """Measure MODEL with onnxruntime on this CPU, beside the torch student and the teacher if they are here.

    Latency of one image, images a second in batches of 32, size, peak memory; each in processes of its own
    that take turns. The student is the exported weights or the run's, the teacher a local one.

    Example: distill bench-model models/first --out bench.json
    """
    from cache.files import write_json
    from cache.progress import progress_for
    from distill.deploy.bench import bench_model as measure
    from distill.deploy.bench import machine

    progress = progress_for("measuring", "turns")
    try:
        found = measure(model, rounds=rounds, repeats=repeats, threads=threads, progress=progress)
    finally:
        progress.close()
    result = {"machine": machine(), "rounds": rounds, "repeats": repeats, "threads": threads, "found": found}
    if out is not None:
        write_json(out, result)
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    rows = [
        [
            name,
            f"{one['p50_ms']:.2f}",
            f"{one['p99_ms']:.2f}",
            f"{one['images_per_s']:,.0f}",
            f"{one['bytes'] / 1e6:.1f}",
            f"{one['peak_memory_bytes'] / 1e6:,.0f}",
            f"{one['speedup']:.2f}" if "speedup" in one else "",
        ]
        for name, one in found.items()
    ]
    heads = ["", "p50, ms", "p99, ms", "images/s (32)", "MB", "memory, MB", "speedup of p50"]
    table(f"{model} on {machine()['cpu']}", heads, rows)
