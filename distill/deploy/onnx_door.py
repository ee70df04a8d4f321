"""The way to onnxruntime, and what an ONNX file may be before it sees it: one file that names no other.

A tensor of a graph may lie in another file, which is then read whatever it is. Nothing that we export does
so. The onnx package is not there where models are only used; of protobuf's format little is needed.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cache.runtime.errors import UserError, missing_package
from distill.deploy.info import EXPORT_AGAIN

# The fields of each message that hold further ones, as onnx.proto numbers them.
PARTS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
# Of a tensor: where its numbers lie in another file, and that they do.
EXTERNAL_DATA, DATA_LOCATION = 13, 14
VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5
LONGEST_VARINT = 10


def check_can_export() -> None:
    """Raise a UserError if a package that an export takes is not installed; none is imported."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(name) is None:
            raise missing_package(ModuleNotFoundError(name=name), extra="export")


def import_onnxruntime() -> Any:
    """Return the module, which tells nobody that it is used.

    Left alone its builds for Linux and macOS keep an identifier on the disk and send what is done to their
    maker, from within the process. The variable is read once, when the module is first imported.

    UserError if it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_package(error, extra="export") from error
    return onnxruntime


def check_one_file(path: Path) -> None:
    """Raise a UserError if an ONNX file names another one, or is none."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            named = _names_a_file(data)
    except (OSError, ValueError, IndexError) as error:
        raise UserError(f"{path} is no ONNX file ({error})", fix=EXPORT_AGAIN) from error
    if named:
        raise UserError(
            f"{path} keeps tensors in another file, which is not read",
            fix="give a model that 'distill export' wrote: its graphs are whole.",
        )


def _names_a_file(data: mmap.mmap) -> bool:
    waiting = [("model", 0, len(data))]  # no recursion: graphs may be nested without end
    while waiting:
        message, start, end = waiting.pop()
        for number, begins, ends in _fields(data, start, end):
            inside = number == DATA_LOCATION and _varint(data, begins)[0] == 0
            if message == "tensor" and number in (EXTERNAL_DATA, DATA_LOCATION) and not inside:
                return True
            part = PARTS.get(message, {}).get(number)
            if part is not None:
                waiting.append((part, begins, ends))
    return False


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (number, first byte, end) of every field of a message; ValueError where it is none."""
    place = start
    while place < end:
        tag, place = _varint(data, place)
        size, wire_type = {EIGHT_BYTES: 8, FOUR_BYTES: 4}.get(tag & 7, 0), tag & 7
        if wire_type == BYTES:
            size, place = _varint(data, place)
        elif wire_type == VARINT:
            size = _varint(data, place)[1] - place
        elif not size:
            raise ValueError(f"a field of the wire type {wire_type} at byte {place:,}")
        if place + size > end:
            raise ValueError(f"it ends before byte {place + size:,}")
        yield tag >> 3, place, place + size
        place += size


def _varint(data: mmap.mmap, place: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, the lowest first, and the place behind it."""
    value = 0
    for i in range(LONGEST_VARINT):
        value |= (data[place + i] & 127) << 7 * i
        if data[place + i] < 128:
            return value, place + i + 1
    raise ValueError(f"a number without an end at byte {place:,}")
