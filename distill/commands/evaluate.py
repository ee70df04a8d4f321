"""``distill evaluate``: how good a run's student, or a cache's teacher, is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.runtime.errors import printable
from distill.commands.evaluate_on import on_options, print_on, refuse_beside_on, without_on
from distill.commands.options import (
    EXISTING_FOLDER,
    check_run,
    device_option,
    given_options,
    json_option,
    option,
    run_options,
)
from distill.commands.tables import (
    GROUPS,
    accuracy_table,
    loading,
    number,
    object_table,
    print_json,
    print_one_class,
    print_other_data,
    space_table,
    table,
    warn,
    working,
)

if TYPE_CHECKING:
    from distill.judge.calibration import Calibration
    from distill.judge.evaluate import SplitResult


@click.command()
@click.argument("folder", metavar="RUN_OR_CACHE", type=EXISTING_FOLDER)
@option(
    "--teacher NAME",
    "Of a cache: the one of its teachers that is judged  [default: each]",
    is_flag=False,
    flag_value="",
)
@run_options
@option(
    "--split splits",
    "train, id_val, class_val, id_test, ood_test. Repeatable  [default: tests]",
    multiple=True,
)
@option("--text", "Text bank that classifies  [default: the run's own; labels for a teacher]")
@option("--negative-text", "Episodes: text bank of the negative prompts  [default: the run's own]")
@option("--eval-size", "Another side of the images, pixels  [default: the run's own]", click.IntRange(min=8))
@option(
    "--eval-crop",
    "Another share of the side that is kept  [default: the run's own]",
    click.FloatRange(0.25, 1),
)
@option("--space", "Compare the student's embeddings with the teacher's instead.", bool)
@option("--check", "Compare each file of the cache with its checksum when it is first read.", bool)
@on_options
@device_option
@json_option("Print accuracies, losses and every class, or object, as JSON.")
@click.pass_context
def evaluate(
    ctx: click.Context, folder: Path, teacher: str | None, space: bool, as_json: bool, **given: Any
) -> None:
    """Judge a run's student, or a cache's teachers.

    How well it classifies, overall, ID and OOD classes; of episodes, how well it finds objects. A
    teacher is judged from the cache alone, that of episodes on the main camera.

    \b
    Examples:
      distill evaluate runs/first --split ood_test
      distill evaluate runs/first --space
      distill evaluate artifacts/photos
      distill evaluate runs/first --on other-photos --template 'a photo of a {}'
    """
    from cache.store.manifest import is_cache

    of_cache = teacher is not None or is_cache(folder)
    refuse_beside_on(ctx, given["on"], of_cache=of_cache, space=space)
    if given["on"]:
        check_run(folder, given["checkpoint"])
        print_on(folder, given, as_json)
        return
    given = without_on(given)
    if of_cache:
        _refuse_of_runs(ctx, folder, space=space)
        _print_teachers(folder, teacher or "", given, as_json)
        return
    check_run(folder, given["checkpoint"])
    with loading():
        from distill.judge.calibration_of_run import judge_run
    given |= _size_and_crop(folder, given)
    if space:
        _print_space(folder, given, as_json)
        return
    with working("evaluate") as progress:
        results, calibration = judge_run(folder, note=warn, progress=progress, **given)
    if as_json:
        print_other_data(results)
        others = {name: given[name] for name in ("eval_size", "eval_crop") if given[name] is not None}
        more = {"calibration": asdict(calibration)} if calibration is not None else {}
        print_json({**_as_json(results, others), **more})
        return
    _print_results(f"{folder}{_how(given)}", results)
    if calibration is not None:
        _print_calibration(calibration, [*results])


def _refuse_of_runs(ctx: click.Context, cache: Path, *, space: bool) -> None:
    """Refuse options that say nothing of a cache's teachers."""
    of_runs = given_options(ctx, "data_dir", "cache_dir", "checkpoint", "code", "eval_size", "eval_crop")
    for wrong in [*of_runs, *(["--space"] if space else [])]:
        raise click.UsageError(
            f"{wrong} is of a run's student, and {cache} is judged as a cache, by its teachers' rows: "
            f"leave out {wrong}, or give a run."
        )


def _print_teachers(cache: Path, teacher: str, given: Mapping[str, Any], as_json: bool) -> None:
    """Judge a cache's teacher, or each of several, and print how good they are."""
    with loading():
        from distill.judge.teachers import judge_teachers
    banks = {name: given[name] for name in ("text", "negative_text") if given[name]}
    asked = {name: given[name] for name in ("splits", "check")}
    with working("evaluate") as progress:
        judged = judge_teachers(cache, teacher, note=warn, progress=progress, **asked, **banks)
    if as_json:
        told = {name: _as_json(results, {}) for name, results in judged.items()}
        print_json(told if len(told) > 1 else next(iter(told.values())))
        return
    for name, results in judged.items():
        called = f"teacher {name}" if len(judged) > 1 or teacher else "teacher"
        _print_results(f"{called} of {cache}", results)


