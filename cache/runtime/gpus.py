"""What a CUDA device is: its name, its peak by the data sheet, its driver, and what goes with it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from cache.runtime.devices import has_bfloat16

# TFLOP/s of the matrix units without sparsity, in bfloat16 with sums in float32 (float16 on those that have
# no bfloat16), by NVIDIA's data sheets. The first name that a card's own contains counts, as whole words.
DENSE_PEAKS = {
    "B200": 2250,
    "H200 NVL": 835,
    "H200": 989,
    "GH200": 989,
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "H800": 989,
    "H20": 148,
    "A100": 312,
    "A800": 312,
    "A40": 149.7,
    "A30": 165,
    "A10G": 70,
    "A10": 125,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "RTX A6000": 154.8,
    "RTX 5090": 209.5,
    "RTX 4090": 165.2,
    "RTX 3090": 71,
    "V100": 125,
    "T4": 65,
}
DRIVER_FILE = Path("/proc/driver/nvidia/version")


def dense_peak(card: str) -> float | None:
    """Return the TFLOP/s that a card of that name can do at most (:data:`DENSE_PEAKS`); None: not known."""
    # Laptops have less than the card whose name they bear.
    if "laptop" in card.lower():
        return None
    words = re.sub(r"[-_]", " ", card)  # as in A100-SXM4-80GB
    return next((peak for name, peak in DENSE_PEAKS.items() if re.search(rf"\b{name}\b", words)), None)


def driver() -> str:
    """Return the version of NVIDIA's driver, as nvidia-smi or the kernel says it; '' where there is none."""
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            answer = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            answer = ""
        if answer.strip():
            return answer.split()[0]
    try:
        found = re.search(r"\b\d+\.\d+(\.\d+)?\b", DRIVER_FILE.read_text())
    except OSError:
        return ""
    return found[0] if found else ""


def driver_cuda() -> str:
    """Return the newest CUDA that the driver runs, '12.8'; '' where there is none."""
    ask: Any = getattr(torch._C, "_cuda_getDriverVersion", None)  # not in a torch for the CPU
    number = ask() if ask is not None else 0
    return f"{number // 1000}.{number % 1000 // 10}" if number else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A CUDA device: ``capability`` as (9, 0); memory in bytes; ``peak`` in TFLOP/s, None: not known."""

    name: str
    capability: tuple[int, int]
    bfloat16: bool
    free: int
    total: int
    peak: float | None


def cards() -> list[Card]:
    """Return the CUDA devices that this torch sees."""
    found = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(number)
        found.append(
            Card(
                name=(name := torch.cuda.get_device_name(number)),
                capability=torch.cuda.get_device_capability(number),
                bfloat16=has_bfloat16(torch.device("cuda", number)),
                free=free,
                total=total,
                peak=dense_peak(name),
            )
        )
    return found


def triton() -> str:
    """Return the version of Triton, which torch.compile writes for a GPU; '' where it is not installed."""
    if importlib.util.find_spec("triton") is None:
        return ""
    for name in ("triton", "pytorch-triton", "triton-windows"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "of unknown version"


def nccl() -> str:
    """Return the version of NCCL, by which processes with a GPU each are joined; '' where it is not there."""
    if not torch.distributed.is_available() or not torch.distributed.is_nccl_available():
        return ""
    return ".".join(map(str, torch.cuda.nccl.version()))
