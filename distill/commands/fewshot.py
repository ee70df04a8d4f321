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
    device_option,
    json_option,
    numbers,
    option,
    run_options,
    set_option,
)
from distill.commands.tables import mean, print_json, table, warn, working

RETRIEVAL = ("alpha", "beta", "search", "views", "average", "texts")
SHOTS = {"before": "zero-shot", "ood_query": "ood_query", "id_test": "id_test"}
OF_EPISODES = {
    "before_id_objects": "ID before",
    "before_ood_objects": "OOD before",
    "after_id_objects": "ID after",
    "after_ood_objects": "OOD after",
}
"""Columns of the results, and their headings."""


@click.command()
@click.argument("run", type=EXISTING_FOLDER)
@option("--shots N,N,...", "Images of each OOD class.", default="5", callback=numbers)
@option("--episodes N,N,...", "Episodes: OOD episodes to learn from.", default="50", callback=numbers)
@option(
    "--method",
    "Train on them too, retrieve among their rows, or refit the last layer, in seconds.",
    ["finetune", "retrieval", "project"],
    "finetune",
)
@option("--out", "Where results go  [default: RUN/fewshot-METHOD]", FOLDER)
@option(
    "--support-seed N,N,... support_seeds",
    "Draw the images, once a seed  [default: the first, sorted]",
    callback=numbers,
)
@option("--alpha", "Retrieval: weight of the support.", AMOUNT, 1.0)
@option("--beta", "Retrieval: its sharpness.", AMOUNT, 5.5)
@option("--search", "Retrieval: choose both on this ID split, never on OOD.", ["id_val", "id_test"])
@option("--views", "Retrieval: views of an image that count  [default: all in the cache]", COUNT)
@option("--average-views average", "Retrieval: one row an image, the mean of its views.", bool)
@option("--texts", "Project: share of the class's text in a target.", click.FloatRange(0, 1), 0.5)
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
      distill fewshot runs/robot --episodes 10,50
    """
    from distill.fewshot.retrieval import Retrieval
    from distill.fewshot.run import FewShotOptions, teach
    from distill.judge.trained_run import open_trained
    from distill.train.stopping import Stopped

    places = {name: given.pop(name) for name in ("data_dir", "cache_dir", "code")}
    opening = {"checkpoint": given["checkpoint"], "device": given["device"], **places}
    trained = open_trained(run, note=warn, **opening)
    contents = EPISODES if trained.cache.holds_episodes else PHOTOS
    refuse_other(ctx, contents, photos=["shots", *RETRIEVAL], episodes=["episodes"])
    if contents == EPISODES and given["method"] != "finetune":
        raise click.UsageError(
            f"--method {given['method']} is for photos, and these are episodes: leave it out."
        )
    if contents == EPISODES:
        given["shots"] = given["episodes"]
    del given["episodes"]
    out = out or run / f"fewshot-{given['method']}"
    if given["device"] != "auto":
        given["settings"] = (f'train.device="{given["device"]}"', *given["settings"])
    retrieval = Retrieval(**{name: given.pop(name) for name in ("alpha", "beta", "views", "average")})
    options = FewShotOptions(**given, retrieval=retrieval)
    with working("finetuning", trained.model.unit) as progress:
        try:
            results = teach(trained, out, options, progress)
        except Stopped as stopped:
            stopped.add_note("For few-shot runs: the same command.")
            raise
    if as_json:
        print_json(results)
        return
    every = SHOTS if contents == PHOTOS else OF_EPISODES
    columns = {name: every[name] for name in every if any(row[name] is not None for row in results["table"])}
    rows = [
        [str(row["shots"]), *(mean(row, name) for name in columns), str(row["draws"])]
        for row in results["table"]
    ]
    first = "shots" if contents == PHOTOS else contents
    title = f"{run}: {results['method']}, {results['headline']}"
    table(title, [first, *columns.values(), "draws"], rows)
    click.echo(f"plot in {out / 'fewshot.png'}, all numbers in {out / 'fewshot.json'}")
