"""Which boards a run writes to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distill.config import RunConfig
from distill.record.board import Board
from distill.record.mlflow_board import MlflowRun, mlflow_module
from distill.record.tensorboard_board import TensorBoard
from distill.record.wandb_board import WandbRun, wandb_module


@dataclass(frozen=True, kw_only=True, slots=True)
class Boards:
    """Which boards a run writes to beside TensorBoard; an empty name is none.

    ``wandb`` is a project of Weights & Biases, ``mlflow`` an experiment of MLflow.
    """

    wandb: str = ""
    mlflow: str = ""

    def check(self) -> None:
        """Raise UserError where the package of one of them is not installed."""
        if self.wandb:
            wandb_module()
        if self.mlflow:
            mlflow_module()

    def options(self) -> list[str]:
        """Return them as words of a command line."""
        given = (("--wandb", self.wandb), ("--mlflow", self.mlflow))
        return [word for option, name in given if name for word in (option, name)]

    def open(self, folder: Path, config: RunConfig, *, first_epoch: int) -> Iterator[Board]:
        """Begin to write a run, or go on with it, board by board; UserError where one cannot begin.

        ``first_epoch`` is the number of epochs that are written already.
        """
        if self.wandb:
            yield WandbRun(self.wandb, folder, config)
        if self.mlflow:
            yield MlflowRun(self.mlflow, folder, config)
        yield TensorBoard(folder, first_epoch=first_epoch)


TENSORBOARD_ALONE = Boards()
