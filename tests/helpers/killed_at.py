"""An adaptation that is killed when it says something: ``killed_at.py TEXT OUT PHOTOS NAMES TEACHER``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, os.getcwd())

from cache.runtime.progress import LineProgress
from cache.sources.names import lines_of
from distill.adapt.options import AdaptOptions
from distill.adapt.run import adapt


class Killed(LineProgress):
    def note(self, message: str) -> None:
        super().note(message)
        end_at(message)

    def start(self, total: int | None, what: str | None = None, unit: str | None = None) -> None:
        super().start(total, what, unit)
        end_at(f"{what}:")


def end_at(said: str) -> None:
    if text in said:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    text, out, photos, names, teacher = sys.argv[1:]
    options = AdaptOptions(
        out=Path(out),
        sources=(photos,),
        names=lines_of(Path(names)),
        model=f"local-dir:{teacher}",
        arch="timm:test_resnet",
        start="scratch",
        device="cpu",
    )
    adapt(options, progress=Killed("adapting"))
