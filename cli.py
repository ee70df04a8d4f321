"""The command ``distill``: its commands in the order of work, and how an error is told.

A command is imported when it is called: --help waits for none of them, nor for torch.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib import import_module
from typing import Any

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] != os.path.dirname(__file__):
    # Of 'python -m cli' the working folder, where a cache.py of the user's own may lie.
    del sys.path[0]

if sys.platform == "win32":
    sys.exit(
        "Error: distill does not run on Windows itself. Fix: run 'wsl --install', and install it in there."
    )
if sys.platform == "darwin":
    # Torch reads it when it is loaded: what Apple's GPUs cannot compute is then computed on the CPU.
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

import click

from cache.runtime.errors import UserError, nearest_names, printable
from cache.runtime.no_home import settle
from cache.runtime.numbers_alone import for_this_process
from cache.runtime.signals import Terminated, end_with_parent, stay_until_said, terminating
from cache.runtime.system_errors import as_user_error
from cache.runtime.torchrun import rank, speaks, world_size

KEEP = frozenset(
    ("demo", "adapt", "cache-features", "convert", "describe", "caption", "train", "fewshot", "sweep")
)
"""Commands that go on, run again, where they were stopped."""

Table = Mapping[str, tuple[Any, str]]
"""By name: ``module:function`` below distill.commands, or a group's own table; and what help says of it, in
one line that a terminal of 80 columns does not cut."""

CACHE: Table = {
    "info": ("cache_info:info", "Say what is in CACHE."),
    "verify": ("cache:verify", "Check CACHE, and name the damaged files."),
    "repair": ("cache:repair", "Take every damaged file out of CACHE."),
    "import": ("cache:import_", "Make a cache from embeddings that are there already."),
    "convert": ("cache:convert", "Write CACHE in the other format, number for number."),
    "add-texts": ("cache_texts:add_texts", "Embed more texts into a finished CACHE, as a text bank."),
}
ROBOTICS: Table = {
    "make-demo": ("robotics:make_demo", "Draw small episode files into OUT."),
    "cache-features": ("robotics:cache_features", "Run the teacher over DATA's episodes once (stage 1)."),
}
COMMANDS: Table = {
    "demo": ("demo:demo", "Draw a small data set, and make a model of it."),
    "adapt": ("adapt:adapt", "Make a small classifier from photos and a list of names."),
    "split": ("prepare:split", "Split SOURCE into training, ID test and OOD test images."),
    "cache-features": ("cache_features:cache_features", "Run the teacher over images once (stage 1)."),
    "cache": (CACHE, "Look into a cache, check, mend, import, convert one."),
    "describe": ("prepare:describe", "Ask a language model to describe every class of DATA."),
    "caption": ("prepare:caption", "Write one caption of every image of DATA."),
    "recipes": ("recipes:recipes", "List the recipes that ship, or print one of them."),
    "train": ("train:train", "Train one student from CACHE, without teacher (stage 2)."),
    "evaluate": ("evaluate:evaluate", "Judge a run's student, or a cache's teachers."),
    "fewshot": ("fewshot:fewshot", "Teach RUN's student OOD classes from a few images."),
    "sweep": ("sweep:sweep", "Train the runs of SWEEP from one cache."),
    "report": ("report:report", "Write one HTML page of RUNS."),
    "compare": ("report:compare", "Say what differs between two runs."),
    "export": ("export:export", "Write a folder that stands alone with RUN's student."),
    "predict": ("predict:predict", "Label IMAGES with an exported MODEL."),
    "embed": ("embed:embed", "Write a unit row of every picture of SOURCE."),
    "texts": ("export:texts", "List MODEL's text banks, or add texts to them."),
    "serve": ("predict:serve", "Serve MODEL over HTTP: post an image, get labels."),
    "bench-model": ("export:bench_model", "Measure MODEL on this CPU."),
    "robotics": (ROBOTICS, "Stage 1 for a robot's episodes, and episodes to try."),
    "doctor": ("doctor:doctor", "Say what this machine has, and try both stages."),
}


class Commands(click.Group):
    """Commands by name, as :data:`COMMANDS` has them, each imported when it is called."""

    def __init__(self, *args: Any, table: Table, **more: Any) -> None:
        super().__init__(*args, **more)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of work."""
        return [*self.table, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command or a group, None for another name."""
        where, line = self.table.get(cmd_name, (None, ""))
        if where is None:
            return super().get_command(ctx, cmd_name)
        if isinstance(where, Mapping):
            return Commands(cmd_name, table=where, help=line)
        module, _, name = where.partition(":")
        return getattr(import_module(f"distill.commands.{module}"), name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is called; of a name that is none, say which is nearest."""
        name, names = args[0], self.list_commands(ctx)
        if name not in names and (near := nearest_names(name, names)):
            ctx.fail(f"No such command {name!r}: {near.removesuffix(' ')}")
        ctx.meta["distill.command"] = name
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a line of each, without importing it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.table.items()])


