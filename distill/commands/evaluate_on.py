"""``distill evaluate RUN --on SOURCE``: its options, and what it prints."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.runtime.errors import printable, some_of
from distill.commands.options import (
    given_options,
    label2text_option,
    model_teacher_options,
    names_option,
    option,
    options,
    refuse_given,
    template_option,
)
from distill.commands.source_options import LABEL_OPTIONS, label_options, label_options_of
from distill.commands.tables import SKIPPED, percent, print_json, print_left_out, table, warn, working

if TYPE_CHECKING:
    from distill.deploy.elsewhere import ElsewhereResult

# Of more classes than this the worst and the best are shown, half of it each.
CLASSES = 40
_WORDING = ("templates", "label2text", "teacher_model", "pretrained")

on_options = options(
    option(
        "--on SOURCE on",
        "Judge zero-shot on these labelled images; [SPLIT=]SOURCE, repeatable.",
        multiple=True,
    ),
    names_option("--on: the classes that compete  [default: the images']"),
    template_option("; of --on  [default: the bank's]"),
    label2text_option,
    model_teacher_options,
    label_options,
)


def refuse_beside_on(ctx: click.Context, on: tuple[str, ...], *, of_cache: bool, space: bool) -> None:
    """Refuse options that say nothing to ``--on``, or nothing without it."""
    if on and of_cache:
        raise click.UsageError("--on judges a run's student: give a run, and leave --teacher out.")
    if on and space:
        raise click.UsageError("--on judges by the images' labels: leave out --space.")
    if on and given_options(ctx, "data_dir", "negative_text"):
        raise click.UsageError("--on says which images: leave out --data and --negative-text.")
    if not on:
        refuse_given(ctx, *_WORDING, *LABEL_OPTIONS, without="--on")


def without_on(given: dict[str, Any]) -> dict[str, Any]:
    """Return what a command was given but for :data:`on_options`."""
    return {name: value for name, value in given.items() if name not in (*_WORDING, *LABEL_OPTIONS, "on")}


def print_on(run: Path, given: dict[str, Any], as_json: bool) -> None:
    """Judge a run on other images, and print how well it does."""
    from distill.deploy.class_heads import Wording
    from distill.deploy.elsewhere import Elsewhere, evaluate_elsewhere

    wording = Wording(**{name: given[name] for name in _WORDING}, bank_alone=given["text"] is not None)
    where = Elsewhere(sources=given["on"], options=label_options_of({**given}), wording=wording)
    opening = {n: v for n, v in without_on(given).items() if n not in ("data_dir", "negative_text")}
    with working("evaluate") as progress:
        results, left_out = evaluate_elsewhere(run, where, note=warn, progress=progress, **opening)
    if as_json:
        print_json({**{n: one.to_json() for n, one in results.items()}, "left_out": left_out.as_table()})
        return
    for name, one in results.items():
        _print_result(f"{run} {name}", one)
    print_left_out({", ".join(given["on"]): left_out})


def _print_result(title: str, one: ElsewhereResult) -> None:
    result, name = one.result, one.result.split
    kinds = {"it was trained on": one.trained, "new to it": one.new}
    rows = [
        ["top-1", percent(one.top1_accuracy)],
        ["mean of classes", percent(result.accuracy)],
        *(
            [f"mean of those {words} ({len(classes):,})", percent(mean)]
            for words, classes in kinds.items()
            if (mean := one.mean_of(classes)) is not None
        ),
        ["chance", percent(one.chance)],
        ["images", f"{result.images:,}"],
        ["classes", f"{len(one.counts):,}"],
    ]
    table(f"{title}: classes told by {one.text}", ["", ""], rows)
    classes = [
        [name, percent(value), f"{one.counts[name]:,}", "" if name in one.trained else "new"]
        for name, value in sorted(result.per_class.items(), key=lambda item: item[1])
    ]
    columns = ["class", "accuracy", "images", ""]
    if len(classes) <= CLASSES:
        table("each class, the worst first", columns, classes)
    else:
        table(f"the worst {CLASSES // 2} classes", columns, classes[: CLASSES // 2])
        table(f"the best {CLASSES // 2} classes (--json has all)", columns, classes[-CLASSES // 2 :])
    empty = [name for name, count in one.counts.items() if not count]
    if empty:
        click.echo(
            printable(f"note: classes without an image compete too ({len(empty):,}): {some_of(empty)}")
        )
    if len(one.counts) == 1:
        click.echo(f"note: {name} has one class: any answer is right, and the number tells nothing")
    for key, reason in islice(result.unreadable.items(), SKIPPED):
        click.echo(printable(f"skipped {name}/{key}: {reason}"))
    if len(result.unreadable) > SKIPPED:
        click.echo(f"skipped {len(result.unreadable) - SKIPPED:,} more (--json has all)")
