"""``distill evaluate``: how good a run's student, or a cache's teacher, is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.runtime.errors import printable
from distill.commands.options import (
    EXISTING_FOLDER,
    device_option,
    given_options,
    json_option,
    label2text_option,
    model_teacher_options,
    option,
    options,
    refuse_given,
    run_options,
)
from distill.commands.source_options import LABEL_OPTIONS, label_options, label_options_of
from distill.commands.tables import (
    GROUPS,
    accuracy_table,
    number,
    object_table,
    percent,
    print_json,
    print_one_class,
    print_other_data,
    table,
    warn,
)

if TYPE_CHECKING:
    from distill.judge.evaluate import SplitResult


# Those that say how the images and the classes of --on are read.
OF_ON = ("templates", "label2text", "teacher_model", "pretrained", *LABEL_OPTIONS)
on_options = options(
    option(
        "--template TEXT templates",
        "--on: class names in this, as 'a sketch of {}'. Repeatable: averaged  [default: the bank's]",
        multiple=True,
    ),
    label2text_option,
    model_teacher_options,
    label_options,
)


@click.command()
@click.argument("folder", metavar="RUN_OR_CACHE", type=EXISTING_FOLDER)
@option("--teacher", "The folder is a cache: judge its teacher, from the cache alone.", bool)
@run_options
@option("--split splits", "train, id_val, id_test, ood_test. Repeatable  [default: tests]", multiple=True)
@option("--text", "Text bank that classifies  [default: the run's own; labels for a teacher]")
@option("--negative-text", "Episodes: text bank of the negative prompts  [default: the run's own]")
@option("--space", "Compare the student's embeddings with the teacher's instead.", bool)
@option("--check", "Compare each file of the cache with its checksum when it is first read.", bool)
@option(
    "--on SOURCE on", "Judge zero-shot on these labelled images; [SPLIT=]SOURCE, repeatable.", multiple=True
)
@on_options
@device_option
@json_option("Print accuracies, losses and every class, or object, as JSON.")
@click.pass_context
def evaluate(
    ctx: click.Context, folder: Path, teacher: bool, space: bool, as_json: bool, **given: Any
) -> None:
    """Judge a run's student, or a cache's teacher.

    How well it classifies, overall, ID and OOD classes; of episodes, how well it finds objects. The teacher
    of episodes is judged on the main camera alone.

    \b
    Examples:
      distill evaluate runs/first --split ood_test
      distill evaluate runs/first --space
      distill evaluate artifacts/photos --teacher
      distill evaluate runs/first --on other-photos --template 'a photo of a {}'
    """
    from distill.judge.evaluate import both_kinds
    from distill.judge.trained_run import evaluate_run
    from distill.robotics.metrics import EpisodeResult

    _refuse_together(ctx, given["on"], teacher=teacher, space=space)
    if on := given.pop("on"):
        _print_on(folder, on, given, as_json)
        return
    for name in OF_ON:
        del given[name]
    if space:
        _print_space(folder, given, as_json)
        return
    results: dict[str, Any] = (
        _teacher_results(folder, given) if teacher else evaluate_run(folder, note=warn, **given)
    )
    print_other_data(results)
    title = f"teacher of {folder}" if teacher else str(folder)
    of_episodes = any(isinstance(result, EpisodeResult) for result in results.values())
    both = {} if of_episodes else both_kinds(results)
    if as_json:
        print_json({**{name: result.to_json() for name, result in results.items()}, **both})
        return
    if of_episodes:
        groups = {
            f"{name}{GROUPS[group]}": metrics
            for name, result in results.items()
            for group, metrics in result.groups.items()
        }
        object_table(title, groups)
    else:
        splits = {name: {**r.metrics(), **_about(r)} for name, r in results.items()}
        accuracy_table(f"{title}: macro accuracy in percent", splits, both)
        print_one_class({name: len(r.per_class) for name, r in results.items()}, splits)
    for result in results.values():
        for key, reason in result.unreadable.items():
            click.echo(printable(f"skipped {result.split}/{key}: {reason}"))


def _refuse_together(ctx: click.Context, on: tuple[str, ...], *, teacher: bool, space: bool) -> None:
    """Refuse options that exclude each other."""
    if on and (teacher or space):
        raise click.UsageError("--on judges a run's student: leave out --teacher and --space.")
    if on and given_options(ctx, "data_dir", "negative_text"):
        raise click.UsageError("--on says which images: leave out --data and --negative-text.")
    if not on:
        refuse_given(ctx, *OF_ON, without="--on")
    if teacher and space:
        raise click.UsageError("--space compares a student with its teacher: leave out --teacher.")
    if teacher and given_options(ctx, "data_dir", "cache_dir"):
        raise click.UsageError("--teacher judges from the cache alone: leave out --data and --cache.")


def _print_on(run: Path, on: tuple[str, ...], given: dict[str, Any], as_json: bool) -> None:
    from distill.deploy.elsewhere import Elsewhere, evaluate_elsewhere

    words = {name: given.pop(name) for name in ("templates", "label2text", "teacher_model", "pretrained")}
    del given["data_dir"], given["negative_text"]
    where = Elsewhere(sources=on, options=label_options_of(given), **words)
    results = evaluate_elsewhere(run, where, note=warn, **given)
    if as_json:
        print_json({name: one.to_json() for name, one in results.items()})
        return
    for name, one in results.items():
        result = one.result
        rows = [
            ["top-1", percent(one.top1_accuracy)],
            ["mean of classes", percent(result.accuracy)],
            ["chance", percent(result.chance)],
            ["images", f"{result.images:,}"],
            ["classes", f"{len(result.per_class):,}"],
        ]
        table(f"{run} {name}: classes told by {one.text}", ["", ""], rows)
        classes = sorted(result.per_class.items(), key=lambda item: item[1])
        table("each class, the worst first", ["class", "accuracy"], [[n, percent(v)] for n, v in classes])
        if len(result.per_class) == 1:
            click.echo(f"note: {name} has one class: any answer is right, and the number tells nothing")
        for key, reason in result.unreadable.items():
            click.echo(printable(f"skipped {name}/{key}: {reason}"))


def _about(result: SplitResult) -> dict[str, float]:
    """Return what stands beside a split's metrics: chance, how many images and classes."""
    return {"chance": result.chance, "images": result.images, "classes": len(result.per_class)}


def _teacher_results(cache: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    from distill.judge.evaluate import evaluate_teacher

    banks = {name: given[name] for name in ("text", "negative_text") if given[name]}
    return evaluate_teacher(cache, splits=given["splits"], check=given["check"], **banks)


def _print_space(run: Path, given: Mapping[str, Any], as_json: bool) -> None:
    from distill.judge.trained_run import space_of_run

    space = space_of_run(run, note=warn, **given)
    if as_json:
        print_json(space)
        return
    metrics = dict.fromkeys(name for of_split in space.values() for name in of_split)
    rows = [[name, *(number(of_split.get(name)) for of_split in space.values())] for name in metrics]
    table(f"{run}: student beside teacher", ["", *space], rows)
