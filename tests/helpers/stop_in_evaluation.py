"""``distill WORDS`` that is stopped in an evaluation, by a real signal to every process of its group.

Run as a session of its own, or by torchrun. The signal comes from within the first evaluation once so many
epochs are judged, so that no clock decides where it comes; what is evaluated after it is written down.

    python stop_in_evaluation.py RUN EPOCHS_JUDGED LOG WORDS...
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import cache.runtime.torchvision_compat  # noqa: F401  # isort: skip
from torch.nn.modules.module import register_module_forward_pre_hook

import cli
from cache.runtime.torchrun import rank, world_size


def main(run: Path, judged: int, log: Path, words: list[str]) -> None:
    """See the module."""
    sent = False

    def before(module, inputs):
        nonlocal sent
        del inputs
        if module.training or not (run / "last.pt").exists():
            return
        if sent:
            log.write_text("went on after the signal")
        elif len((run / "metrics.jsonl").read_text().splitlines()) == judged:
            sent = True
            log.write_text("")
            if world_size() == 1:
                os.killpg(0, signal.SIGTERM)
            else:  # torchrun hands it on to its processes, each of which is a session of its own
                os.kill(int(os.environ.get("FORK_CLIENT_PARENT", os.getppid())), signal.SIGTERM)
                signal.pause()

    if rank() == 0:
        register_module_forward_pre_hook(before)
    sys.argv = ["distill", *words]
    cli.main(words, prog_name="distill")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
