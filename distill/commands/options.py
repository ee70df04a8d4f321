"""What several commands can be told: kinds of options, and options that carry a setting."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.runtime import machine_limits as bounds
from cache.runtime.errors import UserError, WrongOption
from cache.runtime.torchrun import world_size
from cache.sources.names import lines_of, separated

if TYPE_CHECKING:
    from cache.runtime.ray_pool import RayCluster
    from distill.record.boards import Boards

FOLDER = click.Path(file_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, path_type=Path)
FILE_TO_WRITE = click.Path(dir_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


# What torch takes as a seed, and TOML writes.
LARGEST = 2**63 - 1
SEED = click.IntRange(0, LARGEST)
COUNT = click.IntRange(min=1)
WHOLE = click.IntRange(min=0)
AMOUNT = click.FloatRange(min=0)
THREADS = click.IntRange(0, bounds.THREADS)
# Of this machine: four a core, or 16.
JOBS = click.IntRange(1, bounds.most_processes())

Decorator = Callable[[Any], Any]


def options(*decorators: Decorator) -> Decorator:
    """Return one decorator for options that several commands have, in the order given."""

    def decorate(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def option(
    written: str,
    help: str,
    takes: Any = None,
    default: Any = None,
    *,
    setting: str | Callable[[Any], Iterable[str]] = "",
    **more: Any,
) -> Decorator:
    """Return an option.

    Parameters
    ----------
    written
        ``--name``, what help shows in place of a value, and the command's parameter where that is called
        otherwise: ``--name VALUE parameter``.
    takes
        A type of click's, a list of choices, or ``bool`` for a flag; None: as the default.
    setting
        The setting that it carries, or what turns its value into ``section.key=value`` lines. Where it is
        given, the command has these in its parameter ``settings``; what --set says comes after them.
    """
    words = written.split()
    values = [word for word in words[1:] if not word.islower()]
    if values:
        more["metavar"], words = values[0], [word for word in words if word not in values]
    if takes is bool:
        more |= {"is_flag": True, "default": None if setting else False}
    elif takes is not None:
        more["type"] = click.Choice(takes) if isinstance(takes, list) else takes
    if default is not None:
        more["default"] = default
    if not setting:
        return click.option(*words, help=help, **more)

    def add(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value is not None:
            from distill.settings import toml_value

            lines = setting(value) if callable(setting) else [f"{setting}={toml_value(value)}"]
            ctx.params["settings"] = (*lines, *ctx.params.get("settings", ()))

    shown = "" if callable(setting) else f"  [{setting}]"
    return click.option(*words, help=f"{help}{shown}", callback=add, expose_value=False, **more)


def set_option(help: str = "Any setting. Repeatable.") -> Decorator:
    """Return --set; the command gets ``settings``, of this and of every option that carries one."""

    def add(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> None:
        ctx.params["settings"] = (*ctx.params.get("settings", ()), *value)

    return option("--set KEY=VALUE", help, multiple=True, callback=add, expose_value=False)


def batch_size(default: int | None = None, help: str = "Images at once.") -> Decorator:
    """Return --batch-size: how many images at once."""
    return option("--batch-size", help, click.IntRange(1, bounds.BATCH), default)


def json_option(help: str) -> Decorator:
    """Return --json, ``as_json`` of the command."""
    return option("--json as_json", help, bool)


def seed_option(help: str) -> Decorator:
    """Return --seed of a command that draws something, 0 where it is not given."""
    return option("--seed", help, SEED, 0)


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


def names_option(help: str, *, separate: Callable[[str], tuple[str, ...]] = separated) -> Decorator:
    """Return --names, the same in every command: A,B,... or a file with one a line, repeatable.

    The command gets a tuple, with '' for an empty line between others. ``separate`` takes a list apart.
    """

    def read(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
        names: list[str] = []
        try:
            for value in values:
                if value.startswith("@") or value.endswith(".txt"):
                    names += lines_of(Path(value.removeprefix("@")))
                elif os.path.isfile(value):  # pathlib raises for a list longer than a file's name may be
                    raise WrongOption(
                        f"{value} is a file", fix=f"give @{value}, or '{value},' for that name."
                    )
                else:
                    names += separate(value)
        except UserError as error:
            raise click.BadParameter(str(error), ctx=ctx, param=option) from error
        return tuple(names)

    more = '; A,"B, C", or a file (@FILE, FILE.txt) with one a line. Repeatable.'
    return option("--names A,B,...|FILE", f"{help}{more}", multiple=True, callback=read)


TEACHERS = "open_clip name, timm:NAME, local-dir:FOLDER, hf-hub:ORG/REPO, or FILE.py:NAME, which is run."
DEVICES = "auto (CUDA, else Apple's GPU, else the CPU), cpu, cuda, cuda:N, mps."
WEIGHTS = "Weights of a named teacher: a tag such as 'openai', or a checkpoint file."
device_option = option("--device", DEVICES, default="auto")


def template_option(more: str) -> Decorator:
    """Return --template: the command gets a tuple ``templates``; ``more`` is said of them in this one."""
    return option(
        "--template TEXT templates",
        f"Put names in it: 'a sketch of {{}}', or openai_imagenet's 80. Repeatable: averaged{more}",
        multiple=True,
    )


cache_out_option = option("--out", "The cache folder; run again, it continues.", FOLDER, required=True)
label2text_option = option(
    "--label2text", "Class names; found beside the images, else the folders' names.", FILE
)
workers_option = option(
    "--workers",
    "Processes that decode  [default: by the machine]",
    click.IntRange(0, bounds.most_processes()),
)
boards_options = options(
    option(
        "--wandb",
        "Write to this project of Weights & Biases as well.",
        default="",
        show_default=False,
        metavar="PROJECT",
    ),
    option(
        "--mlflow",
        "Write to this experiment of MLflow as well; MLFLOW_TRACKING_URI says where.",
        default="",
        show_default=False,
        metavar="EXPERIMENT",
    ),
)


def boards_of(given: dict[str, Any]) -> Boards:
    """Take what boards are written to out of what was ``given``."""
    from distill.record.boards import Boards

    return Boards(wandb=given.pop("wandb"), mlflow=given.pop("mlflow"))


shared_classes_option = option(
    "--shared-classes", "Let classes be in train and in the OOD test as well.", bool
)


def data_option(name: str = "data_dir") -> Decorator:
    """Return --data: sources, each ``SOURCE`` or ``SPLIT=SOURCE``; the command gets a tuple."""
    return option(
        f"--data SOURCE {name}",
        "Where the images are now, once; [SPLIT=]SOURCE, repeatable  [default: where they were]",
        multiple=True,
    )


code_option = option("--code", "FILE.py of a student of your own; it is run.", FILE)
"""One's own code: a command names the file, nothing that is in a file does."""

