"""``distill export``, ``texts``, ``bench-model``: a student that is shipped, its texts, its speed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.runtime.errors import printable
from distill.commands.episodes import EPISODES, PHOTOS, UNITS
from distill.commands.options import (
    COUNT,
    EXISTING_FOLDER,
    FILE_TO_WRITE,
    FOLDER,
    THREADS,
    WHOLE,
    code_option,
    device_option,
    json_option,
    model_teacher_options,
    option,
    refuse_given,
    run_options,
    words,
)
from distill.commands.tables import percent, print_json, table, warn, working

if TYPE_CHECKING:
    from distill.deploy.info import ModelInfo

ACCURACIES = {
    "all_accuracy": "all classes",
    "student_all_accuracy": "student's",
    "accuracy": "own classes",
    "student_accuracy": "student's",
}
OBJECTS = {
    "average_precision": "average precision",
    "student_average_precision": "student's",
    "precision": "precision",
    "recall": "recall",
}


@click.command()
@click.argument("run", type=EXISTING_FOLDER)
@option("--out", "New folder for the model.", FOLDER, required=True)
@option("--formats A,B", "onnx,torch,safetensors.", default="onnx", callback=words)
@option("--precisions A,B", "Of the ONNX graph: float32,float16,int8.", default="float32", callback=words)
@option("--int8", "qat: a few epochs fit the weights of the int8 file to it.", ["static", "qat"], "static")
@option(
    "--preprocessing",
    "graph: the ONNX graph takes uint8 photos of any size.",
    ["outside", "graph"],
    "outside",
)
@option("--teacher NAME", "Of several teachers: whose embedding  [default: the first]")
@option("--license", "For the model card, e.g. mit.", default="unknown")
@option("--check-images", "Images of each test split that files are compared on.", COUNT, 2000)
@option("--neighbours", "Small training images that go along, for 'distill serve'.", WHOLE, 200)
@run_options
@json_option("Print model.json's numbers as JSON.")
def export(run: Path, out: Path, as_json: bool, **given: Any) -> None:
    """Write a folder that stands alone with RUN's student.

    A student of photos or of episodes; it holds class texts, measured accuracy and a model card too. Every
    file is compared with the student on the run's test images before it is kept.

    \b
    Examples:
      distill export runs/first --out models/first
      distill export runs/first --out models/small --precisions float32,float16,int8 --preprocessing graph
      distill export runs/first --out models/int8 --int8 qat
    """
    from distill.deploy.card import notes_on
    from distill.deploy.export import ExportOptions, export_run

    chosen = ExportOptions(**given)
    with working("exporting") as progress:
        info = export_run(run, out, chosen, progress=progress)
    for name in info.unlike:
        warn(info.warning(name))
    if as_json:
        rejects = {name: asdict(reject) for name, reject in info.reject.items()}
        print_json({"measured": info.measured, "unlike": info.unlike, "reject": rejects})
        return
    of_episodes = info.objects is not None
    told = {name for measured in info.measured.values() for n in measured["splits"].values() for name in n}
    columns = {name: head for name, head in (OBJECTS if of_episodes else ACCURACIES).items() if name in told}
    heads = ["", "MB", "split", *columns.values(), "cosine", "largest difference"]
    table(f"{out}: {info.arch}, beside the student of {run}", heads, _measured(info, tuple(columns)))
    for note in notes_on(info):
        click.echo(f"note: {note}")
    what = "EPISODES.h5' names objects" if of_episodes else "PHOTO' labels images"
    click.echo(f"'distill predict {out} {what}; {out / 'README.md'} is the model card")


def _measured(info: ModelInfo, percentages: tuple[str, ...]) -> list[list[str]]:
    return [
        [
            name,
            f"{measured['bytes'] / 1e6:.1f}",
            split,
            *(percent(numbers[name]) if name in numbers else "" for name in percentages),
            f"{numbers['cosine_mean']:.4f}",
            f"{numbers['largest_difference']:.1e}",
        ]
        for name, measured in info.measured.items()
        for split, numbers in measured["splits"].items()
    ]


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
        from distill.deploy.add_texts import TowerSource, add_texts

        bank, template = given.pop("bank"), given.pop("template")
        added = add_texts(model, add, TowerSource(**given), bank=bank, template=template)
        if not as_json:
            names = ", ".join(repr(label) for label in added)
            click.echo(f"added {names} to the text bank {bank!r} of {model}")
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


@click.command()
@click.argument("model", type=EXISTING_FOLDER)
@option("--rounds", "Turns of each.", COUNT, 3)
@option("--repeats", "Of one image, or episode, each turn.", click.IntRange(min=2), 50)
@option("--threads", "Of each candidate.", THREADS, 0, show_default="all cores")
@option("--run", "The run that was exported, for its torch student.", EXISTING_FOLDER)
@code_option
@model_teacher_options
@option("--out", "Write the numbers to this JSON file as well.", FILE_TO_WRITE)
@json_option("Print them as JSON.")
def bench_model(model: Path, out: Path | None, as_json: bool, **given: Any) -> None:
    """Measure MODEL on this CPU.

    With onnxruntime, beside the torch student (the exported weights or the --run's) and the --teacher-model
    if they are given: latency of one image, or episode, how many a second in batches of 32, size, peak
    memory; each in processes of its own that take turns.

    Example: distill bench-model models/first --run runs/first --out bench.json
    """
    from cache.runtime.atomic_files import write_json
    from distill.deploy.bench import BenchOptions, machine
    from distill.deploy.bench import bench_model as measure
    from distill.deploy.info import ModelInfo

    with working("measuring", "turns") as progress:
        measured = measure(model, BenchOptions(**given), progress=progress)
    how = {name: given[name] for name in ("rounds", "repeats", "threads")}
    result = {"machine": machine(), **how, "found": measured}
    if out is not None:
        write_json(out, result)
    if as_json:
        print_json(result)
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
        for name, one in measured.items()
    ]
    unit = UNITS[PHOTOS if ModelInfo.load(model).objects is None else EPISODES]
    heads = ["", "p50, ms", "p99, ms", f"{unit}/s (32)", "MB", "memory, MB", "speedup of p50"]
    table(f"{model} on {result['machine']['cpu']}", heads, rows)
