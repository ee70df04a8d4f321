"""The only importer of wandb: a run's numbers in Weights & Biases, as TensorBoard gets them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from cache.runtime.errors import UserError, missing_package
from distill.config import RunConfig
from distill.record.board import columns_of, keep_id, kept_id, numbers_of, sweep_of

ID = "wandb-id.txt"


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
        wandb = wandb_module()
        try:
            self._run = wandb.init(
                project=project,
                name=folder.resolve().name,
                group=sweep_of(folder) or None,
                dir=str(folder),
                id=kept_id(folder / ID) or uuid.uuid4().hex,
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
        keep_id(folder / ID, self._run.id)

    def write(self, line: Mapping[str, Any]) -> None:
        """Write one epoch."""
        # Committed: an epoch that is held back until the next would be written over the summary at the end.
        self._run.log(numbers_of(line), step=line["epoch"], commit=True)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the summary, whose means over epochs take the place of the last epoch's numbers."""
        self._run.summary.update(columns_of(summary))

    def close(self) -> None:
        """End what was begun."""
        self._run.finish()
