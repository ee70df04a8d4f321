"""The devices that a test is for: the processor everywhere, a GPU where there is one."""

from __future__ import annotations

import pytest
import torch

GPU = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
)
DEVICES = ["cpu", GPU]
# Of a test that takes seconds, and shows little where both devices are the processor.
MOSTLY_GPU = [pytest.param("cpu", marks=pytest.mark.long), GPU]