def _as_json(results: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Return the splits' results, with more of each, and what both kinds of classes give, as plain values."""
    of_splits = {name: {**result.to_json(), **others} for name, result in results.items()}
    return {**of_splits, **_both(results)}


def _both(results: Mapping[str, Any]) -> dict[str, float]:
    from distill.judge.evaluate import both_kinds
    from distill.robotics.metrics import EpisodeResult

    of_episodes = any(isinstance(result, EpisodeResult) for result in results.values())
    return {} if of_episodes else both_kinds(results)


def _print_results(title: str, results: Mapping[str, Any]) -> None:
    from distill.robotics.metrics import EpisodeResult

    print_other_data(results)
    if any(isinstance(result, EpisodeResult) for result in results.values()):
        _print_objects(title, results)
    else:
        _print_photos(title, results, _both(results))
    for result in results.values():
        for key, reason in result.unreadable.items():
            click.echo(printable(f"skipped {result.split}/{key}: {reason}"))


def _size_and_crop(run: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the size and crop that were asked for, else those that the run chose; None where it did not."""
    from distill.checkpoint import read_checkpoint
    from distill.judge.open_run import chosen_eval_in
    from distill.record.run_files import checkpoint_file

    chosen = chosen_eval_in(read_checkpoint(checkpoint_file(run, given["checkpoint"])))
    return {name: value if given[name] is None else given[name] for name, value in chosen.items()}


def _print_objects(title: str, results: Mapping[str, Any]) -> None:
    groups = {
        f"{name}{GROUPS[group]}": metrics
        for name, result in results.items()
        for group, metrics in result.groups.items()
    }
    object_table(title, groups)


def _print_photos(title: str, results: Mapping[str, SplitResult], both: Mapping[str, float]) -> None:
    from distill.judge.space_of_split import SpaceResult

    of_space = {
        n: {**r.metrics(), "images": r.images} for n, r in results.items() if isinstance(r, SpaceResult)
    }
    results = {name: result for name, result in results.items() if name not in of_space}
    space_table(title, of_space)
    if of_space:
        click.echo("more of the space: --space")
    if not results:
        return
    splits = {name: {**r.metrics(), **_about(r)} for name, r in results.items()}
    accuracy_table(f"{title}: macro accuracy in percent", splits, both)
    print_one_class({name: len(r.per_class) for name, r in results.items()}, splits)


def _print_calibration(calibration: Calibration, asked: Sequence[str]) -> None:
    """Print how far the probabilities of some splits can be believed, before and after the fit."""
    rows = [
        [name, f"{one.classes} {among}", f"{one.images:,}", f"{one.before:.1f}", f"{one.ece:.1f}"]
        for among, splits in (("of its own", calibration.splits), ("all", calibration.among_all))
        for name, one in splits.items()
        if name in asked
    ]
    if rows:
        title = f"probabilities at the temperature {calibration.temperature:.4g}, fitted on "
        heads = ["", "classes", "images", f"ECE at {calibration.trained_with:g}, %", "ECE, %"]
        table(f"{title}{calibration.set_on_words}", heads, rows)


def _how(given: Mapping[str, Any]) -> str:
    """Return in what the images are another size or crop than the run's own, as words."""
    words = {"eval_size": "at {} px", "eval_crop": "the middle {:g} of the side"}
    said = [form.format(given[name]) for name, form in words.items() if given[name] is not None]
    return f" ({', '.join(said)})" if said else ""


def _about(result: SplitResult) -> dict[str, float]:
    """Return what stands beside a split's metrics: chance, how many images and classes."""
    return {"chance": result.chance, "images": result.images, "classes": len(result.per_class)}


def _print_space(run: Path, given: Mapping[str, Any], as_json: bool) -> None:
    from distill.judge.open_run import space_of_run

    with working("evaluate") as progress:
        space = space_of_run(run, note=warn, progress=progress, **given)
    if as_json:
        print_json(space)
        return
    metrics = dict.fromkeys(name for of_split in space.values() for name in of_split)
    rows = [[name, *(number(of_split.get(name)) for of_split in space.values())] for name in metrics]
    table(f"{run}{_how(given)}: student beside teacher", ["", *space], rows)
