"""``distill bench-model``: how fast an exported model is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from distill.commands.options import (
    COUNT,
    EXISTING_FOLDER,
    FILE_TO_WRITE,
    THREADS,
    json_option,
    model_teacher_options,
    option,
)
from distill.commands.tables import print_json, table, working


@click.command()
@click.argument("model", type=EXISTING_FOLDER)
@option("--rounds", "Turns of each.", COUNT, 3)
@option("--repeats", "Of one image, each turn.", click.IntRange(min=2), 50)
@option("--threads", "Of each candidate.", THREADS, 0, show_default="all cores")
@option("--run", "The run that was exported, for its torch student.", EXISTING_FOLDER)
@model_teacher_options
@option("--out", "Write the numbers to this JSON file as well.", FILE_TO_WRITE)
@json_option("Print them as JSON.")
def bench_model(model: Path, out: Path | None, as_json: bool, **given: Any) -> None:
    """Measure MODEL on this CPU.

    With onnxruntime, beside the torch student (the exported weights or the --run's) and the --teacher-model
    if they are given: latency of one image, images a second in batches of 32, size, peak memory; each in
    processes of its own that take turns.

    Example: distill bench-model models/first --run runs/first --out bench.json
    """
    from cache.runtime.atomic_files import write_json
    from distill.deploy.bench import bench_model as measure
    from distill.deploy.bench import machine

    with working("measuring", "turns") as progress:
        measured = measure(model, progress=progress, **given)
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
    heads = ["", "p50, ms", "p99, ms", "images/s (32)", "MB", "memory, MB", "speedup of p50"]
    table(f"{model} on {result['machine']['cpu']}", heads, rows)
