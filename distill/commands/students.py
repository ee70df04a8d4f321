"""Stage 2: train, evaluate, fewshot; and demo, which is both stages."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from cache.runtime.errors import printable
from cli.root import main
from distill.commands.options import (
    EXISTING_FOLDER,
    FOLDER,
    SEED,
    accuracy_table,
    by_group,
    mean,
    metrics_table,
    note_other_data,
    number,
    numbers,
    options,
    percent,
    stop,
    table,
    wandb_option,
)

train_options = options(
    click.option("--arch", help="Student: a torchvision or timm name."),
    click.option("--epochs", type=click.IntRange(min=1), help="Epochs."),
    click.option("--batch-size", type=click.IntRange(min=2), help="Images in a step."),
    click.option("--lr", type=float, help="Learning rate at its highest."),
    click.option("--image-size", type=click.IntRange(min=8), help="Student's input side, pixels."),
    click.option("--text", help="Text bank that classifies: labels, descriptions, ..."),
    click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting. Repeatable."),
    click.option("--seed", type=SEED, help="Decides first weights, order and augmentation."),
    click.option("--device", help="auto, cpu, cuda, cuda:N."),
    click.option("--resume", is_flag=True, help="Go on with the run in --out."),
    click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
)
"""What every training command can be told."""


@main.command()
@click.argument("cache", type=EXISTING_FOLDER)
@click.option("--data", required=True, type=EXISTING_FOLDER, help="The images' folder.")
@click.option("--out", required=True, type=FOLDER, help="New folder for this run.")
@click.option("--recipe", help="A built-in recipe, or a TOML file  [default: resnet18, or the episodes']")
@click.option(
    "--losses", metavar="A,B,...", help="Losses of weight 1, others off: cls,mse,mse_raw,im_cst,vlalign,cap."
)
@click.option("--k", type=click.IntRange(min=1), help="Nearest texts that vlalign compares.")
@click.option(
    "--prompts",
    type=click.Choice(["none", "coop", "cocoop"]),
    help="Learn the prompt instead; --set prompts.n_ctx=8.",
)
@click.option(
    "--device-images",
    type=click.Choice(["auto", "on", "off"]),
    help="Keep the decoded images on the device  [default: auto, on CUDA where they fit]",
)
@click.option(
    "--views",
    is_flag=True,
    default=None,
    help="Train on the crops that the cache keeps ('cache-features --views V'), each with its own target.",
)
@click.option("--teachers", metavar="A,B", help="Teachers of the cache, one head each; the first is 'main'.")
@train_options
@wandb_option
def train(cache: Path, data: Path, out: Path, resume: bool, as_json: bool, wandb: str, **given: Any) -> None:
    """Train one student from CACHE, with no teacher in memory (stage 2).

    \b
    Examples:
      distill train artifacts/photos --data photos --out runs/first --recipe resnet18 --epochs 20
      distill train artifacts/photos --data photos --out runs/cls --losses cls --set optim.schedule=cosine
    """
    from cache.runtime.progress import progress_for
    from distill.recipes import default_recipe, run_config
    from distill.train.start import train
    from distill.train.stopping import Stopped

    given["recipe"] = given["recipe"] or default_recipe(cache)
    config = run_config(**given)
    progress = progress_for("training")
    try:
        summary = train(
            config,
            cache_dir=cache,
            data_dir=data,
            out=out,
            resume_run=resume,
            progress=progress,
            command=sys.argv,
            wandb=wandb,
        )
    except Stopped as stopped:
        progress.close()
        stop(str(stopped), 128 + stopped.signal_number)
    finally:
        progress.close()
    if as_json:
        click.echo(json.dumps(summary, indent=2))
        return
    if "per_class_accuracy" not in summary:  # of episodes
        metrics_table(f"run {out}: {summary['headline']}", by_group(summary))
        return
    accuracy_table(
        f"run {out}: {summary['headline']}",
        {
            split: {n.removeprefix(f"{split}_"): v for n, v in summary.items() if n.startswith(f"{split}_")}
            for split in ("train", *summary["per_class_accuracy"])
        },
        summary,
    )
    click.echo(
        f"{summary['seconds']:,.0f} s; curves in {out / 'curves.png'}, all numbers in {out / 'summary.json'}"
    )


@main.command()
@click.argument("folder", metavar="RUN_OR_CACHE", type=EXISTING_FOLDER)
@click.option(
    "--teacher", is_flag=True, help="The folder is a cache: judge its teacher, from the cache alone."
)
@click.option("--data", type=EXISTING_FOLDER, help="The images' folder  [default: the run's own]")
@click.option(
    "--cache", type=EXISTING_FOLDER, help="The cache with the class texts  [default: the run's own]"
)
@click.option(
    "--split", "splits", multiple=True, help="train, id_val, id_test, ood_test. Repeatable  [default: tests]"
)
@click.option("--text", help="Text bank that classifies  [default: the run's own; labels for a teacher]")
@click.option("--checkpoint", default="last", show_default=True, help="last, or best where id_val chose one.")
@click.option("--space", is_flag=True, help="Compare the student's embeddings with the teacher's instead.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print accuracies, losses and every class as JSON.")
def evaluate(
    folder: Path,
    teacher: bool,
    space: bool,
    splits: tuple[str, ...],
    text: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Say how well a run's student, or a cache's teacher, classifies.

    \b
    Examples:
      distill evaluate runs/first --split ood_test
      distill evaluate runs/first --space
      distill evaluate artifacts/photos --teacher
    """
    if space:
        _evaluate_space(folder, teacher, splits, text, as_json, given)
        return
    from distill.judge.evaluate import both_kinds, evaluate_teacher

    if teacher:
        if given["data"] or given["cache"]:
            raise click.UsageError("--teacher judges from the cache alone: leave out --data and --cache.")
        results = evaluate_teacher(folder, splits=splits, text=text or "labels")
    else:
        from distill.judge.trained_run import evaluate_run

        results = evaluate_run(
            folder,
            data_dir=given["data"],
            cache_dir=given["cache"],
            splits=splits,
            checkpoint=given["checkpoint"],
            text=text,
            device=given["device"],
        )
    note_other_data(results)
    if as_json:
        found = {name: result.to_json() for name, result in results.items()}
        click.echo(json.dumps({**found, **both_kinds(results)}, indent=2))
        return
    accuracy_table(
        f"{f'teacher of {folder}' if teacher else folder}: macro accuracy in percent",
        {
            name: {**r.metrics(), "chance": r.chance, "images": r.images, "classes": len(r.per_class)}
            for name, r in results.items()
        },
        both_kinds(results),
    )
    for result in results.values():
        for key, reason in result.unreadable.items():
            click.echo(printable(f"skipped {result.split}/{key}: {reason}"))


