"""The only importer of wandb: a run's numbers in Weights & Biases, as TensorBoard gets them."""

from __future__ import annotations

import os
import uuid
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from cache.runtime.atomic_files import replacing
from cache.runtime.errors import UserError, missing_package
from distill.config import RunConfig
from distill.record.run_log import space_metrics

ID = "wandb-id.txt"
SWEEP = "sweep.json"  # beside the runs of a sweep


def wandb_module() -> ModuleType:
    """Return wandb; UserError where it is not installed.

    Its reports of its own troubles are off unless asked for: they go out in WANDB_MODE=offline too.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        import wandb
    except ImportError as error:
        raise missing_package(error, extra="wandb") from error
    module: ModuleType = wandb
    return module


class WandbRun:
    """One run of a W&B project, named as its folder; those of a sweep are grouped by the sweep's.

    A resumed run goes on in the same one: its id is kept in the folder. WANDB_MODE and the like hold.
    """

    def __init__(self, project: str, folder: Path, config: RunConfig) -> None:
        """Begin a run, or go on with it.

        UserError if wandb is not installed, or cannot begin: without a key, say.
        """
        wandb, path, sweep = wandb_module(), folder / ID, folder.resolve().parent
        if not path.is_file():
            with replacing(path) as temporary:
                temporary.write_text(uuid.uuid4().hex, encoding="utf-8")
        try:
            self._run = wandb.init(
                project=project,
                name=folder.resolve().name,
                group=sweep.name if (sweep / SWEEP).is_file() else None,
                dir=str(folder),
                id=path.read_text(encoding="utf-8").strip(),
                resume="allow",
                reinit="create_new",  # students trained beside each other each have one
                config=asdict(config),
                settings=wandb.Settings(console="off", silent=True),
            )
        except (wandb.Error, ValueError) as error:  # ValueError of pydantic: WANDB_MODE=ofline, say
            reason = " ".join(line.strip() for line in str(error).splitlines()[:3])
            raise UserError(
                f"Weights & Biases cannot begin ({reason})",
                fix="run 'wandb login', or set WANDB_MODE=offline and 'wandb sync' later.",
            ) from error

    def write(self, line: dict[str, Any]) -> None:
        """Write one epoch."""
        numbers = {name: value for name, value in line.items() if isinstance(value, int | float)}
        # Committed: an epoch that is held back until the next would be written over the summary at the end.
        self._run.log(
            {name.replace("loss_", "loss/", 1): value for name, value in numbers.items()},
            step=line["epoch"],
            commit=True,
        )

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write the summary, whose means over epochs take the place of the last epoch's numbers.

        What there is of every class or image stays in summary.json: W&B makes each number a column.
        """
        self._run.summary.update({**_columns(summary), **space_metrics(summary)})

    def close(self) -> None:
        """End what was begun."""
        self._run.finish()


def _columns(summary: dict[str, Any]) -> dict[str, int | float | str]:
    """Return a summary's numbers and words, those of its tables as ``TABLE/NAME``."""
    tables = {name: table for name, table in summary.items() if isinstance(table, dict)}
    below = {f"{name}/{key}": value for name, table in tables.items() for key, value in table.items()}
    return {
        name: value for name, value in {**summary, **below}.items() if isinstance(value, int | float | str)
    }
