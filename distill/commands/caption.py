"""``distill caption``: a caption of every image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from distill.commands.options import (
    EXISTING_FOLDER,
    FILE_TO_WRITE,
    batch_size,
    device_option,
    option,
    workers_option,
)
from distill.commands.tables import working


@click.command()
@click.argument("data", type=EXISTING_FOLDER)
@option("--model", "A transformers image-to-text model: a folder or a hub name.", required=True)
@option("--out", "The file to write  [default: DATA/captions.jsonl]", FILE_TO_WRITE)
@option("--split splits", "train, id_test, ood_test. Repeatable  [default: all]", multiple=True)
@batch_size(default=16)
@workers_option
@device_option
def caption(data: Path, workers: int | None, **given: Any) -> None:
    """Write one caption of every image of DATA.

    They are for cache-features --captions. An image that cannot be captioned gets 'a photo'. Run again, it
    goes on.

    Example: distill caption photos --model Salesforce/blip-image-captioning-base
    """
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