def _evaluate_space(
    run: Path, teacher: bool, splits: tuple[str, ...], text: str | None, as_json: bool, given: dict[str, Any]
) -> None:
    from distill.judge.trained_run import space_of_run

    if teacher:
        raise click.UsageError("--space compares a student with its teacher: leave out --teacher.")
    found = space_of_run(
        run,
        data_dir=given["data"],
        cache_dir=given["cache"],
        splits=splits,
        checkpoint=given["checkpoint"],
        text=text,
        device=given["device"],
    )
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    names = list(dict.fromkeys(name for metrics in found.values() for name in metrics))
    rows = [[name, *(number(metrics.get(name)) for metrics in found.values())] for name in names]
    table(f"{run}: student beside teacher", ["", *found], rows)


@main.command()
@click.argument("run", type=EXISTING_FOLDER)
@click.option(
    "--shots",
    default="5",
    show_default=True,
    callback=numbers,
    metavar="N,N,...",
    help="Images of each OOD class.",
)
@click.option(
    "--method",
    type=click.Choice(["finetune", "retrieval"]),
    default="finetune",
    show_default=True,
    help="Train on them too, or retrieve among the teacher's rows of them.",
)
@click.option("--out", type=FOLDER, help="Where results go  [default: RUN/fewshot-METHOD]")
@click.option(
    "--support-seed",
    "support_seeds",
    callback=numbers,
    metavar="N,N,...",
    help="Draw the images, once a seed; mean and deviation are reported  [default: the first, sorted]",
)
@click.option(
    "--alpha",
    default=1.0,
    type=click.FloatRange(min=0),
    show_default=True,
    help="Retrieval: weight of the support.",
)
@click.option(
    "--beta", default=5.5, type=click.FloatRange(min=0), show_default=True, help="Retrieval: its sharpness."
)
@click.option(
    "--search",
    type=click.Choice(["id_val", "id_test"]),
    help="Retrieval: choose both on this ID split, never on OOD.",
)
@click.option(
    "--views",
    type=click.IntRange(min=1),
    help="Retrieval: views of an image that count; 1 is the image alone  [default: all in the cache]",
)
@click.option("--average-views", is_flag=True, help="Retrieval: one row an image, the mean of its views.")
@click.option("--epochs", type=click.IntRange(min=1), help="Finetune: epochs  [default: 20]")
@click.option("--lr", type=float, help="Finetune: highest rate  [default: 0.001 with SGD, 0.0002 with AdamW]")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Finetune: any setting. Repeatable."
)
@click.option("--data", type=EXISTING_FOLDER, help="The images' folder  [default: the run's own]")
@click.option("--cache", type=EXISTING_FOLDER, help="The cache  [default: the run's own]")
@click.option("--checkpoint", default="last", show_default=True, help="last, or best where id_val chose one.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def fewshot(run: Path, out: Path | None, as_json: bool, **given: Any) -> None:
    """Teach RUN's student the OOD classes from a few images of each; judge it on the others.

    \b
    Examples:
      distill fewshot runs/first --shots 5 --method finetune
      distill fewshot runs/first --shots 1,2,4,8 --method retrieval --support-seed 0,1,2
    """
    from cache.runtime.progress import progress_for
    from distill.fewshot.run import few_shot, fewshot_options
    from distill.train.stopping import Stopped

    out = out or run / f"fewshot-{given['method']}"
    places = {"data_dir": given.pop("data"), "cache_dir": given.pop("cache")}
    options = fewshot_options(**given)
    progress = progress_for("finetuning")
    try:
        results = few_shot(run, out, options, **places, progress=progress)
    except Stopped as stopped:
        progress.close()
        stop(f"{stopped} (For few-shot runs: the same command.)", 128 + stopped.signal_number)
    finally:
        progress.close()
    if as_json:
        click.echo(json.dumps(results, indent=2))
        return
    rows = [
        [
            str(row["shots"]),
            *(mean(row, name) for name in ("before", "ood_query", "id_test")),
            str(row["draws"]),
        ]
        for row in results["table"]
    ]
    table(
        f"{run}: {results['method']}, {results['headline']}",
        ["shots", "zero-shot", "ood_query", "id_test", "draws"],
        rows,
    )
    click.echo(f"plot in {out / 'fewshot.png'}, all numbers in {out / 'fewshot.json'}")


@main.command()
@click.option(
    "--out", default="artifacts/demo", show_default=True, type=FOLDER, help="Where everything goes."
)
@click.option(
    "--epochs", default=14, show_default=True, type=click.IntRange(min=1), help="Epochs of each student."
)
@click.option("--seed", default=0, show_default=True, type=SEED, help="Decides first weights and batches.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def demo(out: Path, epochs: int, seed: int, device: str, as_json: bool) -> None:
    """Draw a small data set, cache it with a small teacher, train two students, compare.

    Example: distill demo
    """
    from distill.demo.run import run_demo
    from distill.train.stopping import Stopped

    try:
        results = run_demo(
            out, epochs=epochs, seed=seed, device=device, say=lambda text: click.echo(text, err=True)
        )
    except Stopped as stopped:
        stop(str(stopped), 128 + stopped.signal_number)
    if as_json:
        click.echo(json.dumps(results, indent=2))
        return
    rows = [[who, percent(r["id_test"]), percent(r["ood_test"])] for who, r in results["accuracy"].items()]
    table("macro accuracy", ["", "ID", "OOD"], rows)
    for what, where in results["files"].items():
        click.echo(f"{what}: {where}")
