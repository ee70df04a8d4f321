"""Everything a run needs, made once: data, student, optimiser; and its state, saved and brought back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from cache.runtime.devices import check_compiler
from cache.runtime.distributed import current_ranks
from cache.runtime.errors import CacheMismatch, UserError
from distill.checkpoint import check_made_from, read_checkpoint, weights_digest, write_checkpoint
from distill.config import RunConfig
from distill.config_fields import require
from distill.data.folders import Data
from distill.data.pool import Pool
from distill.data.replayed_views import Replayed
from distill.data.stream import EvalSplit, Stream, decoder_of
from distill.data.streams import open_stream
from distill.data.tar_epoch import TarEpoch
from distill.data.tar_stream import StreamedData, TarStream
from distill.data.training_data import TeacherRows, TrainingData
from distill.data_identity import DataIdentity
from distill.judge.judged_classes import with_texts
from distill.judge.model import Model, fingerprint, learner_of, load_weights, open_model, weights_of
from distill.judge.space_of_split import open_teacher_rows
from distill.settings import to_toml
from distill.student.build import Origin, made_of
from distill.student.heads import set_from_rows
from distill.train.averages import Averages
from distill.train.distributed import share_batch_norms
from distill.train.optim import build_optimizer
from distill.train.resumed_settings import check_settings, precision_name


@dataclass(frozen=True, kw_only=True)
class Session:
    """The parts of one run: what is learnt from, who learns, what is judged, and what a step moves with.

    ``identity`` names the data, ``start`` the weights that a few-shot run begins with ('' else), ``decoder``
    what reads photos.
    """

    data: TrainingData | StreamedData
    model: Model
    splits: dict[str, EvalSplit]
    optimizer: Optimizer
    averages: Averages
    scaler: torch.amp.GradScaler
    identity: DataIdentity
    start: str
    decoder: str
    replayed: Replayed

    @property
    def config(self) -> RunConfig:
        """Everything that can change the run's result."""
        return self.model.config

    @property
    def pool(self) -> Pool | None:
        """The images without a label that the run learns from; None where there are none."""
        return self.data.pool_of(self.config.train.batch_size)

    def batches_of(self, epoch: int) -> Sequence[NDArray[np.int64]] | TarEpoch:
        """Return the image indices of an epoch's batches, or the steps of a stream."""
        config = self.config
        return self.data.epoch(
            epoch,
            batch_size=config.train.batch_size,
            repeats=config.data.repeat_epochs,
            seed=config.stream_seed,
        )


@dataclass(kw_only=True)
class Position:
    """Where a run stands: the next epoch and step, the epoch's sums so far, and every epoch's metrics.

    ``gradients`` are what was added up since the optimiser's last step, a parameter each (None: it has none),
    where it takes one every few batches.
    ``closed_form`` is what there is to say of the head by ridge, where the run began with it, ``chosen_eval``
    of the size and crop that were chosen for the trained student.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, Any] = field(default_factory=dict)
    gradients: list[Tensor | None] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    best_id_val: float = -1.0
    closed_form: dict[str, Any] = field(default_factory=dict)
    chosen_eval: dict[str, Any] = field(default_factory=dict)


def open_session(config: RunConfig, *, cache_dir: Path, data_dir: Data) -> Session:
    """Make the parts of a run; UserError if the cache, the data and the config do not fit each other."""
    return session_of(config, open_stream(config, cache_dir=cache_dir, data_dir=data_dir))


def origin_of(config: RunConfig, *, code: Path | None, begun: Path | None = None) -> Origin:
    """Return what a run's student is built from: as in the checkpoint that it goes on with, if it does.

    ``code`` is the file of a student of one's own, ``begun`` a checkpoint that may be there. UserError if
    the code is missing, or not what it was.
    """
    path = begun if begun is not None and begun.is_file() else None
    if path is None and config.fewshot.start:
        path = Path(config.fewshot.start)
    state = read_checkpoint(path) if path is not None else None
    return Origin.of(config.student.arch, code, state, where=str(path))


def session_of(config: RunConfig, stream: Stream | TarStream, origin: Origin | None = None) -> Session:
    """Make the parts of a run that takes a stream of images; ``origin`` is :func:`origin_of` it."""
    device = stream.device
    model = open_model(
        config,
        stream.cache,
        stream.folder,
        device,
        class_names=stream.class_names,
        starting=True,
        origin=origin or origin_of(config, code=None),
    )
    open_teacher_rows(model.heads, stream.splits.values())
    with_texts(model, stream.splits.values())
    data = stream.data_of(config, [head.name for head in model.heads])
    if any(h.centre is not None or h.bank is not None or h.scales is not None for h in model.heads):
        set_from_rows(model.heads, config, model.class_names, _rows_of(data, model), device)
    start = start_from(Path(config.fewshot.start), model) if config.fewshot.start else ""
    prepare(model.student, config, device)
    learner = learner_of(model)
    return Session(
        data=data,
        model=model,
        splits=stream.splits,
        optimizer=build_optimizer(model.student, config.optim, *([learner] if learner else [])),
        averages=Averages(model, config.optim),
        scaler=torch.amp.GradScaler(device.type, enabled=model.amp_dtype is torch.float16),
        identity=replace(stream.identities.of(config), views=stream.replayed.words),
        start=start,
        decoder=decoder_of(stream.augment),
        replayed=stream.replayed,
    )


def _rows_of(data: TrainingData | StreamedData, model: Model) -> Sequence[TeacherRows]:
    """Return every teacher's rows of the images that are learnt from; of a stream all of train."""
    if isinstance(data, TrainingData):
        return data.teachers
    splits = [head.cache.split("train") for head in model.heads]
    return [TeacherRows(embeddings=own.embeddings, row_of=np.arange(len(own))) for own in splits]


