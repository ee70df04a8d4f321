"""``distill demo``: both stages on a small drawn data set."""

from __future__ import annotations

from pathlib import Path

import click

from distill.commands.options import COUNT, FOLDER, device_option, json_option, option, seed_option
from distill.commands.tables import loading, percent, print_json, table


@click.command()
@option("--out", "Where everything goes.", FOLDER, "artifacts/demo")
@option("--epochs", "Epochs of each student.", COUNT, 14)
@seed_option("Decides first weights and batches.")
@device_option
@json_option("Print the results as JSON.")
def demo(out: Path, epochs: int, seed: int, device: str, as_json: bool) -> None:
    """Draw a small data set, and run both stages on it.

    A small teacher's embeddings are cached, two students trained from them and compared.

    Example: distill demo
    """
    with loading():
        from distill.demo.run import run_demo

    results = run_demo(
        out, epochs=epochs, seed=seed, device=device, say=lambda text: click.echo(text, err=True)
    )
    if as_json:
        print_json(results)
        return
    rows = [[who, percent(r["id_test"]), percent(r["ood_test"])] for who, r in results["accuracy"].items()]
    table("macro accuracy", ["", "ID", "OOD"], rows)
    for what, where in results["files"].items():
        click.echo(f"{what}: {where}")
