"""``distill split``, ``describe``, ``caption``: a folder's splits, classes in words, images in words."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cache.runtime import machine_limits as bounds
from cache.runtime.errors import printable
from distill.commands.options import (
    EXISTING_FOLDER,
    FILE,
    FILE_TO_WRITE,
    SEED,
    WHOLE,
    batch_size,
    device_option,
    json_option,
    label2text_option,
    option,
    workers_option,
)
from distill.commands.tables import loading, print_json, working

WAYS = {
    "lists": ("dataset", "lists", "allow_missing"),
    "class list": ("ood_classes", "id_test", "seed"),
    "ratio": ("ood", "id_test", "seed"),
}
"""The options of each way to split."""


@click.command()
@click.argument("source", type=EXISTING_FOLDER)
@option(
    "--out", "The list to write: path, label, split and key of every image.", FILE_TO_WRITE, required=True
)
@option("--dataset NAME", "A data set of the paper, split by its published lists.")
@option("--lists", "Folder of train_data.txt, val_on_train_data.txt, val_data.txt.", EXISTING_FOLDER)
@option("--ood-classes", "The OOD classes, one folder a line; the others are ID.", FILE)
@option("--ood", "Share of classes that are OOD, drawn with --seed  [default: 0.5]", float)
@option("--id-test", "Share of each ID class's images held out  [default: 0.3]", float)
@option("--seed", "Decides what is drawn  [default: 0]", SEED)
@option("--allow-missing", "Leave out images that a list names and SOURCE lacks.", bool)
@json_option("Print the summary as JSON.")
def split(source: Path, as_json: bool, **given: Any) -> None:
    """Split SOURCE into training, ID test and OOD test images.

    What is written is a list that cache-features takes: nothing is copied.

    \b
    Examples:
      distill split CUB --out data/cub/list.csv --dataset CaltechBirds --lists CUB/lists
      distill split photos --out photos.csv --ood 0.5 --id-test 0.3 --seed 0
      distill split photos --out photos.csv --ood-classes unseen.txt
    """
    from cache.prepare.split import split_images

    way = _of_one_way(given)
    with working("listing the images") as progress:
        summary = split_images(source, progress=progress, **way)
    if as_json:
        print_json({**asdict(summary), "out": str(summary.out)})
        return
    for line in summary.lines():
        click.echo(printable(line))


def _of_one_way(given: dict[str, Any]) -> dict[str, Any]:
    """Return what was given of one way to split; UsageError when ways are mixed."""
    way = "lists" if given["dataset"] or given["lists"] else "class list" if given["ood_classes"] else "ratio"
    if way == "lists" and not (given["dataset"] and given["lists"]):
        raise click.UsageError("--dataset and --lists belong together: give both.")
    given = {name: value for name, value in given.items() if value is not None and value is not False}
    for name in (name for name in given if name not in (*WAYS[way], "out")):
        raise click.UsageError(f"--{name.replace('_', '-')} does not go with a split by {way}: leave it out.")
    return given


@click.command()
@click.argument("data")
@option("--model", "The language model's name on that server.", required=True)
@option("--base-url", "An OpenAI-compatible server, e.g. http://localhost:8000/v1  [default: OpenAI's]")
@option("--out", "The file to write  [default: DATA/chatgpt.txt]", FILE_TO_WRITE)
@option("--prompt", "What is asked; {} is the class name  [default: one sentence on its appearance]")
@label2text_option
@option("--workers", "Requests at once.", click.IntRange(1, bounds.REQUESTS), 4)
@option("--retries max_retries", "Tries more of a request that failed, at longer waits.", WHOLE, 6)
def describe(data: str, **given: Any) -> None:
    """Ask a language model to describe every class of DATA.

    The key is read from OPENAI_API_KEY. Run again, it goes on.

    Example: distill describe photos --model llama3 --base-url http://localhost:8000/v1
    """
    from cache.prepare.describe import describe as ask

    given = {name: value for name, value in given.items() if value is not None}
    with working("describing", "classes") as progress:
        summary = ask(data, progress=progress, **given)
    click.echo(
        f"{summary.out}: {summary.classes} descriptions ({summary.asked} asked now, {summary.reused} before)"
    )


@click.command()
@click.argument("data")
@option("--model", "A transformers image-to-text model: a folder or a hub name.", required=True)
@option("--out", "The file to write  [default: DATA/captions.jsonl]", FILE_TO_WRITE)
@option("--split splits", "train, id_test, ood_test. Repeatable  [default: all]", multiple=True)
@batch_size(default=16)
@workers_option
@device_option
def caption(data: str, workers: int | None, **given: Any) -> None:
    """Write one caption of every image of DATA.

    They are for cache-features --captions. An image that cannot be captioned gets 'a photo'. Run again, it
    goes on.

    Example: distill caption photos --model Salesforce/blip-image-captioning-base
    """
    from cache.sources.data import open_data

    open_data(data)  # before torch is imported: there may be none
    with loading():
        from cache.prepare.caption import caption as write_captions
        from cache.runtime.devices import choose_device, default_workers
    if workers is None:
        workers = default_workers(choose_device(given["device"]))
    with working("captioning") as progress:
        summary = write_captions(data, workers=workers, progress=progress, **given)
    click.echo(
        f"{summary.out}: {summary.images:,} captions ({summary.captioned:,} now, {summary.reused:,} before)"
    )
    for key, reason in summary.failed.items():
        click.echo(f"{key}: 'a photo' ({reason})")
