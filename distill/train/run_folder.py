"""The folder of a run in training: what is written there, by the first of several processes alone."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cache.runtime.atomic_files import remove_temporaries, replacing, write_json
from cache.runtime.distributed import current_ranks
from cache.runtime.locks import is_lock, only_writer
from distill.config import RunConfig
from distill.judge.outputs import RunOutputs, save_logits, save_outputs
from distill.record.board import Board
from distill.record.boards import Boards
from distill.record.run_files import (
    BEST,
    CONFIG,
    CSV,
    CURVES,
    EMA,
    LAST,
    LOGITS,
    METRICS,
    OUTPUTS,
    SUMMARY,
    checkpoint_file,
)
from distill.record.run_log import draw_curves, write_csv, write_metrics
from distill.settings import to_toml
from distill.train.session import Position, Session, save_checkpoint


def chosen_number(choose_by: str, line: Mapping[str, Any], metric: str, *, of: str = "") -> float | None:
    """Return what an epoch's line says that the best checkpoint is chosen by: a number of what is set aside.

    ``metric`` is that of ``id_val``, ``of`` the average of weights that it is of; None where nothing is set
    aside. The OOD test never chooses.
    """
    of_pool = ("pool_val",) if metric.endswith("_cosine") else ()  # as true of images without a label
    splits = ("id_val", "class_val", *of_pool) if choose_by == "auto" else (choose_by,)
    before = f"{of}_" if of else ""
    names = (before + metric.replace("id_val", split, 1) for split in splits)
    return next((float(line[name]) for name in names if name in line), None)


class RunFolder:
    """A run's folder, locked against other writers until it is closed."""

    def __init__(self, out: Path) -> None:
        self.path, self.writes = out, current_ranks().is_first
        self._boards: list[Board] = []
        self._began = True
        self._open = ExitStack()
        if self.writes:
            self._open.enter_context(only_writer(out))
            remove_temporaries(out)

    def begin(self, config: RunConfig, position: Position, boards: Boards) -> None:
        """Begin with TensorBoard and ``boards``, and write the config and the history so far.

        Where a board cannot begin, :meth:`close` leaves nothing in a new folder: the same command can be
        given again.
        """
        if not self.writes:
            return
        self._began = (self.path / CONFIG).is_file()
        for board in boards.open(self.path, config, first_epoch=position.epoch):
            self._boards.append(board)
        with replacing(self.path / CONFIG) as temporary:
            temporary.write_text(to_toml(config), encoding="utf-8")
        self._began = True
        self._write_history(position)

    def save(self, session: Session, position: Position) -> None:
        """Write the state."""
        if self.writes:
            save_checkpoint(self.path / LAST, session, position)

    def end_epoch(self, session: Session, position: Position) -> None:
        """Write the state after an epoch, its line of the history, and the best checkpoint if it is that."""
        if not self.writes:
            return
        line = position.history[-1]
        data, by = session.config.data, session.model.chosen_by
        self._save_if_best(chosen_number(data.choose_by, line, by), session, position)
        if (chosen := chosen_number(data.choose_by, line, by, of=EMA)) is not None:
            with session.averages.in_place(EMA):
                self._save_if_best(chosen, session, position)
        self.save(session, position)
        self._write_history(position)
        for board in self._boards:
            board.write(line)

    def _save_if_best(self, chosen: float | None, session: Session, position: Position) -> None:
        if chosen is not None and chosen > position.best_id_val:
            position.best_id_val = chosen
            save_checkpoint(self.path / BEST, session, position)

    def _write_history(self, position: Position) -> None:
        write_metrics(self.path / METRICS, position.history)
        write_csv(self.path / CSV, position.history)

    def end(
        self, session: Session, position: Position, summary: dict[str, Any], outputs: RunOutputs | None
    ) -> None:
        """Write outputs, means of the weights, curves and the summary of a trained student."""
        for name in session.averages.names:
            with session.averages.in_place(name):
                save_checkpoint(checkpoint_file(self.path, name), session, position)
        if outputs is not None:
            save_outputs(self.path / OUTPUTS, outputs)
            save_logits(self.path / LOGITS, outputs.logits)
        draw_curves(
            self.path / CURVES,
            position.history,
            curves=session.model.curves,
            of=session.model.measure,
            title=f"{session.config.student.arch}: {self.path.name}",
        )
        for board in self._boards:
            board.write_summary(summary)
        write_json(self.path / SUMMARY, summary)  # last: it says that the run has finished

    def close(self) -> None:
        """Close what is open."""
        with self._open:
            for board in self._boards:
                board.close()
            if not self._began:
                _empty(self.path)


def _empty(folder: Path) -> None:
    """Remove what boards have left in a folder; all but its lock is theirs."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)  # a board's own process may still write there
        elif not is_lock(path):
            path.unlink()
