"""Folders that are shipped: export makes one, texts adds to it, bench-model measures it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cache.runtime.errors import printable
from cli.root import main
from distill.commands.options import (
    EXISTING_FOLDER,
    FILE_TO_WRITE,
    FOLDER,
    THREADS,
    options,
    percent,
    refuse_given,
    table,
    warn,
    words,
)

teacher_options = options(
    click.option(
        "--teacher-model", metavar="NAME", help="The teacher: an open_clip name, local-dir:DIR, hf-hub:ID."
    ),
    click.option("--pretrained", metavar="TAG|FILE", help="Its weights."),
)
"""A model's teacher: the model says which that is, and not where it is loaded from."""


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
    from cache.runtime.progress import progress_for
    from distill.deploy.export import ExportOptions, export_run

    chosen = ExportOptions(**given)
    progress = progress_for("exporting")
    try:
        info = export_run(run, out, chosen, progress=progress)
    finally:
        progress.close()
    for name in info.unlike:
        warn(info.warning(name))
    if as_json:
        rejects = {name: asdict(reject) for name, reject in info.reject.items()}
        told = {"measured": info.measured, "unlike": info.unlike, "reject": rejects}
        click.echo(json.dumps(told, indent=2))
        return
    rows = [
        [
            name,
            f"{found['bytes'] / 1e6:.1f}",
            split,
            *(percent(numbers[n]) for n in ("all_accuracy", "student_all_accuracy")),
            *(percent(numbers[n]) for n in ("accuracy", "student_accuracy")),
            f"{numbers['cosine_mean']:.4f}",
            f"{numbers['largest_difference']:.1e}",
        ]
        for name, found in info.measured.items()
        for split, numbers in found["splits"].items()
    ]
    heads = ["", "MB", "split", "all classes", "student's", "own classes", "student's", "cosine"]
    heads += ["largest difference"]
    table(f"{out}: {info.arch}, beside the student of {run}", heads, rows)
    click.echo(f"'distill predict {out} PHOTO' labels images; {out / 'README.md'} is the model card")


@main.command()
@click.argument("model", type=EXISTING_FOLDER)
@click.option("--add", multiple=True, metavar="TEXT", help="A class name or a text to embed. Repeatable.")
@click.option("--bank", default="added", show_default=True, help="Text bank that it is added to.")
@click.option(
    "--template", metavar="'a photo of {}'", help="Put round each name; '{}' is it  [default: the labels']"
)
@click.option(
    "--cache",
    type=EXISTING_FOLDER,
    help="A cache of the model's teacher that keeps its text tower.",
)
@teacher_options
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print the banks and labels as JSON.")
@click.pass_context
def texts(
    ctx: click.Context, model: Path, add: tuple[str, ...], bank: str, as_json: bool, **given: Any
) -> None:
    """List MODEL's text banks, or --add texts that its teacher's text tower embeds.

    The tower is what --cache keeps (cache-features --keep-text-tower), or that of --teacher-model.

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
    teacher = info.source["teacher"]
    click.echo(printable(f"embedded by the teacher {teacher['model']} ({teacher['pretrained']})"))


@main.command("bench-model")
@click.argument("model", type=EXISTING_FOLDER)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="Turns of each.")
@click.option(
    "--repeats", default=50, show_default=True, type=click.IntRange(min=2), help="Of one image, each turn."
)
@click.option("--threads", default=0, show_default="all cores", type=THREADS, help="Of each candidate.")
@click.option("--run", type=EXISTING_FOLDER, help="The run that was exported, for its torch student.")
@teacher_options
@click.option("--out", type=FILE_TO_WRITE, help="Write the numbers to this JSON file as well.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def bench_model(
    model: Path, out: Path | None, as_json: bool, rounds: int, repeats: int, threads: int, **beside: Any
) -> None:
    """Measure MODEL with onnxruntime on this CPU, beside the torch student and a teacher if they are given.

    Latency of one image, images a second in batches of 32, size, peak memory; each in processes of its own
    that take turns. The student is the exported weights or the --run's; the teacher is --teacher-model.

    Example: distill bench-model models/first --run runs/first --out bench.json
    """
    from cache.runtime.atomic_files import write_json
    from cache.runtime.progress import progress_for
    from distill.deploy.bench import bench_model as measure
    from distill.deploy.bench import machine

    progress = progress_for("measuring", "turns")
    try:
        found = measure(model, rounds=rounds, repeats=repeats, threads=threads, progress=progress, **beside)
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
