"""Robotics: the same commands for episodes of a robot, with several objects each."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cache.runtime import machine_limits as bounds
from cli.root import main
from distill.commands.cache_features import print_build, teacher_options, wants_weights
from distill.commands.options import (
    COUNT,
    EXISTING_FOLDER,
    FILE,
    FOLDER,
    SEED,
    mean,
    note_other_data,
    numbers,
    percent,
    stop,
    table,
)
from distill.commands.students import train_options

METRICS = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "average_precision": "AP"}
GROUPS = {"all": "", "id_objects": " ID objects", "ood_objects": " OOD objects"}


@main.group()
def robotics() -> None:
    """Several objects in a scene, RGB and depth, two cameras: make-demo, cache-features, train, ...

    Episodes lie in DATA/train.h5, DATA/val_on_train.h5 and DATA/val.h5.
    """


@robotics.command("make-demo")
@click.argument("out", type=FOLDER)
@click.option("--seed", default=0, show_default=True, type=SEED, help="Decides everything.")
@click.option(
    "--image-size",
    default=64,
    show_default=True,
    type=click.IntRange(16, bounds.IMAGE_SIDE),
    help="Side of every picture, pixels.",
)
@click.option("--train", default=480, show_default=True, type=COUNT, help="Training episodes.")
@click.option("--id-test", default=120, show_default=True, type=COUNT, help="ID test episodes.")
@click.option("--ood-test", default=160, show_default=True, type=COUNT, help="OOD test episodes.")
def make_demo(out: Path, **given: Any) -> None:
    """Draw small episode files into OUT: shapes on a table, seen by a base and a hand camera, with depth.

    Example: distill robotics make-demo artifacts/robotics/data
    """
    from distill.demo.episodes import draw_episodes

    counts = draw_episodes(out, **given)
    click.echo(f"{out}: {', '.join(f'{count:,} episodes of {name}' for name, count in counts.items())}")


@robotics.command("cache-features")
@click.argument("data", type=EXISTING_FOLDER)
@click.option("--out", required=True, type=FOLDER, help="The cache folder; run again, it continues.")
@click.option(
    "--template", help="Positive prompt  [default: You can find a {} in this image, except a robot arm.]"
)
@click.option(
    "--negative-template",
    help="Negative prompt  [default: You cannot find a {} in this image, except a robot arm.]",
)
@click.option(
    "--descriptions",
    type=FILE,
    help="OBJECT<TAB>TEXT a line, e.g. 011_banana; chatgpt.txt in DATA is found.",
)
@click.option(
    "--negative-descriptions",
    type=FILE,
    help="The same for the negative prompts; chatgpt_negative.txt in DATA is found.",
)
@click.option("--regions", is_flag=True, help="Keep 7x7 region embeddings of both cameras (ViT teachers).")
@teacher_options
def robotics_cache_features(data: Path, out: Path, as_json: bool, **given: Any) -> None:
    """Run the teacher over both cameras of DATA's episodes once, and keep its embeddings (stage 1).

    Example: distill robotics cache-features episodes --out artifacts/episodes --pretrained openai
    """
    from cache.build.from_episodes import EpisodeOptions, cache_episode_features
    from cache.runtime.progress import progress_for

    wants_weights(given)
    options = EpisodeOptions(**{name: value for name, value in given.items() if value is not None})
    progress = progress_for("embedding", "episodes")
    try:
        summary = cache_episode_features(data, out, options, progress=progress)
    finally:
        progress.close()
    print_build(summary, out, as_json=as_json)


@robotics.command("train")
@click.argument("cache", type=EXISTING_FOLDER)
@click.option("--data", required=True, type=EXISTING_FOLDER, help="The episodes' folder.")
@click.option("--out", required=True, type=FOLDER, help="New folder for this run.")
@click.option(
    "--recipe",
    default="robotics_efficientnet_b0",
    show_default=True,
    help="A built-in recipe, or a TOML file.",
)
@click.option("--losses", metavar="A,B,...", help="Losses of weight 1, others off: cls,mse,im_cst.")
@click.option("--negative-text", help="Text bank of the negative prompts: negative_labels, ...")
@click.option(
    "--prompts",
    type=click.Choice(["none", "coop"]),
    help="Learn a positive and a negative prompt instead (dual CoOp).",
)
@click.option("--local", is_flag=True, default=None, help="Classify every location, and aggregate.")
@click.option("--baseline", is_flag=True, default=None, help="The closed-set baseline: no teacher.")
@train_options
def robotics_train(cache: Path, data: Path, out: Path, resume: bool, as_json: bool, **given: Any) -> None:
    """Train one student on episodes from CACHE, with no teacher in memory (stage 2).

    \b
    Examples:
      distill robotics train artifacts/episodes --data episodes --out runs/robot
      distill robotics train artifacts/episodes --data episodes --out runs/dual --prompts coop --local
    """
    from cache.runtime.progress import progress_for
    from distill.recipes import run_config
    from distill.robotics.train import run
    from distill.train.loop import Stopped

    config = run_config(**given)
    progress = progress_for("training", "episodes")
    try:
        summary = run(
            config,
            cache_dir=cache,
            data_dir=data,
            out=out,
            resume_run=resume,
            progress=progress,
            command=sys.argv,
        )
    except Stopped as stopped:
        progress.close()
        stop(str(stopped), 128 + stopped.signal_number)
    finally:
        progress.close()
    if as_json:
        click.echo(json.dumps(summary, indent=2))
        return
    _print_metrics(f"run {out}: {summary['headline']}", _by_group(summary))
    click.echo(
        f"{summary['seconds']:,.0f} s; curves in {out / 'curves.png'}, all numbers in {out / 'summary.json'}"
    )


def _by_group(summary: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return a summary's metrics by split and group of objects."""
    found: dict[str, dict[str, float]] = {}
    for split in ("train", "id_val", "id_test", "ood_test", "ood_query"):
        for group, words in GROUPS.items():
            start = f"{split}_" if group == "all" else f"{split}_{group}_"
            own = {name: summary[f"{start}{name}"] for name in METRICS if f"{start}{name}" in summary}
            if own:
                found[f"{split}{words}"] = own
    return found


