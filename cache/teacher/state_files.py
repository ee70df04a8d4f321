"""A file of weights of any library -> tensors by name; nothing else of it is read, and nothing run."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cache.runtime.atomic_files import sha256_of
from cache.runtime.errors import CacheMismatch, UserError, reason_of
from cache.runtime.system_errors import read_error

# What a training script keeps the weights under, the first that is there.
INSIDE = ("state_dict_ema", "model_ema", "state_dict", "model")


def sha256_of_weights(file: Path, *, begins: str = "") -> str:
    """Return the SHA-256 of weights, having compared it with what is known of it.

    The hub keeps a file under its checksum; of others ``begins`` are the first digits, where they are known.

    Raises
    ------
    UserError
        If it differs.
    """
    sha256, blob = sha256_of(file), file.resolve().name
    wanted = blob if re.fullmatch(r"[0-9a-f]{64}", blob) else begins
    if not sha256.startswith(wanted):
        raise UserError(
            f"the weights {file} differ from their checksum ({sha256[:16]}..., expected {wanted[:16]})",
            fix="remove the file and fetch it again.",
        )
    return sha256


def sha256_without_code(file: Path) -> str:
    """Return the SHA-256 of a file of weights as :func:`sha256_of_weights`; UserError of a program."""
    sha256 = sha256_of_weights(file)
    if is_torchscript(file):
        refuse_torchscript(file, sha256)
    return sha256


@contextmanager
def fitting(weights: Path, model: str) -> Iterator[None]:
    """Say of what goes wrong while a file of weights is put into a network of a model that they do not fit.

    Broken files and other models surface as KeyError, RuntimeError, UnpicklingError and others.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if refused := read_error(weights, error):
            raise refused from error
        raise UserError(
            f"the weights {weights} do not fit {model} ({reason_of(error)})",
            fix="give the checkpoint of this very model, or the model that the checkpoint was made with.",
        ) from error


def check_asked(weights: Path | str, sha256: str, asked: str | None) -> None:
    """Raise a CacheMismatch where weights are not of the checksum that was asked for; None is any."""
    if asked is not None and sha256 != asked:
        raise CacheMismatch(
            f"the weights {weights} are not the ones that were asked for (their checksum differs)",
            fix="give the teacher that the embeddings are of.",
        )


def is_torchscript(path: Path) -> bool:
    """Say whether a file may be a TorchScript archive, which torch runs when it loads it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())


def refuse_torchscript(path: Path, sha256: str) -> None:
    """Raise a UserError of a TorchScript archive."""
    raise UserError(
        f"{path} looks like a TorchScript archive, which is a program, and is none of OpenAI's own "
        f"(sha256 {sha256[:16]}...)",
        fix="save the model's state dict as .safetensors where you trust it, and give that.",
    )


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, .safetensors or what torch has saved.

    Raises
    ------
    Exception
        Of many kinds, where it is broken, holds no tensors by name, or may hold code.
    """
    state: Any
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    return state_in(state)


def state_in(value: Any) -> dict[str, Tensor]:
    """Return the state dict that something read is or holds; ValueError where there is none."""
    if isinstance(value, dict):
        value = next((value[name] for name in INSIDE if isinstance(value.get(name), dict)), value)
    if not isinstance(value, dict) or not all(isinstance(one, Tensor) for one in value.values()):
        raise ValueError("it holds no state dict")
    # What DistributedDataParallel puts before every name.
    return {key.removeprefix("module."): one for key, one in value.items()}
