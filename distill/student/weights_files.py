"""Weights in a file, wherever it comes from: found in it by what fits the student. Nothing in it is run."""

from __future__ import annotations

import argparse
import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cache.runtime.errors import UserError, reason_of
from cache.runtime.system_errors import read_error
from cache.store.checksums import matches_appended_checksum
from distill.config import SCRATCH
from distill.data.normalisation import Normalisation

# Where several tables fit alike the averaged weights are taken, as timm does.
_AVERAGED = ("state_dict_ema", "model_ema", "ema")
_DEPTH = 3
OTHER_START = f"give other weights with --start FILE, or --start {SCRATCH}."

State = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """What a file of weights holds: tables of tensors, and a student's own normalisation where it says it."""

    path: Path
    tables: tuple[State, ...]
    normalisation: Normalisation | None = None

    @classmethod
    def read(cls, path: Path) -> WeightsFile:
        """Read ``.pt``, ``.pth``, ``.safetensors``, a run's checkpoint, or exported weights.

        UserError if it is missing or holds no tensors.
        """
        if path.suffix == ".safetensors":
            return cls(
                path=path, tables=(read_state_dict(path),), normalisation=_normalisation_in_metadata(path)
            )
        value = _loaded(path)
        tables = tuple(_tables_in(value))
        if not tables:
            raise UserError(f"{path} holds no state dict", fix=f"save model.state_dict(), or {OTHER_START}")
        own = value.get("input") if "schema_version" in value else None
        normalisation = Normalisation.from_json(own, where=str(path)) if isinstance(own, Mapping) else None
        return cls(path=path, tables=tables, normalisation=normalisation)

    def fitted(
        self, student: nn.Module, head: set[str], convert: Callable[[State], State]
    ) -> tuple[State, int]:
        """Return what fits a student, in its own names, and how many tensors are of other parts.

        The table and the prefix are those that most of the student's tensors are found by; ``head`` are the
        keys of the last layer, which may have another size; ``convert`` makes today's names of old ones.
        """
        own = student.state_dict()
        best: tuple[int, State, int] = (-1, {}, 0)
        for table in self.tables:
            prefix = _prefix(table, own)
            state = {key[len(prefix) :]: value for key, value in table.items() if key.startswith(prefix)}
            kept = convert(state)
            count = sum(key in own and (key in head or own[key].shape == kept[key].shape) for key in kept)
            if count > best[0]:
                best = (count, kept, len(table) - len(state))
        return best[1], best[2]


def read_state_dict(path: Path) -> State:
    """Return the tensors of a file that holds one table of them, as exported weights are.

    UserError if it is missing or holds something else.
    """
    if path.suffix != ".safetensors":
        tables = list(_tables_in(_loaded(path)))
        if not tables:
            raise UserError(f"{path} holds no state dict", fix="save model.state_dict().")
        return max(tables, key=len)
    from safetensors.torch import load_file

    with _reading(path):
        return load_file(path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what reading a damaged or a missing file raises into a UserError."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"the weights file {path} {what}", fix=OTHER_START)
    try:
        yield
    except Exception as error:  # zip, pickle and safetensors errors, one meaning
        if refused := read_error(path, error):
            raise refused from error
        raise UserError(
            f"{path} cannot be read as weights ({reason_of(error)})",
            fix=f"save a plain state dict, or {OTHER_START}",
        ) from error


def _loaded(path: Path) -> Any:
    with _reading(path):
        if matches_appended_checksum(path) is False:
            raise ValueError("it differs from its checksum")
        # Training scripts keep their arguments beside the weights; a namespace runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)


def _normalisation_in_metadata(path: Path) -> Normalisation | None:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as opened:
        told = (opened.metadata() or {}).get("input")
    try:
        value = json.loads(told) if told else None
    except ValueError:
        value = None
    return Normalisation.from_json(value, where=str(path)) if isinstance(value, dict) else None


def _tables_in(value: Any, depth: int = _DEPTH) -> Iterator[State]:
    """Yield every table of tensors in a value, averaged weights first."""
    if not isinstance(value, Mapping):
        return
    tensors = {key: one for key, one in value.items() if isinstance(key, str) and isinstance(one, Tensor)}
    if tensors:
        yield tensors
    names = sorted((name for name in value if isinstance(name, str)), key=lambda name: name not in _AVERAGED)
    for name in names if depth else ():
        yield from _tables_in(value[name], depth - 1)


def _prefix(table: State, own: Mapping[str, Tensor]) -> str:
    """Return what stands before a student's names in a table: by which most of its tensors are found."""
    found: Counter[str] = Counter()
    for key, value in table.items():
        parts = key.split(".")
        for start in range(len(parts)):
            name = ".".join(parts[start:])
            if name in own and own[name].shape == value.shape:
                found[key.removesuffix(name)] += 1
    return max(found, key=lambda prefix: (found[prefix], -len(prefix)), default="")


def load_backbone(student: nn.Module, state: State, head: set[str]) -> list[str]:
    """Load a state dict into a student whose last layer may be missing; return in what it does not fit.

    Nothing is loaded where a shape differs.
    """
    own = student.state_dict()
    kept: OrderedDict[str, Tensor] = OrderedDict()
    wrong = []
    for key, value in state.items():
        if key not in own or value.shape == own[key].shape:
            kept[key] = value
        elif key not in head:
            wrong.append(f"{key} {tuple(value.shape)} for {tuple(own[key].shape)}")
    # Modules rename what older files call otherwise, and MNASNet does not load without its version.
    kept._metadata = {"": own._metadata[""]}  # type: ignore[attr-defined]
    differences = {"of another shape": wrong}
    if not wrong:
        # Not strict, because the last layer may be missing; everything else is looked at below.
        left = student.load_state_dict(kept, strict=False)
        missing = [key for key in left.missing_keys if key not in head]
        differences = {"missing": missing, "unknown": left.unexpected_keys}
    return [f"{what}: {', '.join(ks[:3])} ({len(ks)})" for what, ks in differences.items() if ks]
