"""``distill embed``: unit rows of the pictures of any source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cache.runtime.amounts import rate_of
from distill.commands.options import (
    EXISTING_FOLDER,
    FILE_TO_WRITE,
    batch_size,
    code_option,
    device_option,
    given_options,
    graph_options,
    json_option,
    model_teacher_options,
    option,
)
from distill.commands.source_options import (
    LABEL_OPTIONS,
    class_names_option,
    label_options,
    label_options_of,
)
from distill.commands.tables import print_json, print_left_out, table, working

OF = {
    "model": ("precision", "threads"),
    "run": ("checkpoint", "cache_dir", "code", "device"),
    "cache": ("splits", "teacher_model", "pretrained", "device"),
}
"""Options that say something to one alone."""


@click.command()
@click.argument("by", metavar="MODEL|RUN|CACHE", type=EXISTING_FOLDER)
@click.argument("source", default="")
@option("--out", "rows.parquet, or rows.npy with rows.keys.txt beside it.", FILE_TO_WRITE, required=True)
@batch_size(default=32)
@graph_options
@option("--checkpoint", "Of a RUN: last, best, ema, averaged or mean_head.", default="last")
@option("--cache cache_dir", "A finished cache, of a RUN  [default: its own]", EXISTING_FOLDER)
@code_option
@option("--split splits", "Of a CACHE without SOURCE: this split's rows; repeatable.", multiple=True)
@model_teacher_options
@device_option
@label_options
@class_names_option
@json_option("Print what was written as JSON.")
@click.pass_context
def embed(ctx: click.Context, by: Path, source: str, out: Path, as_json: bool, **given: Any) -> None:
    """Write a unit row of every picture of SOURCE.

    SOURCE is what cache-features takes: a folder, a list, tars, parquet, an address of one, or SPLIT=SOURCE.
    An exported MODEL takes no torch, a RUN gives its student's rows, a CACHE its teacher's: --teacher-model
    embeds SOURCE, without it pictures of the same content have the rows of the cache; without SOURCE
    all its rows are written. parquet has the columns key, split, class and embedding.

    \b
    Examples:
      distill embed models/first photos/ --out rows.parquet
      distill embed runs/first 'shards/{000..099}.tar' --out rows.npy
      distill embed artifacts/photos more/ --teacher-model local-dir:TEACHER --out teacher.parquet
      distill embed artifacts/photos --split train --out train.parquet
    """
    from distill.deploy.embed import CACHE, embedder_of
    from distill.deploy.embed import embed as run
    from distill.deploy.embedder import EmbedOptions

    target = embedder_of(by)
    for kind, names in OF.items():
        for wrong in given_options(ctx, *(name for name in names if name not in OF[target])):
            raise click.UsageError(f"{wrong} is of a {kind.upper()}, and {by} is a {target}: leave it out.")
    if given["pretrained"] and not given["teacher_model"]:
        raise click.UsageError("--pretrained is of --teacher-model: give that too, or leave it out.")
    if not source and target != CACHE:
        raise click.UsageError(f"{by} is a {target}: name a SOURCE of pictures.")
    if source and given["splits"]:
        raise click.UsageError("--split is of a CACHE's own rows: leave it out, or SOURCE.")
    if not source and (own := given_options(ctx, "teacher_model", "device", *LABEL_OPTIONS)):
        raise click.UsageError(f"{own[0]} is of a SOURCE: name one, or leave it out.")
    sources = label_options_of({**given})
    chosen = {name: value for name, value in given.items() if name not in LABEL_OPTIONS}
    with working("embedding") as progress:
        done = run(by, source, out, EmbedOptions(**chosen, sources=sources), progress=progress)
    if as_json:
        print_json(done.to_json())
        return
    rows = {
        "rows": f"{done.rows:,} of {done.embed_dim:,} numbers",
        "by": f"the {'teacher of the cache' if done.by == CACHE else done.by} {by}",
        "rate": rate_of(done.rows / max(done.seconds, 1e-9), "images"),
        **({"keys": str(done.keys)} if done.keys else {}),
    }
    table(str(out), ["", ""], list(rows.items()))
    print_left_out({source: done.left_out})
