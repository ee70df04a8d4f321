"""Files that carry a checksum of themselves, so that a reader notices a flipped bit."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

_JSON_END = re.compile(r'"sha256": "([0-9a-f]{64})"(\s*\}\s*)\Z')
_FILE_END = b"\ndistill sha256 "
_FILE_END_BYTES = len(_FILE_END) + 64 + 1


def with_checksum(value: dict[str, Any], *, indent: int | None = 2) -> str:
    """Return a table as JSON whose last key, ``sha256``, is the checksum of the text without it."""
    text = json.dumps({**value, "sha256": ""}, indent=indent, ensure_ascii=False)
    head, _, tail = text.rpartition('""')
    return f'{head}"{_sha256(text)}"{tail}'


def has_its_checksum(text: str) -> bool | None:
    """Say whether a JSON text is, byte for byte, what the checksum at its end says; None without one."""
    end = _JSON_END.search(text)
    if end is None:
        return None
    without = text[: end.start(1)] + text[end.end(1) :]
    return end[1] == _sha256(without.removesuffix("\n"))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def append_checksum(path: Path) -> None:
    """Append a file's checksum to it; who reads zip archives, as torch does, reads on as before."""
    with open(path, "r+b") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0, 2)
        file.write(_FILE_END + checksum.encode() + b"\n")


def matches_appended_checksum(path: Path) -> bool | None:
    """Say whether a file is what its appended checksum says; None where it has none."""
    with open(path, "rb") as file:
        left = file.seek(0, 2) - _FILE_END_BYTES
        if left < 0:
            return None
        file.seek(left)
        end = file.read()
        if not end.startswith(_FILE_END):
            return None
        file.seek(0)
        digest = hashlib.sha256()
        while left > 0:
            block = file.read(min(left, 2**20))
            digest.update(block)
            left -= len(block)
    return end[len(_FILE_END) :] == digest.hexdigest().encode() + b"\n"
