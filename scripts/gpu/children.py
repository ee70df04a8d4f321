"""A part in a process of its own: what it ends with, within its time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OK, FAILED, OVERRAN, SKIPPED = "ok", "failed", "overran", "skipped"


@dataclass(kw_only=True)
class Outcome:
    """How a part ended: its rows, those until then where it did not end well, and in words why."""

    name: str
    state: str = OK
    said: str = ""
    seconds: float = 0.0
    limit: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)


def run_part(name: str, command: Sequence[str], *, limit: float, folder: Path) -> Outcome:
    """Run a part's command, which writes its rows to ``folder/NAME.json``, for at most ``limit`` seconds."""
    if limit <= 0:
        return Outcome(name=name, state=SKIPPED, said=f"no time was left: --only {name}")
    log = folder / f"{name}.log"
    began = time.monotonic()
    with open(log, "wb") as output:
        child = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            status: int | None = child.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(child)
    outcome = Outcome(name=name, seconds=time.monotonic() - began, limit=limit, rows=_rows(folder, name))
    if status is None:
        outcome.state, outcome.said = OVERRAN, f"not done after {limit:.0f} s"
    elif status:
        outcome.state, outcome.said = FAILED, _last_line(log) or f"left with status {status}"
    elif skipped := [row["said"] for row in outcome.rows if row.get("skipped")]:
        outcome.state, outcome.said, outcome.rows = SKIPPED, skipped[0], []
    return outcome


def part_command(name: str, words: Sequence[str], folder: Path) -> list[str]:
    """Return the command of a part; what it writes lies in ``folder``."""
    script = Path(__file__).parent.parent / "gpu_check.py"
    return [sys.executable, str(script), "--part", name, "--out", str(folder), *words]


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a part's whole group: a part that overran has workers of its own."""
    # It has left by itself, and its children with it.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _rows(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / f"{name}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_bytes()) if path.is_file() else []
    return rows


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip()[:300] if lines else ""
