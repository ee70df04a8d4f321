"""``distill split``: a folder of classes becomes ID and OOD splits."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from distill.commands.options import EXISTING_FOLDER, FILE, FOLDER, SEED, json_option, option
from distill.commands.tables import print_json, working

WAYS = {
    "lists": ("dataset", "lists", "allow_missing"),
    "class list": ("ood_classes", "id_test", "seed"),
    "ratio": ("ood", "id_test", "seed"),
}
"""The options of each way to split."""


@click.command()
@click.argument("source", type=EXISTING_FOLDER)
@option("--out", "The new data folder: train, val_on_train, val.", FOLDER, required=True)
@option("--dataset NAME", "A data set of the paper, split by its published lists.")
@option("--lists", "Folder of train_data.txt, val_on_train_data.txt, val_data.txt.", EXISTING_FOLDER)
@option("--ood-classes", "The OOD classes, one folder a line; the others are ID.", FILE)
@option("--ood", "Share of classes that are OOD, drawn with --seed  [default: 0.5]", float)
@option("--id-test", "Share of each ID class's images held out  [default: 0.3]", float)
@option("--seed", "Decides what is drawn  [default: 0]", SEED)
@option("--copy", "Copy the images instead of linking to them.", bool)
@option("--allow-missing", "Leave out images that a list names and SOURCE lacks.", bool)
@json_option("Print the summary as JSON.")
def split(source: Path, as_json: bool, **given: Any) -> None:
    """Split SOURCE into training, ID test and OOD test images.

    \b
    Examples:
      distill split CUB --out data/cub --dataset CaltechBirds --lists CUB/lists
      distill split photos --out data/photos --ood 0.5 --id-test 0.3 --seed 0
      distill split photos --out data/photos --ood-classes unseen.txt
    """
    from cache.prepare.split import split_images

    with working("splitting") as progress:
        summary = split_images(source, progress=progress, **_of_one_way(given))
    if as_json:
        print_json({**asdict(summary), "out": str(summary.out)})
        return
    for line in summary.lines():
        click.echo(line)


def _of_one_way(given: dict[str, Any]) -> dict[str, Any]:
    """Return what was given of one way to split; UsageError when ways are mixed."""
    way = "lists" if given["dataset"] or given["lists"] else "class list" if given["ood_classes"] else "ratio"
    if way == "lists" and not (given["dataset"] and given["lists"]):
        raise click.UsageError("--dataset and --lists belong together: give both.")
    given = {name: value for name, value in given.items() if value is not None and value is not False}
    for name in (name for name in given if name not in (*WAYS[way], "out", "copy")):
        raise click.UsageError(f"--{name.replace('_', '-')} does not go with a split by {way}: leave it out.")
    return given
