"""What a call leaves behind in the process of who calls: nothing."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from cache.runtime.numbers_alone import for_this_process


@contextmanager
def without_a_trace() -> Iterator[None]:
    """Leave torch's random numbers and this process's environment as they were; a decorator too.

    Training seeds torch's generators at every step. Of files numbers alone are loaded. The environment tells
    some libraries to be quiet: MLflow, for one, is the caller's own again.
    """
    _quiet_bars()
    environment = dict(os.environ)
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        for_this_process()
        try:
            yield
        finally:
            for name in os.environ.keys() - environment.keys():
                del os.environ[name]
            os.environ.update(environment)


def _quiet_bars() -> None:
    """Import the bars of libraries, of which a notebook without ipywidgets is warned once."""
    with warnings.catch_warnings(), suppress(ImportError):
        warnings.simplefilter("ignore")
        import tqdm.auto  # noqa: F401
