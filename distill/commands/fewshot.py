"""``distill fewshot``: a run's student, and a few labelled images of OOD classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from distill.commands.episodes import EPISODES, PHOTOS, refuse_other
from distill.commands.options import (
    AMOUNT,
    COUNT,
    EXISTING_FOLDER,
    FOLDER,
    check_run,
    device_option,
    json_option,
    numbers,
    option,
    run_options,
    set_option,
    words,
)
from distill.commands.tables import loading, mean, print_json, table, warn, working

RETRIEVAL = ("alpha", "beta", "search", "support_views", "average", "text_share")
SHOTS = {"before": "zero-shot", "ood_query": "ood_query", "id_test": "id_test"}
OF_EPISODES = {
    "before_id_objects": "ID before",
    "before_ood_objects": "OOD before",
    "after_id_objects": "ID after",
    "after_ood_objects": "OOD after",
}
"""Columns of the results, and their headings."""
METHODS = ("finetune", "retrieval", "project")


def _methods(ctx: click.Context, option: click.Parameter, value: str) -> tuple[str, ...]:
    """Read a,b as names of methods."""
    methods = tuple(dict.fromkeys(words(ctx, option, value)))
    wrong = next((name for name in methods if name not in METHODS), None if methods else "")
    if wrong is not None:
        raise click.BadParameter(f"{wrong!r:.80} is none of {', '.join(METHODS)}", ctx=ctx, param=option)
    return methods


@click.command()
@click.argument("run", type=EXISTING_FOLDER)
@option("--shots N,N,...", "Images of each OOD class.", default="5", callback=numbers)
@option("--episodes N,N,...", "Episodes: OOD episodes to learn from.", default="50", callback=numbers)
@option(
    "--method M,M,... methods",
    "finetune: train on them too; retrieval: among their rows; project: the last layer refitted, in seconds.",
    default="finetune",
    callback=_methods,
)
@option("--out", "Where results go; of several methods OUT/METHOD  [default: RUN/fewshot-METHOD]", FOLDER)
@option(
    "--support-seed N,N,... support_seeds",
    "Draw the images, once a seed  [default: the first, sorted]",
    callback=numbers,
)
@option("--alpha", "Retrieval: weight of the support.", AMOUNT, 1.0)
@option("--beta", "Retrieval: its sharpness.", AMOUNT, 5.5)
@option("--search", "Retrieval: choose both on this ID split, never on OOD.", ["id_val", "id_test"])
@option(
    "--support-views",
    "Retrieval: how many of the views that 'cache-features --support-views' keeps count  [default: all]",
    COUNT,
)
@option("--average-views average", "Retrieval: one row an image, the mean of those views.", bool)
@option("--text-share", "Project: share of the class's text in a target.", click.FloatRange(0, 1), 0.5)
@option("--epochs", "Finetune: epochs  [default: 20]", COUNT, setting="train.epochs")
@option(
    "--lr",
    "Finetune: highest rate  [default: 0.001, of episodes 0.0005; with AdamW 0.0002]",
    float,
    setting="optim.lr",
)
@set_option("Finetune: any setting. Repeatable.")
@run_options
@device_option
@json_option("Print the results as JSON.")
@click.pass_context
def fewshot(ctx: click.Context, run: Path, out: Path | None, as_json: bool, **given: Any) -> None:
    """Teach RUN's student OOD classes from a few images.

    It is judged on the other images; of episodes, on the other episodes.

    \b
    Examples:
      distill fewshot runs/first --shots 5 --method finetune
      distill fewshot runs/first --shots 1,2,4,8 --method retrieval --support-seed 0,1,2
      distill fewshot runs/first --shots 1,2,4,8 --method project,retrieval
      distill fewshot runs/robot --episodes 10,50
    """
    check_run(run, given["checkpoint"])
    with loading():
        from distill.fewshot.methods import teach_by_all
        from distill.fewshot.retrieval import Retrieval
        from distill.fewshot.run import FewShotOptions
        from distill.judge.open_run import open_trained
        from distill.train.stopping import Stopped

    methods = given.pop("methods")
    places = {name: given.pop(name) for name in ("data_dir", "cache_dir", "code")}
    opening = {"checkpoint": given["checkpoint"], "device": given["device"], **places}
    trained = open_trained(run, note=warn, **opening)
    contents = EPISODES if trained.cache.holds_episodes else PHOTOS
    refuse_other(ctx, contents, photos=["shots", *RETRIEVAL], episodes=["episodes"])
    if contents == EPISODES and methods != ("finetune",):
        raise click.UsageError(
            f"--method {','.join(methods)} is for photos, and these are episodes: leave it out."
        )
    if contents == EPISODES:
        given["shots"] = given["episodes"]
    del given["episodes"]
    folders = {name: out / name if out else run / f"fewshot-{name}" for name in methods}
    if out and len(methods) == 1:
        folders = {methods[0]: out}
    both = folders[methods[0]] if len(methods) == 1 else out or run
    if given["device"] != "auto":
        given["settings"] = (f'train.device="{given["device"]}"', *given["settings"])
    retrieval = Retrieval(**{name: given.pop(name) for name in ("alpha", "beta", "support_views", "average")})
    options = FewShotOptions(**given, retrieval=retrieval)
    with working("finetuning", trained.model.unit) as progress:
        try:
            results = teach_by_all(trained, folders, both, options, progress)
        except Stopped as stopped:
            stopped.add_note("For few-shot runs: the same command.")
            raise
    if as_json:
        print_json(results[methods[0]] if len(methods) == 1 else results)
        return
    _print(run, results, SHOTS if contents == PHOTOS else OF_EPISODES)
    click.echo(f"plot in {both / 'fewshot.png'}, all numbers in {both / 'fewshot.json'}")


def _print(run: Path, results: dict[str, Any], every: dict[str, str]) -> None:
    """Print the table of a method, or of several, one under the other."""
    tables = {name: one["table"] for name, one in results.items()}
    lines = [(name, row) for name, rows in tables.items() for row in rows]
    columns = {name: every[name] for name in every if any(row[name] is not None for _, row in lines)}
    first = ["shots" if every is SHOTS else EPISODES, *columns.values(), "draws"]
    cells = [
        [method, str(row["shots"]), *(mean(row, name) for name in columns), str(row["draws"])]
        for method, row in lines
    ]
    alone = len(results) == 1
    title = f"{run}: {', '.join(results)}, {next(iter(results.values()))['headline']}"
    table(title, first if alone else ["method", *first], [own[alone:] for own in cells])
