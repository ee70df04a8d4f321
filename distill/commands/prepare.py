"""What comes before stage 1: splits, descriptions, captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from cache.runtime import machine_limits as bounds
from cli.root import main
from distill.commands.options import BATCH_SIZE, EXISTING_FOLDER, FILE, FILE_TO_WRITE, FOLDER, SEED, WORKERS


@main.command("split")
@click.argument("source", type=EXISTING_FOLDER)
@click.option("--out", required=True, type=FOLDER, help="The new data folder: train, val_on_train, val.")
@click.option("--dataset", metavar="NAME", help="A data set of the paper, split by its published lists.")
@click.option(
    "--lists", type=EXISTING_FOLDER, help="Folder of train_data.txt, val_on_train_data.txt, val_data.txt."
)
@click.option("--ood-classes", type=FILE, help="The OOD classes, one folder a line; the others are ID.")
@click.option("--ood", type=float, help="Share of classes that are OOD, drawn with --seed  [default: 0.5]")
@click.option("--id-test", type=float, help="Share of each ID class's images held out  [default: 0.3]")
@click.option("--seed", type=SEED, help="Decides what is drawn  [default: 0]")
@click.option("--copy", is_flag=True, help="Copy the images instead of linking to them.")
@click.option("--allow-missing", is_flag=True, help="Leave out images that a list names and SOURCE lacks.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def split_command(source: Path, as_json: bool, **given: Any) -> None:
    """Split the images of SOURCE into training images, ID test images and OOD classes.

    \b
    Examples:
      distill split CUB --out data/cub --dataset CaltechBirds --lists CUB/lists
      distill split photos --out data/photos --ood 0.5 --id-test 0.3 --seed 0
      distill split photos --out data/photos --ood-classes unseen.txt
    """
    from cache.prepare.split import split_images
    from cache.runtime.progress import progress_for

    progress = progress_for("splitting")
    try:
        summary = split_images(source, progress=progress, **_split_options(given))
    finally:
        progress.close()
    if as_json:
        from dataclasses import asdict

        click.echo(json.dumps(asdict(summary), indent=2, default=str))
        return
    for line in summary.lines():
        click.echo(line)


def _split_options(given: dict[str, Any]) -> dict[str, Any]:
    """Return what was given of one way to split; UsageError when ways are mixed."""
    ways = {
        "lists": ("dataset", "lists", "allow_missing"),
        "class list": ("ood_classes", "id_test", "seed"),
        "ratio": ("ood", "id_test", "seed"),
    }
    way = "lists" if given["dataset"] or given["lists"] else "class list" if given["ood_classes"] else "ratio"
    if way == "lists" and not (given["dataset"] and given["lists"]):
        raise click.UsageError("--dataset and --lists belong together: give both.")
    known = {*ways[way], "out", "copy"}
    set_ = {name: value for name, value in given.items() if value is not None and value is not False}
    for name in set_:
        if name not in known:
            raise click.UsageError(
                f"--{name.replace('_', '-')} does not go with a split by {way}: leave it out."
            )
    return set_


@main.command()
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
@click.option(
    "--workers",
    default=4,
    show_default=True,
    type=click.IntRange(1, bounds.REQUESTS),
    help="Requests at once.",
)
@click.option(
    "--retries",
    "max_retries",
    default=6,
    show_default=True,
    type=click.IntRange(min=0),
    help="Tries more of a request that failed, each after a longer wait.",
)
def describe(data: Path, **given: Any) -> None:
    """Ask a language model for one description of every class of DATA.

    The key is read from OPENAI_API_KEY. Run again, it goes on.

    Example: distill describe photos --model llama3 --base-url http://localhost:8000/v1
    """
    from cache.prepare.describe import describe as describe_classes
    from cache.runtime.progress import progress_for

    given = {name: value for name, value in given.items() if value is not None}
    progress = progress_for("describing", "classes")
    try:
        summary = describe_classes(data, progress=progress, **given)
    finally:
        progress.close()
    click.echo(
        f"{summary.out}: {summary.classes} descriptions ({summary.asked} asked now, {summary.reused} before)"
    )


@main.command()
@click.argument("data", type=EXISTING_FOLDER)
@click.option("--model", required=True, help="A transformers image-to-text model: a folder or a hub name.")
@click.option("--out", type=FILE_TO_WRITE, help="The file to write  [default: DATA/captions.jsonl]")
@click.option("--split", "splits", multiple=True, help="train, id_test, ood_test. Repeatable  [default: all]")
@click.option("--batch-size", default=16, show_default=True, type=BATCH_SIZE, help="Images at once.")
@click.option("--workers", type=WORKERS, help="Processes that decode  [default: by the machine]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
def caption(data: Path, workers: int | None, **given: Any) -> None:
    """Write one caption of every image of DATA, for cache-features --captions.

    An image that cannot be captioned gets 'a photo'. Run again, it goes on.

    Example: distill caption photos --model Salesforce/blip-image-captioning-base
    """
    from cache.prepare.caption import caption as caption_images
    from cache.runtime.devices import choose_device, default_workers
    from cache.runtime.progress import progress_for

    if workers is None:
        workers = default_workers(choose_device(given["device"]))
    progress = progress_for("captioning")
    try:
        summary = caption_images(data, workers=workers, progress=progress, **given)
    finally:
        progress.close()
    click.echo(
        f"{summary.out}: {summary.images:,} captions ({summary.captioned:,} now, {summary.reused:,} before)"
    )
    for key, reason in summary.failed.items():
        click.echo(f"{key}: 'a photo' ({reason})")
