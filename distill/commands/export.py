"""``distill export``: a run's student as a folder that is shipped."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distill.commands.options import (
    COUNT,
    EXISTING_FOLDER,
    FOLDER,
    WHOLE,
    json_option,
    option,
    run_options,
    words,
)
from distill.commands.tables import percent, print_json, table, warn, working

if TYPE_CHECKING:
    from distill.deploy.info import ModelInfo


@click.command()
@click.argument("run", type=EXISTING_FOLDER)
@option("--out", "New folder for the model.", FOLDER, required=True)
@option("--formats A,B", "onnx,torch,safetensors.", default="onnx", callback=words)
@option("--precisions A,B", "Of the ONNX graph: float32,float16,int8.", default="float32", callback=words)
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

    It holds class texts, measured accuracy and a model card too. Every file is compared with the student on
    the run's test images before it is kept.

    \b
    Examples:
      distill export runs/first --out models/first
      distill export runs/first --out models/small --precisions float32,float16,int8 --preprocessing graph
    """
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
    heads = ["", "MB", "split", "all classes", "student's", "own classes", "student's", "cosine"]
    heads += ["largest difference"]
    table(f"{out}: {info.arch}, beside the student of {run}", heads, _measured(info))
    click.echo(f"'distill predict {out} PHOTO' labels images; {out / 'README.md'} is the model card")


def _measured(info: ModelInfo) -> list[list[str]]:
    accuracies = ("all_accuracy", "student_all_accuracy", "accuracy", "student_accuracy")
    return [
        [
            name,
            f"{measured['bytes'] / 1e6:.1f}",
            split,
            *(percent(numbers[accuracy]) for accuracy in accuracies),
            f"{numbers['cosine_mean']:.4f}",
            f"{numbers['largest_difference']:.1e}",
        ]
        for name, measured in info.measured.items()
        for split, numbers in measured["splits"].items()
    ]
