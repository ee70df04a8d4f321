"""A run's state in one file: with it, a resumed run equals an uninterrupted one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cache.runtime.atomic_files import replacing
from cache.runtime.errors import NEWER, CacheMismatch, UserError, reason_of
from cache.runtime.system_errors import read_error
from cache.store.checksums import append_checksum, matches_appended_checksum
from distill.data_identity import DataIdentity, digest_of, identity_in, refuse_other_data
from distill.settings import differences, from_toml, to_toml

if TYPE_CHECKING:
    from distill.train.session import TrainingSession

SCHEMA_VERSION = 2


@dataclass(kw_only=True)
class Position:
    """Where a run stands: the next epoch and step, the epoch's sums so far, and every epoch's metrics."""

    epoch: int = 0
    step: int = 0
    sums: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    best_id_val: float = -1.0


def save_checkpoint(path: Path, session: TrainingSession, position: Position) -> None:
    """Write the state, whole or not at all."""
    state = {
        "schema_version": SCHEMA_VERSION,
        "student": session.student.state_dict(),
        "prompts": session.learner.state_dict() if session.learner is not None else {},
        "optimizer": session.optimizer.state_dict(),
        "scaler": session.scaler.state_dict(),
        "random": {"cpu": torch.get_rng_state()},
        "config": to_toml(session.config),
        "fingerprint": session.fingerprint,
        "data": session.identity.to_json(),
        "start": session.start,
        "embed_dim": session.cache.embed_dim,
        "cache_dir": str(session.cache.path.resolve()),
        "data_dir": str(session.folder.path.resolve()),
        "class_names": list(session.class_names),
        "all_classes": list(session.folder.class_names),
        "position": {name: getattr(position, name) for name in Position.__dataclass_fields__},
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)
        append_checksum(temporary)


def read_checkpoint(path: Path, *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint without executing anything in it.

    Raises
    ------
    UserError
        If there is none, it is damaged, or another version wrote it.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}", fix="give the folder of a run that has trained.")
    state = _loaded(path, device)
    version = state.get("schema_version") if isinstance(state, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {version!r:.20}, this program reads {SCHEMA_VERSION}", fix=NEWER
        )
    return state


def _loaded(path: Path, device: torch.device | str) -> Any:
    problem = "it differs from its checksum, or has none"
    try:
        # torch itself compares none.
        if matches_appended_checksum(path):
            return torch.load(path, map_location=device, weights_only=True)
    # Nothing of ours is called in there; of a file made on purpose torch's reader raises whatever there is.
    except Exception as error:
        if refused := read_error(path, error):
            raise refused from error
        problem = reason_of(error)
    raise UserError(
        f"the checkpoint {path} is damaged ({problem})",
        fix="restore it from a copy, or move it away and train the run again.",
    )


def weights_digest(path: Path) -> str:
    """Return what names the weights of a checkpoint, the student's and its prompt learner's.

    Raises
    ------
    UserError
        As :func:`read_checkpoint`.
    """
    state = read_checkpoint(path)
    named = [(part, name, value) for part in ("student", "prompts") for name, value in state[part].items()]
    return digest_of(
        [
            piece
            for part, name, value in sorted(named, key=lambda item: item[:2])
            for piece in (f"{part}.{name} {value.dtype} {list(value.shape)}".encode(), _bytes_of(value))
        ]
    )


def _bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def check_made_from(state: dict[str, Any], identity: DataIdentity, start: str, *, where: Path) -> None:
    """Make sure that a checkpoint was made from this data, and a few-shot one from these weights.

    Raises
    ------
    CacheMismatch
        If it was not; the message says what differs.
    """
    lines = identity.differences(identity_in(state, where))
    if state["start"] != start:
        lines.append("the run that it was finetuned from has other weights now")
    refuse_other_data(lines, where=where, fix="bring the data back, or choose another --out and begin anew.")


def resume(path: Path, session: TrainingSession) -> Position:
    """Put a session where its checkpoint left it, and return that place.

    Raises
    ------
    CacheMismatch
        If the checkpoint is of another config, cache, or data.
    """
    state = read_checkpoint(path, device=session.device)
    config = from_toml(state["config"], where=str(path), kind=type(session.config))
    changed = differences(config, session.config)
    if state["fingerprint"] != session.fingerprint:
        changed.append(f"cache: {state['fingerprint']} -> {session.fingerprint}")
    if changed:
        raise CacheMismatch(
            f"{path} was trained with other settings ({'; '.join(changed)})",
            fix="resume with the same settings, or choose another --out.",
        )
    check_made_from(state, session.identity, session.start, where=path)
    session.student.load_state_dict(state["student"])
    if session.learner is not None:
        session.learner.load_state_dict(state["prompts"])
    session.optimizer.load_state_dict(state["optimizer"])
    session.scaler.load_state_dict(state["scaler"])
    torch.set_rng_state(state["random"]["cpu"].cpu())
    return Position(**state["position"])
