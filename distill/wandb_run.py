"""The only importer of wandb: a run's numbers in Weights & Biases, as TensorBoard gets them."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from cache.errors import UserError
from cache.files import replacing
from distill.config import RunConfig

ID = "wandb-id.txt"


def wandb_module() -> ModuleType:
    """Return wandb; UserError where it is not installed."""
    try:
        import wandb
    except ImportError as error:
        raise UserError("--wandb needs wandb", fix='pip install "distill[wandb]".') from error
    module: ModuleType = wandb
    return module


class WandbRun:
    """One run of a W&B project, named as its folder, grouped by the folder that this is in.

    A resumed run goes on in the same one: its id is kept in the folder. WANDB_MODE and the like hold.
    """

    def __init__(self, project: str, folder: Path, config: RunConfig) -> None:
        """Begin a run, or go on with it.

        Raises
        ------
        UserError
            If wandb is not installed, or cannot begin: without a key, say.
        """
        wandb, path = wandb_module(), folder / ID
        if not path.is_file():
            with replacing(path) as temporary:
                temporary.write_text(uuid.uuid4().hex, encoding="utf-8")
        try:
            self._run = wandb.init(
                project=project,
                name=folder.resolve().name,
                group=folder.resolve().parent.name,
                dir=str(folder),
                id=path.read_text(encoding="utf-8").strip(),
                resume="allow",
                reinit="create_new",  # students trained beside each other each have one
                config=asdict(config),
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.Error as error:
            raise UserError(
                f"Weights & Biases cannot begin ({str(error).splitlines()[0]})",
                fix="run 'wandb login', or set WANDB_MODE=offline and 'wandb sync' later.",
            ) from error

    def write(self, line: dict[str, Any]) -> None:
        """Write one epoch."""
        numbers = {name: value for name, value in line.items() if isinstance(value, int | float)}
        self._run.log(
            {name.replace("loss_", "loss/", 1): value for name, value in numbers.items()}, step=line["epoch"]
        )

    def write_space(self, space: dict[str, dict[str, float]], epoch: int) -> None:
        """Write the space metrics of every split into the summary, at the run's end."""
        del epoch
        self._run.summary.update(
            {
                f"space/{split}/{name}": value
                for split, found in space.items()
                for name, value in found.items()
            }
        )

    def close(self) -> None:
        """End what was begun."""
        self._run.finish()
