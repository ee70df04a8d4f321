"""``distill`` in processes of its own: by torchrun, with one lost, or stopped in an evaluation."""

from __future__ import annotations

import subprocess

from conftest import ROOT, TORCHRUN


def torchrun(*words: object) -> list[str]:
    """The command that runs ``distill`` in two processes."""
    return [*TORCHRUN, "2", "-m", "cli", *map(str, words)]


def loses_second(event: str, count: int, words: list[str]) -> list[str]:
    """The command that runs ``distill`` in two processes, of which one is lost; see ``lost_process.py``."""
    return [
        *TORCHRUN,
        "2",
        str(ROOT / "tests" / "helpers" / "lost_process.py"),
        event,
        str(count),
        *map(str, words),
    ]


def stopped(start, out, judged, words):
    """Run words until the signal; return the child's status and what it said."""
    log = out.with_name(f"{out.name}.log")
    command = [
        *start,
        str(ROOT / "tests" / "helpers" / "stop_in_evaluation.py"),
        str(out),
        str(judged),
        str(log),
        *words,
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, start_new_session=True
    )
    assert log.exists(), done.stderr
    assert log.read_text() == "", done.stderr  # nothing was evaluated after it
    return done.returncode, done.stderr
