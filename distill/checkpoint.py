"""The file that a run's state is in: written whole, read without executing anything in it.

Torch is imported when one is read or written: that there is none is said without waiting for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.runtime.atomic_files import replacing
from cache.runtime.errors import NO_CHECKSUM, UserError, other_schema, reason_of
from cache.runtime.folder_kinds import is_instead
from cache.runtime.system_errors import read_error
from cache.store.checksums import append_checksum, matches_appended_checksum
from distill.data_identity import SIDES, DataIdentity, digest_of, identity_in, refuse_other_data

if TYPE_CHECKING:
    import torch

SCHEMA_VERSION = 4
NOT_TRAINED = "give the folder of a run that has trained."


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a run's state with the version of its form, whole or not at all."""
    import torch

    with replacing(path) as temporary:
        torch.save({"schema_version": SCHEMA_VERSION, **state}, temporary)
        append_checksum(temporary)


def read_checkpoint(path: Path, *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint without executing anything in it.

    UserError if there is none, it is damaged, or another version wrote it.
    """
    check_there(path)
    state = _loaded(path, device)
    version = state.get("schema_version") if isinstance(state, dict) else None
    if version != SCHEMA_VERSION:
        raise other_schema(path, version, SCHEMA_VERSION)
    return state


def check_there(path: Path) -> None:
    """Make sure that there is a checkpoint; UserError with those that the run has, where it has others."""
    if not path.is_file():
        others = sorted(other.stem for other in path.parent.glob("*.pt"))
        fix = f"that run has {', '.join(others)}: choose with --checkpoint." if others else NOT_TRAINED
        where = f"{path.parent}{is_instead(path.parent)}"
        raise UserError(f"there is no checkpoint {path.name} in {where}", fix=fix)


def _loaded(path: Path, device: torch.device | str) -> Any:
    import torch

    from cache.runtime.devices import widest_float

    try:
        # torch itself compares none.
        sound = matches_appended_checksum(path)
        if sound:
            there = torch.device(device)
            if widest_float(there) == torch.float64:
                return torch.load(path, map_location=there, weights_only=True)
            return _narrowed(torch.load(path, map_location="cpu", weights_only=True), there)
        problem = NO_CHECKSUM if sound is None else "it differs from its checksum"
    # Nothing of ours is called in there; of a file made on purpose torch's reader raises whatever there is.
    except Exception as error:
        if refused := read_error(path, error):
            raise refused from error
        problem = reason_of(error)
    raise UserError(
        f"the checkpoint {path} is damaged ({problem})",
        fix="restore it from a copy, or move it away and train the run again.",
    )


def _narrowed(value: Any, device: torch.device) -> Any:
    """Return what a checkpoint holds with its tensors on a device that has no float64: these in float32."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.to(device, torch.float32 if value.dtype == torch.float64 else value.dtype)
    if isinstance(value, dict):
        return {key: _narrowed(item, device) for key, item in value.items()}
    return [_narrowed(item, device) for item in value] if isinstance(value, list) else value


def weights_digest(state: Mapping[str, Any]) -> str:
    """Return what names the weights in a run's state, the student's and its prompt learner's."""
    return digest_of(
        [
            piece
            for part in ("prompts", "student")
            for name, value in sorted(state[part].items())
            for piece in (f"{part}.{name} {value.dtype} {list(value.shape)}".encode(), _bytes_of(value))
        ]
    )


def _bytes_of(tensor: torch.Tensor) -> bytes:
    import torch

    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def check_made_from(state: dict[str, Any], identity: DataIdentity, start: str, *, where: Path) -> None:
    """Make sure that a checkpoint was made from this data, and a few-shot one from these weights.

    CacheMismatch if it was not; the message says what differs.
    """
    then = identity_in(state, where)
    lines = identity.differences(then)
    lines += [
        f"{name}: {images.images:,} images {SIDES[name not in identity.learnt_from]} alone"
        for name, images in {**identity.learnt_from, **then.learnt_from}.items()
        if (name in identity.learnt_from) != (name in then.learnt_from)
    ]
    if state["start"] != start:
        lines.append("the run that it was finetuned from has other weights now")
    refuse_other_data(lines, where=where, fix="bring the data back, or choose another --out and begin anew.")
