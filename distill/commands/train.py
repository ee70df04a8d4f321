"""``distill train``: stage 2, one student."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.runtime.errors import UserError, WrongOption, nearest_names
from cache.runtime.torchrun import world_size
from distill.commands.episodes import EPISODES, UNITS, contents_of, refuse_other
from distill.commands.options import (
    COUNT,
    DEVICES,
    EXISTING_FOLDER,
    FOLDER,
    SEED,
    boards_of,
    boards_options,
    code_option,
    data_option,
    given_options,
    json_option,
    option,
    set_option,
)
from distill.commands.tables import (
    GROUPS,
    accuracy_table,
    loading,
    object_table,
    print_json,
    print_one_class,
    space_table,
    warn,
    working,
)

if TYPE_CHECKING:
    from distill.config import RunConfig
    from distill.train.chosen_run import ChosenRun

FOR_PHOTOS = ("k", "teachers", "replay_views")
FOR_EPISODES = ("negative_text", "local")


def _losses(value: str) -> Iterator[str]:
    from distill.config import LOSS_TERMS

    chosen = [name.strip() for name in value.split(",") if name.strip()]
    for name in chosen:
        if name not in LOSS_TERMS:
            raise WrongOption(
                f"--losses: {name!r} is not a loss",
                fix=f"{nearest_names(name, LOSS_TERMS)}choose from {', '.join(LOSS_TERMS)}.",
            )
    return (f"loss.{name}={float(name in chosen)}" for name in LOSS_TERMS)


def _teachers(value: str) -> Iterator[str]:
    yield f"teachers={json.dumps([name.strip() for name in value.split(',')])}"


@click.command()
@click.argument("cache", type=EXISTING_FOLDER, required=False)
@data_option()
@option("--out", "New folder for this run.", FOLDER)
@option(
    "--recipe",
    "Name (see 'distill recipes') or TOML file  [default: head-first, pool; --start scratch: small]",
)
@option("--plan", "Say what the run would be, its images, steps, rates and time, and do nothing.", bool)
@option(
    "--losses A,B,...", "Losses of weight 1, others off: cls,mse,mse_raw,im_cst,vlalign,cap.", setting=_losses
)
@option("--k", "Nearest texts that vlalign compares.", COUNT, setting="loss.vlalign_k")
@option(
    "--prompts",
    "Learn the prompt instead, of episodes a positive and a negative one; --set prompts.n_ctx=8.",
    ["none", "coop", "cocoop"],
    setting="prompts.learner",
)
@option(
    "--device-images",
    "Keep the decoded images on the device  [default: auto, on CUDA where they fit]",
    ["auto", "on", "off"],
    setting="data.device_images",
)
@option(
    "--replay-views",
    "Replay 'cache-features --views V'  [default: auto, where the cache has views of every image]",
    ["auto", "on", "off"],
    setting="data.replay_views",
)
@option("--teachers A,B", "Teachers of the cache, one head each; the first is 'main'.", setting=_teachers)
@option("--negative-text", "Episodes: text bank of the negative prompts.", setting="robotics.negative_text")
@option("--local", "Episodes: classify every location, and aggregate.", bool, setting="robotics.local")
@option("--closed-set", "Train a closed-set student, without a teacher.", bool, setting="train.closed_set")
@option(
    "--arch",
    "Student: a torchvision or timm name, hf-hub:ORG/NAME, or FILE.py:NAME of your own.",
    setting="student.arch",
)
@option("--start", "First weights: scratch, pretrained, or a file of them.", setting="student.start")
@code_option
@option(
    "--head-only HOW",
    "Leave the trunk as it is: its head by ridge, in seconds (closed-form, which needs no =HOW), or trained.",
    ["closed-form", "trained"],
    setting="train.head_only",
    is_flag=False,
    flag_value="closed-form",
)
@option("--epochs", "Epochs.", COUNT, setting="train.epochs")
@option("--batch-size", "Images in a step.", click.IntRange(min=2), setting="train.batch_size")
@option("--lr", "Learning rate at its highest.", float, setting="optim.lr")
@option("--image-size", "Student's input side, pixels.", click.IntRange(min=8), setting="student.image_size")
@option("--text", "Text bank that classifies: labels, descriptions, ...", setting="text")
@set_option()
@option("--seed", "Decides first weights, order and augmentation.", SEED, setting="train.seed")
@option("--device", DEVICES, setting="train.device")
@option("--resume resume_run", "Go on with the run in --out, with its own settings and cache.", bool)
@option("--check", "Compare each file of the cache with its checksum when it is first read.", bool)
@json_option("Print the summary as JSON.")
@boards_options
@click.pass_context
def train(
    ctx: click.Context,
    cache: Path | None,
    out: Path | None,
    recipe: str | None,
    settings: tuple[str, ...],
    code: Path | None,
    as_json: bool,
    resume_run: bool,
    plan: bool,
    **given: Any,
) -> None:
    """Train one student from CACHE, without teacher (stage 2).

    The cache is one of photos, or of episodes with several objects each ('distill robotics'). Unless told
    photos are learnt by a pretrained student: recipe head-first, or pool where the cache has images without
    labels. With --start scratch the recipe is small.

    \b
    Examples:
      distill train artifacts/photos --out runs/first
      distill train artifacts/photos --plan
      distill train artifacts/photos --out runs/small --start scratch --epochs 20
      distill train artifacts/photos --out runs/cls --recipe paper-resnet18 --losses cls
      distill train artifacts/photos-tar --out runs/streamed --start scratch
      distill train --resume --out runs/first
      distill train artifacts/photos --out runs/lite --arch tf_efficientnet_lite0 --start lite0.safetensors
      distill train artifacts/episodes --out runs/dual --prompts coop --local
    """
    from distill.record.run_files import check_out
    from distill.train.chosen_run import chosen_run
    from distill.train.resumed_settings import cache_of

    out = _checked(out, plan=plan, resume_run=resume_run)
    given["boards"] = boards_of(given)
    if not plan:
        check_out(out, resume_run=resume_run)
    cache = cache or (cache_of(out) if resume_run else None)
    if cache is None:
        raise click.UsageError("Missing argument 'CACHE'.")
    contents = _contents(ctx, cache, recipe, settings)
    chosen = chosen_run(
        cache,
        out,
        recipe=recipe,
        settings=settings,
        data_dir=given["data_dir"],
        code=code,
        resume_run=resume_run,
    )
    _check_used(ctx, chosen.config)
    if plan:
        _plan(chosen, given, unit=UNITS[contents], as_json=as_json)
        return
    with loading():
        import distill.train.start  # noqa: F401  (which chosen_run imports when it trains)
    with working("training", UNITS[contents]) as progress:
        summary = chosen.trained(out, resume_run=resume_run, command=sys.argv, progress=progress, **given)
    _print(summary, out, contents=contents, as_json=as_json)


def _contents(ctx: click.Context, cache: Path, recipe: str | None, settings: tuple[str, ...]) -> str:
    """Return what a cache holds; UsageError where an option is given that is for another."""
    from distill.settings import load_recipe, with_settings

    try:
        contents = contents_of(cache)
    except UserError:
        if recipe:  # what is wrong on the command line is told first
            with_settings(load_recipe(recipe), settings)
        raise
    refuse_other(ctx, contents, photos=FOR_PHOTOS, episodes=FOR_EPISODES)
    return contents


def _check_used(ctx: click.Context, config: RunConfig) -> None:
    """Refuse options of distillation that a run would do nothing with."""
    if config.train.closed_set:
        for option in given_options(ctx, "losses", "k", "text", "teachers"):
            raise click.UsageError(
                f"{option} is of a teacher, and --closed-set has none: leave one of them out."
            )
    if not config.loss.vlalign and given_options(ctx, "k"):
        raise click.UsageError(
            "--k is of the loss vlalign, whose weight is 0: add it to --losses, or leave --k out."
        )


def _checked(out: Path | None, *, plan: bool, resume_run: bool) -> Path:
    """Return the folder of the run, which a plan has no need of; UsageError for what does not go together."""
    if plan and (resume_run or world_size() > 1):
        raise click.UsageError(
            f"--plan is of a new run: leave out {'--resume' if resume_run else 'torchrun'}."
        )
    if out is None and not plan:
        raise click.UsageError("Missing option '--out'.")
    return out or Path()


def _plan(chosen: ChosenRun, given: dict[str, Any], *, unit: str, as_json: bool) -> None:
    from distill.commands.train_plan import print_plan

    with loading():
        from distill.train.plan import plan

    given = {name: value for name, value in given.items() if name != "boards"}
    given |= {"cache_dir": chosen.cache, "code": chosen.code}
    with working("trying a few steps", unit) as progress:
        planned = plan(chosen.config, progress=progress, **given)
    print_plan(planned, recipe=chosen.recipe, unit=unit, as_json=as_json)


def _print(summary: dict[str, Any], out: Path, *, contents: str, as_json: bool) -> None:
    """Print what a run came to."""
    from distill.headline import NOTHING_TO_JUDGE, below_closed_form, headline_splits
    from distill.record.run_files import MEANS
    from distill.train.chosen_eval import in_words

    if as_json:
        print_json(summary)
        return
    title = f"run {out}: {summary['headline']}"
    if contents == EPISODES:
        object_table(title, _by_group(summary))
    else:
        of_space = [name.removesuffix("_cosine") for name in summary if name.endswith("_cosine")]
        of_space = [name for name in of_space if not name.startswith(MEANS)]
        names = ("train", *summary["per_class_accuracy"], *of_space)
        splits = {split: _of(summary, f"{split}_") for split in names}
        means = [f"{mean}_{split}" for mean in MEANS for split in names]
        splits |= {name: own for name in means if (own := _of(summary, f"{name}_"))}
        splits = _beside(summary, "closed form", names) | splits | _beside(summary, "chosen eval", names)
        accuracy_table(title, {name: own for name, own in splits.items() if "cosine" not in own}, summary)
        space_table(title, splits)
        print_one_class({name: summary["classes"].get(name, 0) for name in splits}, splits)
    if not headline_splits([summary]):
        click.echo(f"note: {NOTHING_TO_JUDGE}")
    if chosen := summary.get("chosen_eval"):
        taken = in_words(chosen["eval_size"], chosen["eval_crop"])
        click.echo(f"chosen eval: {taken}, by {chosen['chosen_by']}")
    if below := below_closed_form(summary):
        warn(below)
    click.echo(
        f"{summary['seconds']:,.0f} s; curves in {out / 'curves.png'}, all numbers in {out / 'summary.json'}"
    )


def _beside(summary: Mapping[str, Any], what: str, splits: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the metrics of each split of a closed form, or at the chosen size, where that is no headline."""
    table = summary.get(what.replace(" ", "_"), {}) if not summary["headline"].startswith(what) else {}
    return {f"{what}, {split}": own for split in splits if (own := _of(table, f"{split}_"))}


def _of(summary: Mapping[str, Any], start: str) -> dict[str, Any]:
    """Return the metrics of one split, by their endings."""
    return {name.removeprefix(start): value for name, value in summary.items() if name.startswith(start)}


def _by_group(summary: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return a summary's metrics by split and group of objects."""
    metrics = {
        f"{split}{words}": _of(summary, f"{split}_" if group == "all" else f"{split}_{group}_")
        for split in ("train", "id_val", "class_val", "pool_val", "id_test", "ood_test", "ood_query")
        for group, words in GROUPS.items()
    }
    return {name: values for name, values in metrics.items() if values}
