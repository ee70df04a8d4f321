"""What several commands share: kinds of options, tables, the end of a command that cannot go on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from cache.runtime import machine_limits as bounds
from cache.runtime.atomic_files import read_text
from cache.runtime.errors import UserError, printable
from cache.runtime.torchrun import rank, speaks, world_size

if TYPE_CHECKING:
    from cache.runtime.ray_pool import RayCluster

FOLDER = click.Path(file_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE_TO_WRITE = click.Path(dir_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
# What torch takes as a seed, and TOML writes.
LARGEST = 2**63 - 1
SEED = click.IntRange(0, LARGEST)
COUNT = click.IntRange(min=1)

BATCH_SIZE = click.IntRange(1, bounds.BATCH)
THREADS = click.IntRange(0, bounds.THREADS)
# Of this machine: four a core, or 16.
WORKERS = click.IntRange(0, bounds.most_processes())
JOBS = click.IntRange(1, bounds.most_processes())

Command = TypeVar("Command", bound=Callable[..., Any])


def options(*decorators: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Return one decorator for options that several commands have, in the order given."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


wandb_option = click.option(
    "--wandb", default="", metavar="PROJECT", help="Write to this project of Weights & Biases as well."
)

ray_options = options(
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="On this machine, or as tasks of a Ray cluster whose machines share the folders.",
    ),
    click.option(
        "--address", help="The cluster's, as 'ray start' printed it  [default: RAY_ADDRESS, else one here]"
    ),
    click.option(
        "--cpus", default=1.0, show_default=True, type=click.FloatRange(min=0), help="Of a Ray task."
    ),
    click.option(
        "--gpus",
        default=0.0,
        show_default=True,
        type=click.FloatRange(min=0),
        help="Of a Ray task; 0.5 is half of one.",
    ),
)
"""Where tasks run: sweep and cache-features."""


def ray_cluster(ctx: click.Context) -> RayCluster | None:
    """Return the cluster that a command was given, None for this machine; options without it are refused."""
    from cache.runtime.ray_pool import RayCluster

    given = ctx.params
    if given["engine"] == "ray" and world_size() > 1:
        raise click.UsageError("choose one: torchrun, or --engine ray.")
    if given["engine"] == "ray":
        return RayCluster(address=given["address"], cpus=given["cpus"], gpus=given["gpus"])
    refuse_given(ctx, "address", "cpus", "gpus", without="--engine ray")
    return None


def refuse_given(ctx: click.Context, *names: str, without: str) -> None:
    """Refuse options that would do nothing, because another is not there."""
    for name in names:
        if ctx.get_parameter_source(name) != click.core.ParameterSource.DEFAULT:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} is of {without}: give that too, or leave it out.")


def stop(message: str, status: int) -> NoReturn:
    """Say what is wrong in one line and leave with a status.

    Of several processes that torchrun started all but the first say which they are: what is wrong may be
    wrong for one of them alone.
    """
    who = "" if speaks() else f"rank {rank()}: "
    click.echo(f"Error: {who}{printable(message)}", err=True)
    sys.exit(status)


def warn(message: str) -> None:
    """Print a warning where it is seen beside the results, not among them; nothing for no message."""
    if message:
        click.secho(f"Warning: {printable(message)}.", err=True, fg="yellow", bold=True)


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table with a title; without column names it has no header."""
    from rich.console import Console
    from rich.table import Table

    lines = Table(show_header=any(columns))
    for i, column in enumerate(columns):
        lines.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        lines.add_row(*(printable(text).replace("[", "\\[") for text in row))
    click.echo(printable(title))
    # A log has no width of its own: 80 columns would break numbers apart.
    Console(width=None if sys.stdout.isatty() else 140).print(lines)


def percent(value: float) -> str:
    """Return a percentage with one decimal."""
    return f"{value:.1f}%"


