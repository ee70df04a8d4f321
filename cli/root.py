"""The command ``distill`` itself, without its commands."""

from __future__ import annotations

import gc
import os
import signal
from contextlib import redirect_stdout
from typing import Any

import click

from cache.runtime.errors import UserError
from cache.runtime.signals import Terminated, end_with_parent, stay_until_said, terminating
from cache.runtime.system_errors import as_user_error
from cache.runtime.torchrun import speaks, world_size
from distill.commands.options import stop

AGAIN = "what was finished is kept: the same command goes on."


class Friendly(click.Group):
    """Shows a UserError, and what the system refuses, as one line; the rest are our bugs: tracebacks."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Be the program of this process."""
        # Of every Python that it starts, workers of libraries too: no file of the working folder, which may
        # be called queue.py or cache.py, is imported in place of what is meant.
        os.environ["PYTHONSAFEPATH"] = "1"
        # Whatever a library says to torch.load itself, and whatever its version: numbers alone are loaded.
        os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
        os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
        return super().__call__(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; see the class. Of several processes that torchrun started one prints."""
        if not speaks():
            nowhere = ctx.with_resource(open(os.devnull, "w"))  # noqa: SIM115 (the context closes it)
            ctx.with_resource(redirect_stdout(nowhere))
        with terminating():  # until all is said: torchrun's signal to the others must not silence it
            try:
                end_with_parent()
                return super().invoke(ctx)
            except BaseException as error:
                stay_until_said()
                said = _explained(error)
                if said is None or (ctx.params.get("debug") and isinstance(error, Exception)):
                    raise
            # Out here, where nothing holds the error any more: its frames keep files open, and where handles
            # are what is missing, Python's own cleaning up at the exit would fail for want of one.
            gc.collect()
            stop(*said)


def _explained(error: BaseException) -> tuple[str, int] | None:
    """Return the line and the status of an error that has one; None for click's own, and for our bugs."""
    if isinstance(error, UserError):
        return str(error), error.status
    if isinstance(error, (KeyboardInterrupt, Terminated)):
        # torchrun ends all its processes when one is lost. Those that have met that already say so.
        first = error.__context__
        if world_size() > 1 and isinstance(first, UserError):
            return str(first), first.status
        asked = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
        return f"stopped; {AGAIN}", 128 + asked
    if isinstance(error, click.ClickException):
        return None if speaks() else (error.format_message(), error.exit_code)  # click prints the usage too
    refused = as_user_error(error) if isinstance(error, Exception) else None
    return (str(refused), refused.status) if refused is not None else None


@click.group(cls=Friendly, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="distill", prog_name="distill")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Distil a large vision-language model into a small open-vocabulary image model.

    Stage 1 runs the teacher once and keeps its embeddings: cache-features. Stage 2 trains students from
    that cache, with no teacher in memory: train. To see both on a small example: demo.
    """
    del debug  # read by Friendly
