"""``distill adapt``: from photos and a list of names to a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.runtime.amounts import in_bytes
from cache.runtime.errors import printable
from distill.commands.options import (
    EXISTING_FOLDER,
    FOLDER,
    WEIGHTS,
    code_option,
    device_option,
    json_option,
    names_option,
    option,
    seed_option,
    wants_weights,
)
from distill.commands.tables import loading, percent, print_json, table, working

if TYPE_CHECKING:
    from distill.adapt.outcome import Outcome

TEACHER = "ViT-L-14-quickgelu"
SPLITS = {
    "id_test": "names with labelled photos",
    "ood_test": "new names",
    "id_val": "set aside to choose on",
    "pool_val": "as the teacher answers",
}


def _budget(ctx: click.Context, option: click.Parameter, value: str | None) -> float | None:
    from distill.adapt.options import seconds_of

    try:
        return seconds_of(value) if value is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error), ctx=ctx, param=option) from error


@click.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1)
@names_option("The names to tell apart")
@option(
    "--out",
    "The model's folder; its work/ keeps cache and runs. Run again, it goes on.",
    FOLDER,
    required=True,
)
@option("--budget TIME", "How long it may take, such as 10m  [default: the whole recipe]", callback=_budget)
@option(
    "--model",
    "The teacher, which reads texts: open_clip name, local-dir:FOLDER, hf-hub:ORG/REPO or FILE.py:NAME.",
    default=TEACHER,
)
@option("--pretrained TAG|FILE", WEIGHTS, default="openai")
@option(
    "--cache",
    "A finished cache in place of --names and teacher; SOURCE where its photos moved.",
    EXISTING_FOLDER,
)
@option("--arch", "The student: a torchvision or timm name  [default: tf_efficientnet_lite0]")
@option("--start", "Its first weights: pretrained, scratch, or a file  [default: pretrained]")
@code_option
@seed_option("Decides the order and augmentation.")
@device_option
@json_option("Print what came of it as JSON.")
@click.pass_context
def adapt(
    ctx: click.Context, sources: tuple[str, ...], out: Path, cache: Path | None, as_json: bool, **given: Any
) -> None:
    """Make a small classifier from photos and a list of names.

    A SOURCE is a folder or a list (.csv: path,label). Photos need no label; a folder that is called as a name
    labels what is in it, and so does a list. The teacher looks at every photo; seconds later there is a model
    that can be used, which training replaces by a better one.

    \b
    Examples:
      distill adapt photos --names names.txt --out model
      distill adapt photos labels.csv --names names.txt --out model --budget 10m
      distill adapt --cache artifacts/photos --out model
    """
    from distill.adapt.first_look import first_look
    from distill.adapt.options import AdaptOptions

    if ":" in given["model"] and ctx.get_parameter_source("pretrained") == click.core.ParameterSource.DEFAULT:
        given["pretrained"] = None
    if cache is None:
        wants_weights(given)
    options = AdaptOptions(sources=sources, out=out, cache=cache, **given)
    seen = first_look(options)
    with loading():
        from distill.adapt.run import adapt as make
    with working("adapting") as progress:
        outcome = make(options, progress=progress, seen=seen)
    if as_json:
        print_json(outcome.to_json())
        return
    _print(outcome)


def _print(outcome: Outcome) -> None:
    from distill.adapt.students import IN_WORDS

    heads = {"closed-form": "closed form", "head": "head", "run": "trained", "teacher": "teacher"}
    rows = [
        [
            SPLITS[split],
            *(percent(numbers[name]) if name in numbers else "" for name in heads),
            percent(numbers["all_accuracy"]) if "all_accuracy" in numbers else "",
            f"{100 * numbers['all_ece']:.1f}" if "all_ece" in numbers else "",
            f"{numbers.get('images', 0):,.0f}" if "images" in numbers else "",
        ]
        for split, numbers in outcome.splits.items()
    ]
    columns = ["right on", *heads.values(), "the model, all names", "ECE, points", "photos"]
    info, files = outcome.info, outcome.files
    table(f"{outcome.model}: {IN_WORDS[outcome.shipped]}, macro accuracy", columns, rows)
    lines = [
        f"{info.arch}, {info.parameters / 1e6:.1f} million parameters, {in_bytes(outcome.bytes)}; a photo "
        f"takes {outcome.latency['p50']:.1f} ms (p50; p99 {outcome.latency['p99']:.1f}) on this CPU",
        outcome.rejection,
        *outcome.notes,
        "took " + ", ".join(f"{stage} {seconds:,.0f} s" for stage, seconds in outcome.seconds.items()),
        f"card {files['card']}; report {files['report']}; go on with {files['run']}",
        f"next: distill predict {outcome.model} photo.jpg",
    ]
    for line in filter(None, lines):
        click.echo(printable(line))