def number(value: float | None) -> str:
    """Return a number as text, nothing for None."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


_COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "accuracy": ("own classes", percent),
    "all_accuracy": ("all classes", percent),
    "top5_accuracy": ("top 5, own", percent),
    "all_top5_accuracy": ("top 5, all", percent),
    "chance": ("chance", percent),
    "images": ("images", number),
    "classes": ("classes", number),
    "ece": ("ECE, own", number),
    "all_ece": ("ECE, all", number),
    "loss": ("loss", number),
}
# Two tables, because one of all columns would not fit into a terminal of 80.
_SECOND = ("ece", "all_ece", "loss")
"""What is said of a split: a metric's ending, its heading, how it is written."""


def accuracy_table(title: str, splits: dict[str, dict[str, Any]], both: dict[str, Any]) -> None:
    """Print numbers by split, among its own classes and all; below, what ID and OOD images have together.

    ``both`` may hold other numbers too; a column that no split has is left out.
    """
    for second, called in ((False, title), (True, "calibration error (ECE) and loss")):
        names = [name for name in _COLUMNS if (name in _SECOND) == second]
        used = [name for name in names if any(name in found for found in splits.values())]
        rows = [
            [split, *(_COLUMNS[name][1](found[name]) if name in found else "" for name in used)]
            for split, found in splits.items()
            if any(name in found for name in used)
        ]
        table(called, ["split", *(_COLUMNS[name][0] for name in used)], rows)
    for name in (name for name in both if name.startswith("all") and name.endswith("_harmonic_mean")):
        head = name.removeprefix("all").removesuffix("_harmonic_mean")
        click.echo(
            f"{f'{head[1:]}: ' if head else ''}harmonic mean of ID and OOD among all classes "
            f"{percent(both[name])}; AUROC of ID against OOD images {both[f'id_ood{head}_auroc']:.3f}"
        )


def mean(row: dict[str, Any], name: str) -> str:
    """Return a mean with its deviation, where there is one."""
    if row[name] is None:
        return ""
    return percent(row[name]) + (f" ± {row[f'{name}_std']:.1f}" if row[f"{name}_std"] is not None else "")


def numbers(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Read 1,2,4 as numbers: of seeds from 0, of anything else from 1."""
    least = 0 if option.name == "support_seeds" else 1
    try:
        found = tuple(int(part) for part in (value or "").split(",") if part.strip())
    except ValueError:
        found = (-1,)
    if min(found, default=least) < least or max(found, default=least) > LARGEST:
        raise click.BadParameter(
            f"{value!r:.80} is not numbers of at least {least}, like 1,2,4", ctx=ctx, param=option
        )
    return found


def words(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Read a,b,c."""
    return tuple(word.strip() for word in (value or "").split(",") if word.strip())


def lines(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Read every @FILE among values as one value a line."""
    found: list[str] = []
    for value in values:
        try:
            text = read_text(Path(value[1:])).split("\n") if value.startswith("@") else [value]
        except UserError as error:
            raise click.BadParameter(str(error), ctx=ctx, param=option) from error
        found += [line.strip() for line in text if line.strip()] if value.startswith("@") else text
    return tuple(found)


def note_other_data(results: Mapping[str, Any]) -> None:
    """Say on stderr which of some splits are not those that the run was trained or judged with."""
    for name, result in results.items():
        if result.other_data:
            said = f"note: {name} is not what the run was trained or judged with: {result.other_data}"
            click.echo(printable(said), err=True)


METRICS = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "average_precision": "AP"}
GROUPS = {"all": "", "id_objects": " ID objects", "ood_objects": " OOD objects"}


def by_group(summary: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return a summary's metrics by split and group of objects."""
    found: dict[str, dict[str, float]] = {}
    for split in ("train", "id_val", "id_test", "ood_test", "ood_query"):
        for group, words in GROUPS.items():
            start = f"{split}_" if group == "all" else f"{split}_{group}_"
            own = {name: summary[f"{start}{name}"] for name in METRICS if f"{start}{name}" in summary}
            if own:
                found[f"{split}{words}"] = own
    return found


def metrics_table(title: str, found: Mapping[str, Mapping[str, float]]) -> None:
    """Print metrics of objects by split and group."""
    rows = [
        [what, *(percent(metrics[name]) if name in metrics else "" for name in METRICS)]
        for what, metrics in found.items()
    ]
    table(title, ["split", *METRICS.values()], rows)
