"""Train one student from a cache, of photos or of episodes: what ``distill train`` calls."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cache import EmbeddingCache
from cache.runtime.devices import choose_device
from cache.runtime.distributed import in_every_process, ranks_of_torchrun
from cache.runtime.errors import UserError
from cache.runtime.progress import Progress, Silent
from cache.sources.decoders import AUTO, in_its_place
from distill.checkpoint import read_checkpoint
from distill.config import SCRATCH, RunConfig
from distill.data.folders import Data, check_there
from distill.data.streams import open_stream
from distill.data.teacher_texts import not_judged_note, settled, without_texts_note
from distill.data.training_data import TrainingData
from distill.data_identity import identity_in
from distill.precision import slow_bfloat16
from distill.record.boards import TENSORBOARD_ALONE, Boards
from distill.record.run_files import LAST, check_out
from distill.settings import with_part
from distill.student.build import made_of
from distill.student.first_weights import FirstWeights
from distill.train.loop import fit_together
from distill.train.optim import check_optimizer
from distill.train.run import StudentRun
from distill.train.session import Session, origin_of, session_of


def train(
    config: RunConfig,
    *,
    cache_dir: Path,
    data_dir: Data,
    out: Path,
    resume_run: bool = False,
    check: bool = False,
    progress: Progress | None = None,
    command: Sequence[str] = (),
    boards: Boards = TENSORBOARD_ALONE,
    decoder: str = "",
    code: Path | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Train one student and return its summary, which is also ``out/summary.json``.

    Parameters
    ----------
    out
        A new folder; with ``resume_run`` one that holds this very run, which then goes on to the same
        numbers as one that was never interrupted.
    check
        Compare the cache's files with their checksums.
    command
        What the summary says that made it, this process's unless given.
    boards
        What is written to beside TensorBoard.
    decoder
        What decodes photos where the config leaves that to the machine; '' is the machine's.
    code
        The Python file of a student of one's own, ``student.arch=FILE.py:NAME``: nothing else names code.
    notes
        What is said once nothing is wrong with what was given.

    Raises
    ------
    UserError
        If cache, data and config do not fit, ``out`` holds something else, a loss is not finite, or a board
        cannot begin.
    Stopped
        After SIGTERM or Ctrl-C, with the state saved.
    """
    progress = progress or Silent()
    check_out(out, resume_run=resume_run)
    check_optimizer(config.optim)
    choose_device(config.train.device)  # this and the data before weights are looked for
    cache = EmbeddingCache.open(cache_dir)
    check_there(cache, data_dir)
    config = settled(config, cache)
    boards.check()
    origin = origin_of(config, code=code, begun=out / LAST if resume_run else None)
    weights, origin = FirstWeights().find(config.student, origin)  # before any work is done
    if weights and config.student.start != SCRATCH:
        notes = [*notes, f"the student starts from {weights}"]
    with ranks_of_torchrun() as ranks:
        begun = as_begun(config, [out] if resume_run else [], decoder)
        stream = open_stream(begun, cache_dir=cache_dir, data_dir=data_dir, check=check)
        session = session_of(config, stream, origin)
        del origin  # published weights are not kept beside the student's
        for line in notes:
            progress.note(line)
        note_surprises(session, progress)
        stream.identities.note_gone(progress, config)
        ranks.wait()  # until every process has looked at ``out``
        run = in_every_process(
            lambda: StudentRun(
                session, out, resume_run=resume_run, boards=boards, command=command or sys.argv
            )
        )
        (end,) = fit_together([run], progress=progress)
    if isinstance(end, UserError):
        raise end
    return end


def as_begun(config: RunConfig, outs: Sequence[Path], decoder: str = "") -> RunConfig:
    """Return the config with the decoder and views that runs in these folders were begun with.

    ``decoder`` is of a run that is new. What the config names stays.
    """
    views = ""
    for path in (out / LAST for out in outs):
        with suppress(UserError):  # which that run says itself
            if path.is_file():
                state = read_checkpoint(path)
                decoder = decoder or state["decoder"]
                views = views or ("on" if identity_in(state, path).views else "off")
    begun = {"decoder": (AUTO, decoder), "replay_views": ("auto", views)}
    own = {name: was for name, (auto, was) in begun.items() if was and getattr(config.data, name) == auto}
    return with_part(config, "data", **own) if own else config


def _unused(session: Session) -> str:
    """Return one line about images without a label that are not learnt from; '' where there are none."""
    if not session.data.unused:
        return ""
    why = "data.pool_share is 0" if not session.config.data.pool_share else "no loss that is on takes them"
    return f"{session.data.unused:,} images have no label and are left out: {why}"


def note_surprises(session: Session, progress: Progress) -> None:
    """Note what a user may not expect of a cache: images without rows, pixels of another size."""
    model, data = session.model, session.data
    for note in model.folder.notes:
        progress.note(note)
    left_out = data.left_out
    if left_out:
        progress.note(f"{left_out:,} training {model.unit} have no teacher row and are left out")
    made, slow = made_of(model.student), slow_bfloat16(session.config.train.precision, model.device)
    # Of a file what is not in its name, which train says: that it held more.
    start = made.start if made.sha256 and made.start != session.config.student.start else ""
    texts = without_texts_note(session.config, model.cache)
    went_in = not_judged_note(model.cache, session.config.text, [head.name for head in model.heads])
    for line in filter(
        None,
        (texts, went_in, session.replayed.note, _unused(session), in_its_place(session.decoder), slow, start),
    ):
        progress.note(line)
    kept = model.cache.column_settings("pixels")
    if kept is None or session.config.data.pixels != "auto":
        return
    sides = {model.augment.eval_decode.side} if session.splits else set()
    if isinstance(data, TrainingData):
        sides.add(model.augment.decode.side)
    for side in sorted(sides - {kept["side"]}):
        progress.note(
            f"the cache keeps pixels of {kept['side']} px, this student takes {side}: files are decoded"
        )
