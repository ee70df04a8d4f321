"""What the machine is: its card, driver and versions."""

from __future__ import annotations

import os

import torch

from benchmarks.turns import Row
from cache.runtime.gpus import cards, driver, driver_cuda, nccl, triton
from cache.runtime.machine_limits import cores
from distill.record.run_log import hardware, versions
from gpu.work import Work


def facts(work: Work) -> None:
    """Say what computes here."""
    found, about = versions(), hardware(work.device)
    rows: list[Row] = []
    for number, card in enumerate(cards()):
        peak = f"{card.peak:g} TFLOP/s dense" if card.peak else "its peak is not known here"
        text = f"{card.name}, capability {card.capability[0]}.{card.capability[1]}, "
        text += f"{card.free / 1e9:.1f} of {card.total / 1e9:.1f} GB free, {peak}"
        rows.append({"what": f"GPU {number}", "said": text, "card": card.name})
    software = f"torch {torch.__version__}, Python {found['python']}"
    if work.on_gpu:
        software += f", CUDA {torch.version.cuda}, driver {driver() or 'unknown'} (CUDA {driver_cuda()})"
        software += f", Triton {triton() or 'missing'}, NCCL {nccl() or 'missing'}"
    rows.append({"what": "software", "said": software, "driver": driver(), "versions": found})
    rows.append({"what": "processor", "said": f"{about['cpu']}, {cores()} of {os.cpu_count()} cores"})
    work.keep(rows)
