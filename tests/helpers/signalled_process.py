"""``distill WORDS``, which sends itself SIGNAL when it opens its COUNTth file of that ENDING, or gives one its name.

So no clock and no load decides where it is stopped. Under torchrun it is the second process that does.

    signalled_process.py SIGNAL ENDING COUNT WORDS...
"""

from __future__ import annotations

import os
import signal
import sys

import cache.runtime.torchvision_compat  # noqa: F401  # isort: skip

import cli
from cache.runtime.torchrun import rank, world_size


def main(name: str, ending: str, count: int, words: list[str]) -> None:
    """See the module."""
    left = count

    def seen(event, arguments):
        nonlocal left
        if event not in ("open", "os.rename") or not str(arguments[event == "os.rename"]).endswith(ending):
            return
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.Signals[name])

    if rank() == 1 or world_size() == 1:
        sys.addaudithook(seen)
    sys.argv = ["distill", *words]
    cli.main(words, prog_name="distill")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:])