def _print_metrics(title: str, found: Mapping[str, Mapping[str, float]]) -> None:
    rows = [
        [what, *(percent(metrics[name]) if name in metrics else "" for name in METRICS)]
        for what, metrics in found.items()
    ]
    table(title, ["split", *METRICS.values()], rows)


@robotics.command("evaluate")
@click.argument("folder", metavar="RUN_OR_CACHE", type=EXISTING_FOLDER)
@click.option(
    "--teacher", is_flag=True, help="The folder is a cache: judge its teacher on the hand camera alone."
)
@click.option("--data", type=EXISTING_FOLDER, help="The episodes' folder  [default: the run's own]")
@click.option(
    "--cache", type=EXISTING_FOLDER, help="The cache with the objects' texts  [default: the run's own]"
)
@click.option(
    "--split", "splits", multiple=True, help="train, id_val, id_test, ood_test. Repeatable  [default: tests]"
)
@click.option("--text", help="Text bank of the positive prompts  [default: the run's own]")
@click.option("--negative-text", help="Text bank of the negative prompts  [default: the run's own]")
@click.option("--checkpoint", default="last", show_default=True, help="last, or best where id_val chose one.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print every metric, and every object's AP, as JSON.")
def robotics_evaluate(
    folder: Path, teacher: bool, splits: tuple[str, ...], as_json: bool, **given: Any
) -> None:
    """Say how well a run's student, or a cache's teacher, finds objects: overall, ID and OOD ones.

    \b
    Examples:
      distill robotics evaluate runs/robot
      distill robotics evaluate artifacts/episodes --teacher
    """
    from distill.robotics.evaluate import evaluate_episode_teacher, evaluate_episodes

    if teacher:
        if given["data"] or given["cache"]:
            raise click.UsageError("--teacher judges from the cache alone: leave out --data and --cache.")
        results = evaluate_episode_teacher(
            folder,
            splits=splits,
            text=given["text"] or "labels",
            negative_text=given["negative_text"] or "negative_labels",
        )
    else:
        places = {"data_dir": given.pop("data"), "cache_dir": given.pop("cache")}
        results = evaluate_episodes(folder, splits=splits, **places, **given)
    note_other_data(results)
    if as_json:
        click.echo(json.dumps({name: asdict(result) for name, result in results.items()}, indent=2))
        return
    found = {
        f"{name}{GROUPS[group]}": metrics
        for name, result in results.items()
        for group, metrics in result.groups.items()
    }
    _print_metrics(f"teacher of {folder}" if teacher else str(folder), found)
    for result in results.values():
        for key, reason in result.unreadable.items():
            click.echo(f"skipped {result.split}/{key}: {reason}")


