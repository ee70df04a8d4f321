"""The loop: train one student from the cache. No teacher is in memory."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cache.errors import UserError
from cache.files import replacing
from cache.progress import Progress, Silent
from distill.batch import Batch
from distill.checkpoint import Position, resume, save_checkpoint
from distill.config import RunConfig, to_toml
from distill.evaluate import SplitResult, judge_heads, student_outputs
from distill.objective import distillation_objective
from distill.optim import set_epoch
from distill.runlog import LAST_EPOCHS, TensorBoard, draw_curves, write_metrics, write_summary
from distill.session import EvalSplit, Session, classifiers_for, open_session
from distill.space_run import space_of_split, teacher_has_rows

LAST, BEST, METRICS, CONFIG, SUMMARY, CURVES = (
    "last.pt",
    "best.pt",
    "metrics.jsonl",
    "config.toml",
    "summary.json",
    "curves.png",
)


class Stopped(Exception):
    """A signal stopped the run; its checkpoint is written. ``signal_number`` says which."""

    def __init__(self, signal_number: int, out: Path) -> None:
        super().__init__(f"stopped, and saved in {out / LAST}; go on with the same command and --resume.")
        self.signal_number = signal_number


@dataclass(kw_only=True)
class _Stop:
    signal_number: int = 0


@contextmanager
def _listening() -> Iterator[_Stop]:
    """Turn SIGTERM and Ctrl-C into a request to stop after the step."""
    stop = _Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        stop.signal_number = number

    # Only the main thread may set handlers; elsewhere a run cannot be signalled.
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(kw_only=True)
class _Sums:
    """One epoch's sums so far, on the device: read once an epoch."""

    images: int = 0
    parts: dict[str, Tensor] = field(default_factory=dict)
    right_C: Tensor
    seen_C: Tensor

    def add(self, parts: dict[str, Tensor], logits: Tensor, labels: Tensor) -> None:
        count = len(labels)
        self.images += count
        for name, value in parts.items():
            self.parts[name] = self.parts.get(name, 0) + value.detach().double() * count
        self.seen_C.index_add_(0, labels, torch.ones_like(labels, dtype=torch.float64))
        self.right_C.index_add_(0, labels, (logits.argmax(dim=1) == labels).double())

    def state(self) -> dict[str, Any]:
        return {"images": self.images, "parts": self.parts, "right_C": self.right_C, "seen_C": self.seen_C}

    def metrics(self) -> dict[str, float]:
        losses = {f"loss_{name}": float(value) / self.images for name, value in self.parts.items()}
        seen = self.seen_C > 0
        return {**losses, "train_accuracy": float((100 * self.right_C[seen] / self.seen_C[seen]).mean())}


