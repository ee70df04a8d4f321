"""``distill WORDS`` under torchrun, of which the second process ends by SIGKILL: at its COUNTth EVENT.

EVENT is ``os.rename``, which puts a finished file into place, or ``forward``, of a student in training. So no
clock and no load decides where it is lost.

    torchrun ... lost_process.py EVENT COUNT WORDS...
"""

from __future__ import annotations

import os
import signal
import sys

import cache.runtime.torchvision_compat  # noqa: F401  # isort: skip
from torch.nn.modules.module import register_module_forward_pre_hook

import cli
from cache.runtime.torchrun import rank


def main(event: str, count: int, words: list[str]) -> None:
    """See the module."""
    left = count

    def seen(happened, _):
        nonlocal left
        if happened == event:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def forward(module, inputs):
        if module.training:
            seen("forward", inputs)

    if rank() == 1:
        register_module_forward_pre_hook(forward)
        sys.addaudithook(seen)
    sys.argv = ["distill", *words]
    cli.main(words, prog_name="distill")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
