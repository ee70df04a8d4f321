"""What several commands can be told: kinds of options, and options that carry a setting."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cache.runtime import machine_limits as bounds
from cache.runtime.atomic_files import read_text
from cache.runtime.errors import UserError
from cache.runtime.torchrun import world_size

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
THREADS = click.IntRange(0, bounds.THREADS)
# Of this machine: four a core, or 16.
JOBS = click.IntRange(1, bounds.most_processes())

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Any], Any]


def options(*decorators: Decorator) -> Callable[[Command], Command]:
    """Return one decorator for options that several commands have, in the order given."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def setting(
    option: str, name: str = "", *, spelt: Callable[[Any], Iterable[str]] | None = None, **more: Any
) -> Decorator:
    """Return an option that carries a setting: where it is given, ``settings`` of the command has it.

    ``spelt`` turns its value into ``section.key=value`` lines where it is not that of the setting ``name``,
    which --help shows. What --set says comes after it; see :func:`set_option`.
    """

    def add(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value is not None:
            lines = spelt(value) if spelt else [f"{name}={_toml(value)}"]
            ctx.params["settings"] = (*lines, *ctx.params.get("settings", ()))

    if name:
        more["help"] += f"  [{name}]"
    return click.option(option, callback=add, expose_value=False, **more)


def _toml(value: Any) -> str:
    return str(value) if type(value) in (int, float) else json.dumps(value, ensure_ascii=False)


def set_option(help: str = "Any setting. Repeatable.") -> Decorator:
    """Return --set; the command gets ``settings``, of this and of every :func:`setting`."""

    def add(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> None:
        ctx.params["settings"] = (*ctx.params.get("settings", ()), *value)

    return click.option(
        "--set", multiple=True, metavar="KEY=VALUE", callback=add, expose_value=False, help=help
    )


def batch_size(**more: Any) -> Decorator:
    """Return --batch-size: how many images at once."""
    given = {"type": click.IntRange(1, bounds.BATCH), "show_default": True, "help": "Images at once."}
    return click.option("--batch-size", **(given | more))


def json_option(help: str) -> Decorator:
    """Return --json, ``as_json`` of the command."""
    return click.option("--json", "as_json", is_flag=True, help=help)


def seed_option(help: str) -> Decorator:
    """Return --seed of a command that draws something, 0 where it is not given."""
    return click.option("--seed", default=0, type=SEED, help=help)


def numbers(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Read 1,2,4 as numbers: of seeds from 0, of anything else from 1."""
    least = 0 if option.name == "support_seeds" else 1
    try:
        read = tuple(int(number) for number in (value or "").split(",") if number.strip())
    except ValueError:
        read = (-1,)
    if min(read, default=least) < least or max(read, default=least) > LARGEST:
        raise click.BadParameter(
            f"{value!r:.80} is not numbers of at least {least}, like 1,2,4", ctx=ctx, param=option
        )
    return read


def words(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Read a,b,c."""
    return tuple(word.strip() for word in (value or "").split(",") if word.strip())


def lines(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Read every @FILE among values as one value a line."""
    read: list[str] = []
    for value in values:
        try:
            text = read_text(Path(value[1:])).split("\n") if value.startswith("@") else [value]
        except UserError as error:
            raise click.BadParameter(str(error), ctx=ctx, param=option) from error
        read += [line.strip() for line in text if line.strip()] if value.startswith("@") else text
    return tuple(read)


device_option = click.option("--device", default="auto", help="auto, cpu, cuda, cuda:N.")
workers_option = click.option(
    "--workers",
    type=click.IntRange(0, bounds.most_processes()),
    help="Processes that decode  [default: by the machine]",
)
wandb_option = click.option(
    "--wandb", default="", metavar="PROJECT", help="Write to this project of Weights & Biases as well."
)
shared_classes_option = click.option(
    "--shared-classes", is_flag=True, help="Let classes be in train and in the OOD test as well."
)

run_options = options(
    click.option(
        "--data", "data_dir", type=EXISTING_FOLDER, help="The data folder  [default: the run's own]"
    ),
    click.option("--cache", "cache_dir", type=EXISTING_FOLDER, help="The cache  [default: the run's own]"),
    click.option("--checkpoint", default="last", help="last, or best where id_val chose one."),
)
"""Which data, cache and weights a finished run is looked at with."""

rows_options = options(
    click.option(
        "--dtype",
        type=click.Choice(["float16", "float32"]),
        default="float16",
        help="What rows are stored in.",
    ),
    click.option("--format", type=click.Choice(["hdf5", "webdataset"]), default="hdf5", help="Shard format."),
)
"""How a cache's rows are stored."""

teacher_options = options(
    click.option(
        "--model", default="ViT-L-14-quickgelu", help="open_clip name, local-dir:FOLDER or hf-hub:ORG/REPO."
    ),
    click.option(
        "--pretrained", help="Weights of a named model: a tag such as 'openai', or a checkpoint file."
    ),
    click.option(
        "--preprocess",
        "preprocessing",
        type=click.Choice(["model", "squash"]),
        default="model",
        help="The model's own, or 256x256 squashed as the original code.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        default="auto",
        help="What the teacher computes in.",
    ),
    rows_options,
    click.option(
        "--rows-per-shard",
        default=4096,
        type=click.IntRange(1, bounds.ROWS_PER_SHARD),
        help="Rows in one shard file.",
    ),
    batch_size(help="Images at once  [default: 256 on a GPU, 32 on the CPU]"),
    workers_option,
    device_option,
    click.option(
        "--keep-text-tower", is_flag=True, help="Keep the teacher's text tower, for 'train --prompts coop'."
    ),
    click.option("--strict", is_flag=True, help="Stop at an unreadable image instead of skipping it."),
    click.option(
        "--rebuild",
        is_flag=True,
        help="Redo what no longer fits: another teacher, changed or removed images.",
    ),
    json_option("Print the summary as JSON."),
)
"""How a teacher is run and its rows are stored: cache-features, of images and of episodes."""

model_teacher_options = options(
    click.option(
        "--teacher-model", metavar="NAME", help="The teacher: an open_clip name, local-dir:DIR, hf-hub:ID."
    ),
    click.option("--pretrained", metavar="TAG|FILE", help="Its weights."),
)
"""A model's teacher: the model says which that is, and not where it is loaded from."""

graph_options = options(
    click.option(
        "--precision",
        type=click.Choice(["float32", "float16", "int8"]),
        help="Which of the exported graphs  [default: the first]",
    ),
    click.option("--threads", default=0, show_default="all cores", type=THREADS, help="Of onnxruntime."),
)
"""How an exported graph is run."""

ray_options = options(
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        help="On this machine, or as tasks of a Ray cluster whose machines share the folders.",
    ),
    click.option(
        "--address", help="The cluster's, as 'ray start' printed it  [default: RAY_ADDRESS, else one here]"
    ),
    click.option("--cpus", default=1.0, type=click.FloatRange(min=0), help="Of a Ray task."),
    click.option(
        "--gpus", default=0.0, type=click.FloatRange(min=0), help="Of a Ray task; 0.5 is half of one."
    ),
)
"""Where tasks run: sweep and cache-features."""


def ray_cluster(ctx: click.Context, given: dict[str, Any]) -> RayCluster | None:
    """Take :data:`ray_options` out of ``given``; return the cluster, None for this machine.

    Options that would do nothing are refused.
    """
    from cache.runtime.ray_pool import RayCluster

    engine, cluster = given.pop("engine"), {name: given.pop(name) for name in ("address", "cpus", "gpus")}
    if engine == "ray" and world_size() > 1:
        raise click.UsageError("choose one: torchrun, or --engine ray.")
    if engine == "ray":
        return RayCluster(**cluster)
    refuse_given(ctx, *cluster, without="--engine ray")
    return None


def given_options(ctx: click.Context, *names: str) -> list[str]:
    """Return which of some options were given, as they are written."""
    default = click.core.ParameterSource.DEFAULT
    given = [name for name in names if ctx.get_parameter_source(name) != default]
    return [param.opts[0] for param in ctx.command.params if param.name in given]


def refuse_given(ctx: click.Context, *names: str, without: str) -> None:
    """Refuse options that would do nothing, because another is not there."""
    for option in given_options(ctx, *names):
        raise click.UsageError(f"{option} is of {without}: give that too, or leave it out.")


def wants_weights(given: dict[str, Any]) -> None:
    """Make sure that a named teacher comes with weights."""
    if not given["pretrained"] and ":" not in given["model"]:
        raise click.UsageError(
            f"--model {given['model']} needs --pretrained: a tag such as 'openai' or a checkpoint file."
        )
