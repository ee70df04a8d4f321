"""Where to compute, and with how many processes."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import sys

import torch
from torch import Tensor

from cache.runtime.errors import UserError
from cache.runtime.machine_limits import cores
from cache.runtime.torchrun import local_rank, processes_here

# Names of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def choose_device(name: str) -> torch.device:
    """Return the device called ``name``; ``auto`` is CUDA where there is one, else Apple's GPU, else the CPU.

    Apple's (``mps``) is taken unasked because it would idle otherwise, and computes in float32 as the CPU
    beside it. Not by several processes: it is one, and gloo, which joins them there, carries no tensor of it.
    Under torchrun, where no GPU is named by its number, every process gets its own.

    Raises
    ------
    UserError
        If there is no such device.
    """
    if name == "auto":
        name = _best_device()
    if name.startswith("cuda:") and processes_here() > 1:
        raise UserError(
            f"the device {name} was asked for by {processes_here()} processes",
            fix="use cuda: each process gets a GPU of its own.",
        )
    if name == "cuda" and local_rank() is not None:
        name = f"cuda:{local_rank()}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"{name!r} is not a device", fix="use auto, cpu, cuda, cuda:N or mps.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"the device {name} was asked for, but this torch sees none", fix="use cpu or auto.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"the device {name} was asked for, but there are {torch.cuda.device_count()} GPUs here",
            fix="start at most one process a GPU.",
        )
    if device.type == "mps":
        _check_mps(name)
    elif device.type not in ("cpu", "cuda") and not _computes(device):
        raise UserError(f"the device {name} was asked for, but this torch has none", fix="use cpu or auto.")
    return device


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() and processes_here() == 1 else "cpu"


def _check_mps(name: str) -> None:
    """Raise a UserError unless this process can have Apple's GPU."""
    if processes_here() > 1:
        raise UserError(
            f"the device {name} was asked for by {processes_here()} processes, and Apple's GPU is one",
            fix="start one process, or use cpu.",
        )
    if not torch.backends.mps.is_available():
        built = "needs macOS on Apple silicon" if torch.backends.mps.is_built() else "is not in this torch"
        raise UserError(f"the device {name} was asked for, which {built}", fix="use cpu or auto.")


def widest_float(device: torch.device) -> torch.dtype:
    """Return what sums on a device are kept in: float64, or float32 on Apple's GPUs, which have no wider."""
    return torch.float32 if device.type == "mps" else torch.float64


def in_float64(tensor: Tensor) -> Tensor:
    """Return a tensor in float64, where it is, or on the CPU if its device has no float64."""
    return (tensor if widest_float(tensor.device) == torch.float64 else tensor.cpu()).double()


def _computes(device: torch.device) -> bool:
    """Say whether numbers can be put on a device, and come back: each library refuses in a way of its own."""
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError, AttributeError):
        return False
    return True


def check_compiler(device: torch.device) -> None:
    """Make sure that torch.compile can work: for the CPU it writes C++, for CUDA Triton.

    Raises
    ------
    UserError
        If the C++ compiler that torch would call is not there, or Triton is not installed.
    """
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise UserError(
            "torch.compile needs Triton on a GPU, and it is not installed",
            fix="pip install triton, or leave compiling out.",
        )
    if device.type != "cpu":
        return
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = os.environ.get("CXX", usual)
    if shutil.which(compiler) is None:
        raise UserError(
            f"torch.compile needs a C++ compiler on the CPU, and {compiler} is not there",
            fix="install it, name another in the environment variable CXX, or leave compiling out.",
        )


def has_bfloat16(device: torch.device) -> bool:
    """Say whether a CUDA device computes in bfloat16 itself.

    Those before Ampere (V100, T4) emulate it, many times slower than float16, and torch says they have it.
    """
    return bool(torch.version.hip) or torch.cuda.get_device_properties(device).major >= 8


def cpu_gains_from_bfloat16() -> bool:
    """Say whether this processor trains faster in bfloat16 than in float32: with AMX, or AMD's AVX-512.

    Measured: twice as fast with either; with Intel's AVX-512 alone, two thirds as fast.
    """
    if not hasattr(torch.cpu, "get_capabilities"):  # of an older torch
        return False
    has = torch.cpu.get_capabilities()
    intel = "intel" in str(has.get("cpu_name", "")).lower()
    return bool(has.get("amx_bf16")) or (bool(has.get("avx512_bf16")) and not intel)


def default_workers(device: torch.device) -> int:
    """Return how many processes decode: all cores beside a GPU, one beside a teacher on the CPU.

    The processes of one machine's torchrun share the cores.
    """
    return max(1, min(cores() // processes_here(), 16)) if device.type != "cpu" else 1


def keep_freed_memory(device: torch.device) -> None:
    """On the CPU, make glibc keep the memory that tensors free; elsewhere do nothing.

    As it is, glibc maps every large tensor anew and hands it back: a training step of a ResNet-18 then spends
    a tenth to a fifth of its time on page faults. The price is a higher peak of resident memory.
    """
    if device.type != "cpu" or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # another C library has none
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
