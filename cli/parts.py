"""What several commands share: kinds of options, tables, the end of a command that cannot go on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from cache.errors import printable
from cache.torchrun import rank, speaks, world_size

if TYPE_CHECKING:
    from cache.ray_tasks import RayCluster

FOLDER = click.Path(file_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE_TO_WRITE = click.Path(dir_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

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
    from cache.ray_tasks import RayCluster

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
    if min(found, default=least) < least:
        raise click.BadParameter(
            f"{value!r} is not numbers of at least {least}, like 1,2,4", ctx=ctx, param=option
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
            text = Path(value[1:]).read_text(encoding="utf-8") if value.startswith("@") else None
        except (OSError, UnicodeDecodeError) as error:
            raise click.BadParameter(
                f"{value[1:]} cannot be read ({error})", ctx=ctx, param=option
            ) from error
        found += [value] if text is None else [line.strip() for line in text.splitlines() if line.strip()]
    return tuple(found)
