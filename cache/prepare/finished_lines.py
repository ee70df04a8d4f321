"""What a long run has finished so far: JSON lines beside its output, from which a later run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.runtime.errors import UserError, unwritable


@dataclass(frozen=True, kw_only=True, slots=True)
class Partial:
    """A file that only grows, a row a line, and is removed when the output is there."""

    path: Path

    @classmethod
    def beside(cls, out: Path) -> Partial:
        """Return the partial of an output file: ``OUT.partial.jsonl``."""
        return cls(path=out.with_name(f"{out.name}.partial.jsonl"))

    def resume(self) -> list[dict[str, Any]]:
        """Return the rows of earlier runs and cut off a line that a kill left torn.

        Raises
        ------
        UserError
            If the file cannot be read or written.
        """
        try:
            written = self.path.read_bytes() if self.path.exists() else b""
            whole = written[: written.rfind(b"\n") + 1]
            if len(whole) < len(written):
                # Otherwise the next row would continue the torn line, and both would be lost.
                os.truncate(self.path, len(whole))
        except OSError as error:
            raise unwritable(self.path, error) from error
        rows = []
        for line in whole.split(b"\n"):
            with suppress(ValueError, RecursionError):
                rows.append(json.loads(line))
        return [row for row in rows if isinstance(row, dict)]

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows; they are on the disk when this returns."""
        # ASCII escapes: a key with a line separator in it, or not in UTF-8, still makes one line.
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self.path, error) from error

    def remove(self) -> None:
        """Remove the file, if it is there."""
        self.path.unlink(missing_ok=True)


def refuse_existing(out: Path) -> None:
    """Raise a UserError if ``out`` is there: it may have been written by hand, or have cost money."""
    if out.exists():
        raise UserError(f"{out} exists already", fix="give another --out, or move it away.")
