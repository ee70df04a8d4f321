"""A run's state in one file: with it, a resumed run equals an uninterrupted one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cache.errors import CacheMismatch, UserError
from cache.files import replacing
from distill.settings import differences, from_toml, to_toml

if TYPE_CHECKING:
    from distill.session import TrainingSession

SCHEMA_VERSION = 1


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
        "embed_dim": session.cache.embed_dim,
        "cache_dir": str(session.cache.path.resolve()),
        "data_dir": str(session.folder.path.resolve()),
        "class_names": list(session.class_names),
        "all_classes": list(session.folder.class_names),
        "position": {name: getattr(position, name) for name in Position.__dataclass_fields__},
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)


def read_checkpoint(path: Path, *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint without executing anything in it.

    Raises
    ------
    UserError
        If there is none, it is damaged, or another version wrote it.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}", fix="give the folder of a run that has trained.")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # zip, pickle and storage errors, one meaning
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"the checkpoint {path} is damaged ({reason})", fix="train the run again.") from error
    if not isinstance(state, dict) or state.get("schema_version") != SCHEMA_VERSION:
        raise UserError(f"{path} is not a checkpoint of this version", fix="train the run again.")
    return state


def resume(path: Path, session: TrainingSession) -> Position:
    """Put a session where its checkpoint left it, and return that place.

    Raises
    ------
    CacheMismatch
        If the checkpoint is of another config or cache.
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
    session.student.load_state_dict(state["student"])
    if session.learner is not None:
        session.learner.load_state_dict(state["prompts"])
    session.optimizer.load_state_dict(state["optimizer"])
    session.scaler.load_state_dict(state["scaler"])
    torch.set_rng_state(state["random"]["cpu"].cpu())
    return Position(**state["position"])