class Program(Commands):
    """Shows a UserError, and what the system refuses, as one line; the rest are our bugs: tracebacks."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Be the program of this process."""
        settle()
        # Of every Python that it starts, workers of libraries too: no file of the working folder, which may
        # be called queue.py or cache.py, is imported in place of what is meant.
        os.environ["PYTHONSAFEPATH"] = "1"
        for_this_process()
        return super().__call__(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; see the class. Of several processes that torchrun started one prints."""
        if not speaks():
            nowhere = ctx.with_resource(open(os.devnull, "w"))  # noqa: SIM115 (the context closes it)
            ctx.with_resource(redirect_stdout(nowhere))
        with terminating():  # until all is said: torchrun's signal to the others must not silence it
            try:
                end_with_parent()
                import_module("distill.commands.memory")  # now: when it is needed no memory may be left
                return super().invoke(ctx)
            except BaseException as error:
                stay_until_said()
                if isinstance(error, click.NoSuchOption):
                    error = import_module("distill.commands.meant").with_option_meant(error)
                command = ctx.meta.get("distill.command", "")
                explained = _explained(error, command, debug=ctx.params.get("debug", False))
                if explained is None:
                    raise error
            # Out here, where nothing holds the error any more: its frames keep files open, and where handles
            # are what is missing, Python's own cleaning up at the exit would fail for want of one.
            gc.collect()
            message, status = explained
            # It may be wrong for one of several processes alone: all but the first say which they are.
            who = "" if speaks() else f"rank {rank()}: "
            click.echo(f"Error: {who}{printable(message)}", err=True)
            sys.exit(status)


def _explained(error: BaseException, command: str, *, debug: bool) -> tuple[str, int] | None:
    """Return the line and the status of an error that has one; None for click's own, and for our bugs."""
    keeps = command in KEEP
    # Python 3.11 raises what stops it while a class is made as the cause of an error of its own.
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, (KeyboardInterrupt, Terminated)):
        error = error.__cause__
    if isinstance(error, (KeyboardInterrupt, Terminated)):
        # torchrun ends all its processes when one is lost. Those that have met that already say so.
        met = error.met if isinstance(error, Terminated) and world_size() > 1 else None
        if met is not None:
            return str(met), met.status
        number = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
        notes = getattr(error, "__notes__", None)
        kept = "what was finished is kept: the same command goes on." if keeps else ""
        words = " ".join(notes) if notes else kept
        torchruns = number == signal.SIGTERM and world_size() > 1
        by = " by torchrun, which ends all processes when one is lost" if torchruns else ""
        return f"stopped{by}; {words}" if words else f"stopped{by}.", 128 + number
    if isinstance(error, click.ClickException):
        return None if speaks() else (error.format_message(), error.exit_code)  # click prints the usage too
    # Stopped of distill.train, a module that --help does without.
    if asked := getattr(error, "signal_number", 0):
        notes = [f"({note})" for note in getattr(error, "__notes__", ())]
        return " ".join([str(error), *notes]), 128 + asked
    if debug or not isinstance(error, Exception):
        return None
    told = error if isinstance(error, UserError) else as_user_error(error)
    if told is None:
        return None
    from distill.commands.memory import told_of

    return str(told_of(told, command, keeps=keeps)), told.status


@click.group(
    cls=Program,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True},
)
@click.version_option(package_name="distill", prog_name="distill")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Distil a large vision-language model into a small open-vocabulary image model.

    Stage 1 runs the teacher once and keeps its embeddings: cache-features. Stage 2 trains students from
    that cache, with no teacher in memory: train. To see both on a small example: demo.
    """
    del debug  # read by Program


if __name__ == "__main__":
    main(prog_name="distill")