run_options = options(
    data_option(),
    option("--cache cache_dir", "A finished cache  [default: the run's own]", EXISTING_FOLDER),
    option(
        "--checkpoint",
        "last; best, where id_val chose one; ema, averaged, mean_head: means of weights, where kept.",
        default="last",
    ),
    code_option,
)
"""Which data, cache, weights and code a finished run is looked at with."""

rows_options = options(
    option("--dtype", "What rows are stored in.", ["float16", "float32"], "float16"),
    option(
        "--format",
        "Row groups in HDF5, or tars of pictures and rows.",
        ["hdf5", "webdataset"],
        "hdf5",
    ),
)
"""How a cache's rows are stored."""

teacher_options = options(
    option("--model", TEACHERS, default="ViT-L-14-quickgelu"),
    option("--pretrained TAG|FILE", WEIGHTS),
    option(
        "--preprocess preprocessing", "The model's own, or squashed to 256x256.", ["model", "squash"], "model"
    ),
    option(
        "--precision", "What the teacher computes in.", ["auto", "float32", "bfloat16", "float16"], "auto"
    ),
    rows_options,
    batch_size(help="Images at once  [default: 256 on a GPU, 32 on the CPU]"),
    workers_option,
    device_option,
    option("--keep-text-tower", "Keep the teacher's text tower, for 'train --prompts coop'.", bool),
    option("--strict", "Stop at an unreadable image instead of skipping it.", bool),
    option("--rebuild", "Make a cache of another teacher or dtype anew; the old one stays until then.", bool),
    json_option("Print the summary as JSON."),
)
"""How a teacher is run and its rows are stored: cache-features, of images and of episodes."""

model_teacher_options = options(
    option("--teacher-model NAME", "The teacher, named as for cache-features --model."),
    option("--pretrained TAG|FILE", WEIGHTS),
)
"""A model's teacher: the model says which that is, and not where it is loaded from."""

graph_options = options(
    option("--precision", "Which graph  [default: the first]", ["float32", "float16", "int8"]),
    option("--threads", "Of onnxruntime.", THREADS, 0, show_default="all cores"),
)
"""How an exported graph is run."""

ray_options = options(
    option(
        "--engine", "Here, or as tasks of a Ray cluster that shares the folders.", ["local", "ray"], "local"
    ),
    option("--address", "The cluster's, as 'ray start' printed it  [default: RAY_ADDRESS, else one here]"),
    option("--cpus", "Of a Ray task.", AMOUNT, 1.0),
    option("--gpus", "Of a Ray task; 0.5 is half of one.", AMOUNT, 0.0),
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
    model = given["model"]
    if not given["pretrained"] and ":" not in model:
        if Path(model).is_dir():
            raise click.UsageError(f"--model {model} is a folder: give local-dir:{model}.")
        if model.endswith(".py"):
            raise click.UsageError(f"--model {model} is a file: name what is in it, {model}:NAME.")
        raise click.UsageError(
            f"--model {model} needs --pretrained: a tag such as 'openai' or a checkpoint file."
        )


def check_run(run: Path, checkpoint: str = "last") -> None:
    """Make sure that a run has trained, before what reads its weights is imported; UserError else."""
    from distill.checkpoint import check_there
    from distill.record.run_files import checkpoint_file

    check_there(checkpoint_file(run, checkpoint))
