"""The file that a run's state is in: written whole, read without executing anything in it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cache.runtime.atomic_files import replacing
from cache.runtime.errors import NEWER, UserError, reason_of
from cache.runtime.system_errors import read_fault
from cache.store.checksums import file_seal, seal_file
from distill.data_identity import DataIdentity, digest_of, identity_in, refuse_other_data

SCHEMA_VERSION = 2


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a run's state with the version of its form, whole or not at all."""
    with replacing(path) as temporary:
        torch.save({"schema_version": SCHEMA_VERSION, **state}, temporary)
        seal_file(temporary)


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
        check_sums(path)
        state = torch.load(path, map_location=device, weights_only=True)
        version = state["schema_version"]
    except Exception as error:  # zip, pickle and storage errors, one meaning
        if refused := read_fault(path, error):
            raise refused from error
        raise UserError(
            f"the checkpoint {path} is damaged ({reason_of(error)})",
            fix="restore it from a copy, or move it away and train the run again.",
        ) from error
    if version not in range(1, SCHEMA_VERSION + 1):
        raise UserError(
            f"{path} has schema version {version!r:.20}, this program reads up to {SCHEMA_VERSION}",
            fix=NEWER,
        )
    return state


def check_sums(path: Path) -> None:
    """Compare a file that torch wrote with its checksum, for torch itself compares none.

    Raises
    ------
    ValueError, OSError, zipfile.BadZipFile
        If they differ, or it is no such file.
    """
    sound = file_seal(path)
    if sound is None:  # the first schema, or weights from elsewhere: every part of the archive has its own
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
            if bad is not None:
                raise ValueError(f"its part {bad} differs from its checksum")
    elif not sound:
        raise ValueError("it differs from its checksum")


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
