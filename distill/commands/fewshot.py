"""``distill fewshot``: a run's student, and a few labelled images of OOD classes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from distill.commands.episodes import EPISODES, PHOTOS, contents_of_run, refuse_other
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
from distill.commands.tables import mean, print_json, table

RETRIEVAL = ("alpha", "beta", "search", "views", "average")
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
@option("--method", "Train on them too, or retrieve among their rows.", ["finetune", "retrieval"], "finetune")
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
    from cache.runtime.progress import progress_for

    contents = contents_of_run(run, given["cache_dir"], given["checkpoint"])
    refuse_other(ctx, contents, photos=["shots", "method", *RETRIEVAL], episodes=["episodes"])
    out = out or run / (f"fewshot-{given['method']}" if contents == PHOTOS else "fewshot")
    if given["device"] != "auto":
        given["settings"] = (f'train.device="{given["device"]}"', *given["settings"])
    with closing(progress_for("finetuning", "images" if contents == PHOTOS else contents)) as progress:
        results = _taught(run, out, contents, given, progress)
    if as_json:
        print_json(results)
        return
    count, columns = ("shots", SHOTS) if contents == PHOTOS else ("episodes", OF_EPISODES)
    rows = [
        [str(row[count]), *(mean(row, name) for name in columns), str(row["draws"])]
        for row in results["table"]
    ]
    method = results.get("method", "few-shot")
    table(f"{run}: {method}, {results['headline']}", [count, *columns.values(), "draws"], rows)
    click.echo(f"plot in {out / 'fewshot.png'}, all numbers in {out / 'fewshot.json'}")


def _taught(run: Path, out: Path, contents: str, given: dict[str, Any], progress: Any) -> dict[str, Any]:
    """Do it; Stopped says how such runs go on."""
    from distill.train.stopping import Stopped

    places = {"data_dir": given.pop("data_dir"), "cache_dir": given.pop("cache_dir"), "progress": progress}
    retrieval = {name: given.pop(name) for name in ("alpha", "beta", "views", "average")}
    try:
        if contents == EPISODES:
            from distill.robotics.fewshot import EpisodeFewShotOptions, few_shot_episodes

            for name in ("shots", "method", "search"):
                del given[name]
            return few_shot_episodes(run, out, EpisodeFewShotOptions(**given), **places)
        from distill.fewshot.retrieval import Retrieval
        from distill.fewshot.run import FewShotOptions, few_shot

        del given["episodes"]
        return few_shot(run, out, FewShotOptions(**given, retrieval=Retrieval(**retrieval)), **places)
    except Stopped as stopped:
        stopped.add_note("For few-shot runs: the same command.")
        raise