@robotics.command("fewshot")
@click.argument("run", type=EXISTING_FOLDER)
@click.option(
    "--episodes",
    default="50",
    show_default=True,
    callback=numbers,
    metavar="N,N,...",
    help="OOD episodes to learn from.",
)
@click.option("--out", type=FOLDER, help="Where results go  [default: RUN/fewshot]")
@click.option(
    "--support-seed",
    "support_seeds",
    callback=numbers,
    metavar="N,N,...",
    help="Draw the episodes, once a seed; mean and deviation are reported  [default: the first, sorted]",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs  [default: 20]")
@click.option("--lr", type=float, help="Highest rate  [default: 0.0005 with SGD, 0.0002 with AdamW]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting. Repeatable.")
@click.option("--data", type=EXISTING_FOLDER, help="The episodes' folder  [default: the run's own]")
@click.option("--cache", type=EXISTING_FOLDER, help="The cache  [default: the run's own]")
@click.option("--checkpoint", default="last", show_default=True, help="last, or best where id_val chose one.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def robotics_fewshot(
    run: Path,
    out: Path | None,
    epochs: int | None,
    lr: float | None,
    settings: tuple[str, ...],
    device: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Teach RUN's student the OOD objects from a few episodes; judge it on the others.

    Example: distill robotics fewshot runs/robot --episodes 10,50
    """
    from cache.runtime.progress import progress_for
    from distill.robotics.fewshot import EpisodeFewShotOptions, few_shot_episodes
    from distill.train.loop import Stopped

    out = out or run / "fewshot"
    places = {"data_dir": given.pop("data"), "cache_dir": given.pop("cache")}
    flags = {"train.epochs": epochs, "optim.lr": lr}
    first = [f"{name}={value}" for name, value in flags.items() if value is not None]
    options = EpisodeFewShotOptions(
        settings=(f'train.device="{device}"', *first, *settings), device=device, **given
    )
    progress = progress_for("finetuning", "episodes")
    try:
        results = few_shot_episodes(run, out, options, **places, progress=progress)
    except Stopped as stopped:
        progress.close()
        stop(f"{stopped} (For few-shot runs: the same command.)", 128 + stopped.signal_number)
    finally:
        progress.close()
    if as_json:
        click.echo(json.dumps(results, indent=2))
        return
    columns = ["before_id_objects", "before_ood_objects", "after_id_objects", "after_ood_objects"]
    rows = [
        [str(row["episodes"]), *(mean(row, name) for name in columns), str(row["draws"])]
        for row in results["table"]
    ]
    table(
        f"{run}: few-shot, {results['headline']}",
        ["episodes", "ID before", "OOD before", "ID after", "OOD after", "draws"],
        rows,
    )
    click.echo(f"plot in {out / 'fewshot.png'}, all numbers in {out / 'fewshot.json'}")
