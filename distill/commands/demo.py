"""``distill demo``: the whole way on a small drawn data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cache.runtime.errors import printable
from distill.commands.options import COUNT, FOLDER, device_option, json_option, option, seed_option
from distill.commands.tables import loading, percent, print_json, table, working

SPLITS = {"id_test": "ID", "ood_test": "OOD"}


@click.command()
@option("--out", "Where everything goes.", FOLDER, "artifacts/demo")
@option("--epochs", "Epochs of the student.", COUNT, 6)
@seed_option("Decides the order and augmentation.")
@device_option
@json_option("Print the results as JSON.")
def demo(out: Path, epochs: int, seed: int, device: str, as_json: bool) -> None:
    """Draw a small data set, and make a model of it.

    A small teacher's embeddings are cached; a head by ridge on a trunk that ships gives the first result, a
    training of all weights a better one; its model is exported and asked of a picture that it never saw.

    Example: distill demo
    """
    from distill.demo.unlabelled import UNKNOWN
    from distill.deploy.new_folder import check_begun

    check_begun(out, out / UNKNOWN, what="demo")
    with loading():
        from distill.demo.run import run_demo

    with working("the demo") as progress:
        result = run_demo(out, epochs=epochs, seed=seed, device=device, progress=progress)
    if as_json:
        print_json(result)
        return
    rows = [[who, *map(percent, numbers.values())] for who, numbers in result["accuracy"].items()]
    table("macro accuracy", ["", "ID", "OOD", "ID, all names", "OOD, all names"], rows)
    off = [
        f"{one['ece']:.1f} on {SPLITS[split]} pictures ({one['before']:.1f} before)"
        for split, one in result["calibration"].items()
    ]
    click.echo(f"calibrated: its probabilities among all names are off by {' and '.join(off)}, in points")
    if "asked" in result:
        _print_asked(result)
    for what, where in result["files"].items():
        click.echo(printable(f"{what}: {where}"))
    for line in _next(result):
        click.echo(printable(f"next: {line}"))


def _print_asked(result: dict[str, Any]) -> None:
    asked = result["asked"]
    answers = ", ".join(f"{one['label']} {one['score']:.0%}" for one in asked["answers"])
    click.echo(result["none_of_these"])
    click.echo(printable(f"{asked['picture']}, a {asked['shows']}: {answers}"))


def _next(result: dict[str, Any]) -> list[str]:
    """Return commands to go on with."""
    files, runs = result["files"], Path(result["files"]["run"]).parent
    lines = [
        f"distill report {runs} --out {runs}/report.html",
        "distill adapt YOUR-PHOTOS --names names.txt --out model",
    ]
    if "asked" in result:
        lines.insert(0, f"distill predict {files['model']} {result['asked']['picture']} --reject")
    return lines