def prepare(student: nn.Module, config: RunConfig, device: torch.device) -> None:
    """Make a student ready to be trained as the config says, and by several processes.

    UserError if a batch has fewer images than there are processes, or there is nothing to compile with.
    """
    if config.train.compile != "off":
        check_compiler(device)
    world = current_ranks().world
    require(
        config.train.batch_size >= world,
        f"train.batch_size is {config.train.batch_size}, but {world} processes share a batch",
        "give a larger batch, or torchrun fewer processes.",
    )
    share_batch_norms(student, device)
    if config.train.compile != "off":
        student.compile(mode=config.train.compile)


def start_from(path: Path, model: Model) -> str:
    """Put a checkpoint's weights into a student and its prompt learner; return what names them.

    UserError if it is of another cache or another student.
    """
    state = read_checkpoint(path, device=model.device)
    if state["fingerprint"] != fingerprint(model):
        raise CacheMismatch(
            f"{path} was trained with the cache {state['fingerprint']}, this one is {fingerprint(model)}",
            fix="give the run's own cache.",
        )
    try:
        load_weights(model, state)
    except RuntimeError as error:
        raise UserError(
            f"{path} is not of this student ({str(error).splitlines()[0]})",
            fix="keep the run's own student and prompts.",
        ) from error
    return weights_digest(state)


def save_checkpoint(path: Path, session: Session, position: Position) -> None:
    """Write a run's state, with which a resumed run equals an uninterrupted one."""
    model = session.model
    state = {
        **weights_of(model),
        "optimizer": session.optimizer.state_dict(),
        "averages": session.averages.state(),
        "scaler": session.scaler.state_dict(),
        "random": {"cpu": torch.get_rng_state()},
        "config": to_toml(session.config),
        "fingerprint": fingerprint(model),
        "data": session.identity.to_json(),
        "pool": session.pool.to_json() if session.pool is not None else {},
        "stream": _place_in_stream(session, position),
        "start": session.start,
        "decoder": session.decoder,
        "precision": precision_name(model.amp_dtype),
        **made_of(model.student).to_json(),
        "embed_dim": model.cache.embed_dim,
        "cache_dir": str(model.cache.path.resolve()),
        "sources": list(model.folder.given),
        "class_names": list(model.class_names),
        "all_classes": list(model.folder.class_names),
        "position": dict(vars(position)),
    }
    write_checkpoint(path, state)


def resume(path: Path, session: Session) -> Position:
    """Put a session where its checkpoint left it, and return that place.

    CacheMismatch if the checkpoint is of another config, cache, or data.
    """
    state = read_checkpoint(path, device=session.model.device)
    check_settings(state, session.config, session.model.amp_dtype, where=path)
    changed = []
    if state["fingerprint"] != fingerprint(session.model):
        changed.append(f"cache: {state['fingerprint']} -> {fingerprint(session.model)}")
    if state["decoder"] != session.decoder:
        changed.append(f"data.decoder: {state['decoder']} -> {session.decoder}")
    before, now = state["data"]["views"], session.replayed.words
    if before != now:
        changed.append(f"views: {before or 'none'} -> {now or 'none'}")
    if changed:
        raise CacheMismatch(
            f"{path} was trained with other rows, views or another decoder ({'; '.join(changed)})",
            fix="resume with the same, or choose another --out.",
        )
    check_made_from(state, session.identity, session.start, where=path)
    position = Position(**state["position"])
    _check_stream(state["stream"], _place_in_stream(session, position), position, where=path)
    load_weights(session.model, state)
    session.optimizer.load_state_dict(state["optimizer"])
    session.averages.load(state["averages"])
    session.scaler.load_state_dict(state["scaler"])
    torch.set_rng_state(state["random"]["cpu"].cpu())
    return position


def _place_in_stream(session: Session, position: Position) -> dict[str, Any]:
    """Return which tars of the epoch are done, and by whom they are read; of what is no stream nothing."""
    if not isinstance(session.data, StreamedData):
        return {}
    steps = session.batches_of(position.epoch)
    assert isinstance(steps, TarEpoch)
    return session.data.place(steps, position.step)


def _check_stream(then: dict[str, Any], now: dict[str, Any], position: Position, *, where: Path) -> None:
    """Make sure that the images that are left of an epoch are those that were left; CacheMismatch else."""
    if bool(then) != bool(now):
        was = "streamed from tars" if then else "read from a data folder"
        raise CacheMismatch(
            f"{where} is of images that were {was}",
            fix="leave --data out, as then." if then else "give --data, as then.",
        )
    for name, what in (("ranks", "processes"), ("tars", "tars")):
        if position.step and then.get(name) != now.get(name):
            raise CacheMismatch(
                f"{where} stopped within an epoch, of which other {what} would not see the images that are "
                f"left ({name}: {then[name]} -> {now[name]})",
                fix="resume with as many processes and the cache as it was, or begin anew in another --out.",
            )