def run(
    config: RunConfig,
    *,
    cache_dir: Path,
    data_dir: Path,
    out: Path,
    resume_run: bool = False,
    progress: Progress | None = None,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Train one student and return its summary, which is also ``out/summary.json``.

    Parameters
    ----------
    out
        A new folder; with ``resume_run`` one that holds this very run, which then goes on to the same
        numbers as one that was never interrupted.

    Raises
    ------
    UserError
        If cache, data and config do not fit, ``out`` holds something else, or a loss is not finite.
    Stopped
        After SIGTERM or Ctrl-C, with the state saved.
    """
    progress = progress or Silent()
    _check_out(out, resume_run=resume_run)
    session = open_session(config, cache_dir=cache_dir, data_dir=data_dir)
    if session.data.joined.left_out:
        progress.note(
            f"{session.data.joined.left_out:,} training images have no teacher row and are left out"
        )
    position = resume(out / LAST, session) if resume_run and (out / LAST).exists() else Position()
    with replacing(out / CONFIG) as temporary:
        temporary.write_text(to_toml(config), encoding="utf-8")
    write_metrics(out / METRICS, position.history)
    board = TensorBoard(out, first_epoch=position.epoch)
    progress.start(_images_left(session, position))
    results: dict[str, SplitResult] = {}
    try:
        with _listening() as stop:
            while position.epoch < config.train.epochs:
                results = _epoch(session, position, out, stop, progress)
                board.write(position.history[-1])
        space = space_of_session(session)
        board.write_space(space, config.train.epochs - 1)
    finally:
        board.close()
    if not results:  # a run that had ended before its summary was written
        results = {n: r for split in session.evals.values() for n, r in _judge(session, split).items()}
    draw_curves(out / CURVES, position.history, title=f"{config.student.arch}: {out.name}")
    return write_summary(
        out / SUMMARY,
        session,
        position.history,
        seconds=position.seconds,
        per_class={name: result.per_class for name, result in results.items()},
        space=space,
        command=command or sys.argv,
    )


def _check_out(out: Path, *, resume_run: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file", fix="choose a new folder for --out.")
    if out.is_dir() and any(out.iterdir()) and not resume_run:
        raise UserError(f"{out} is not empty", fix="choose a new folder, or continue that run with --resume.")
    if resume_run and not (out / CONFIG).is_file():
        raise UserError(f"{out} holds no run to resume", fix="leave --resume out, or give the run's folder.")


def _epoch(
    session: Session, position: Position, out: Path, stop: _Stop, progress: Progress
) -> dict[str, SplitResult]:
    """Train one epoch from where it stands, judge, and save. Returns the splits judged."""
    config, began = session.config.train, time.perf_counter()
    lr = set_epoch(session.optimizer, session.config.optim, epoch=position.epoch, epochs=config.epochs)
    batches = _batches(session, position)
    sums = _sums(session, position)
    session.student.train()
    before = sums.images
    for batch in session.data.batches(batches[position.step :]):
        parts, logits, labels = _step(session, batch, position)
        sums.add(parts, logits, labels)
        position.step += 1
        progress.advance(len(batch.keys))
        if stop.signal_number or (
            position.step % config.checkpoint_steps == 0 and position.step < len(batches)
        ):
            _save(session, position, sums, out, began)
            began = time.perf_counter()
        if stop.signal_number:
            raise Stopped(stop.signal_number, out)
    train_seconds = time.perf_counter() - began
    results = _judge_epoch(session, position)
    line = {
        "epoch": position.epoch,
        "lr": lr,
        **sums.metrics(),
        **{f"{name}_accuracy": result.accuracy for name, result in results.items()},
        **{f"{name}_loss": result.loss for name, result in results.items()},
        "images_per_s": (sums.images - before) / max(train_seconds, 1e-9),
    }
    position.history.append(line)
    position.epoch, position.step = position.epoch + 1, 0
    _keep_best(session, position, results, out)
    _save(session, position, None, out, began)
    write_metrics(out / METRICS, position.history)
    progress.note(_said(line, config.epochs))
    return results


def _batches(session: Session, position: Position) -> list[NDArray[np.int64]]:
    config = session.config
    return session.data.epoch(
        position.epoch,
        batch_size=config.train.batch_size,
        repeats=config.data.repeat_epochs,
        seed=config.train.seed,
    )


def _images_left(session: Session, position: Position) -> int:
    if position.epoch == session.config.train.epochs:
        return 0
    images = [len(batch) for batch in _batches(session, position)]
    return (session.config.train.epochs - position.epoch) * sum(images) - sum(images[: position.step])


def _sums(session: Session, position: Position) -> _Sums:
    if position.step and position.sums:
        return _Sums(**position.sums)
    zeros = torch.zeros(len(session.class_names), dtype=torch.float64, device=session.device)
    return _Sums(right_C=zeros, seen_C=zeros.clone())


def _save(session: Session, position: Position, sums: _Sums | None, out: Path, began: float) -> None:
    position.seconds += time.perf_counter() - began
    position.sums = sums.state() if sums is not None else {}
    save_checkpoint(out / LAST, session, position)


def _step(session: Session, batch: Batch, position: Position) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """One step of the optimiser. Everything random in it is a function of seed, epoch and step."""
    seeds = np.random.SeedSequence([session.config.train.seed, position.epoch, position.step]).generate_state(
        2
    )
    generator = torch.Generator().manual_seed(int(seeds[0]))
    torch.manual_seed(int(seeds[1]))
    batch = batch.to(session.device)
    images = session.augment(batch.image_B3RR, generator)
    session.optimizer.zero_grad(set_to_none=True)
    with session.autocast():
        outputs = session.student(images)
    parts, logits = losses_and_logits(session, outputs, batch)
    if not torch.isfinite(parts["total"]):
        raise _not_finite(parts, batch, position)
    session.scaler.scale(parts["total"]).backward()
    session.scaler.step(session.optimizer)
    session.scaler.update()
    return parts, logits, batch.label_B


def losses_and_logits(session: Session, outputs: Tensor, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
    """Return the losses of a batch and its logits over the training classes.

    With several teachers each has its own losses, called ``TEACHER/LOSS``, and the total is their sum; the
    logits are the first head's.
    """
    if not session.heads:
        assert session.columns is not None
        loss = F.cross_entropy(outputs.float(), session.columns[batch.label_B])
        return {"cls": loss, "total": loss}, outputs.detach()[:, session.columns]
    parts: dict[str, Tensor] = {}
    total, logits = outputs.new_zeros((), dtype=torch.float32), None
    for head, targets in zip(session.heads, batch.targets, strict=True):
        rows = head.embed(outputs)
        text = head.texts(session.class_names, rows)
        found = distillation_objective(
            rows,
            targets.teacher_BD,
            text,
            batch.label_B,
            session.config.loss,
            captions=targets.caption_BD,
            neighbours=targets.neighbours,
        )
        total = total + found.pop("total")
        before = f"{head.name}/" if len(session.heads) > 1 else ""
        parts |= {f"{before}{name}": value for name, value in found.items()}
        if logits is None:
            logits = _cosines(rows, text)
    assert logits is not None
    return {**parts, "total": total}, logits


@torch.no_grad()
def _cosines(rows: Tensor, text: Tensor) -> Tensor:
    unit_text = F.normalize(text.float(), dim=-1)
    if unit_text.dim() == 3:  # every image has texts of its own
        return torch.einsum("bd,bcd->bc", rows.float(), unit_text)
    return rows.float() @ unit_text.T


def _not_finite(parts: dict[str, Tensor], batch: Batch, position: Position) -> UserError:
    said = ", ".join(f"{name} {value.item():g}" for name, value in parts.items())
    return UserError(
        f"the loss is not finite in epoch {position.epoch}, step {position.step} ({said}; "
        f"images {', '.join(batch.keys[:3])}, ...)",
        fix="lower optim.lr, or use train.precision=float32; last.pt holds the state before.",
    )


def _judge(session: Session, split: EvalSplit) -> dict[str, SplitResult]:
    """Return how well every head classifies a split; see :func:`distill.session.classifiers_for`."""
    return judge_heads(
        _outputs(session, split),
        classifiers_for(session.config, session.heads, session.folder.class_names, split.class_names),
        split=split.name,
        class_names=split.class_names,
        pixels=split.pixels,
    )


def _outputs(session: Session, split: EvalSplit) -> Iterator[tuple[Tensor, Tensor]]:
    return student_outputs(
        session.student,
        split.pixels,
        image_size=session.config.student.image_size,
        batch_size=session.config.train.eval_batch_size,
        device=session.device,
        autocast=session.autocast,
    )


def space_of_session(session: Session) -> dict[str, dict[str, float]]:
    """Return how close the student's embeddings are to the teacher's, by split; see :mod:`distill.space`.

    Splits without teacher rows are left out.
    """
    found: dict[str, dict[str, float]] = {}
    for split in session.evals.values() if session.heads else ():
        if teacher_has_rows(session.heads, split):
            found |= space_of_split(session.heads, _outputs(session, split), split, session.config.loss)
    return found


def _judge_epoch(session: Session, position: Position) -> dict[str, SplitResult]:
    """OOD and id_val every epoch, ID in the last epochs, as the original code reports them."""
    late = position.epoch >= session.config.train.epochs - LAST_EPOCHS
    wanted = [split for name, split in session.evals.items() if name != "id_test" or late]
    return {name: result for split in wanted for name, result in _judge(session, split).items()}


def _keep_best(session: Session, position: Position, results: dict[str, SplitResult], out: Path) -> None:
    if "id_val" in results and results["id_val"].accuracy > position.best_id_val:
        position.best_id_val = results["id_val"].accuracy
        save_checkpoint(out / BEST, session, position)


def _said(line: dict[str, Any], epochs: int) -> str:
    accuracies = [
        f"{name} {line[f'{name}_accuracy']:.1f}%"
        for name in ("train", "id_val", "id_test", "ood_test", "ood_query")
        if f"{name}_accuracy" in line
    ]
    return (
        f"epoch {line['epoch'] + 1}/{epochs}  loss {line['loss_total']:.3f}  {'  '.join(accuracies)}  "
        f"{line['images_per_s']:,.0f} images/s"
    )
