"""What a run leaves behind for people: metrics.jsonl, metrics.csv, curves.png; and where it ran."""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from cache.runtime.atomic_files import replacing
from cache.runtime.machine_limits import cores
from distill.record.drawing import drawing
from distill.record.peak_memory import peak_resident

# The headline is a mean over the last epochs: no test split chooses an epoch.
LAST_EPOCHS = 5
# How the names of metrics begin that take ID and OOD images, of the first head and of others.
BOTH_KINDS = ("all_", "all@", "id_ood_", "id_ood@")
PACKAGES = ("distill", "torch", "torchvision", "timm", "numpy")


def write_metrics(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Write one JSON line an epoch, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in history), encoding="utf-8")


def write_csv(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Write the same as a table, whole or not at all; what an epoch has not is empty."""
    names = list(dict.fromkeys(name for line in history for name in line))
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, names, restval="")
        table.writeheader()
        table.writerows(history)


def draw_curves(
    path: Path, history: Sequence[dict[str, Any]], *, curves: Sequence[tuple[str, str]], of: str, title: str
) -> None:
    """Draw loss parts, and ``curves`` (label, metric) ``of`` what they are, over the epochs.

    The metrics are in percent, or cosines.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator  # here, because it takes a second

    with drawing(path, (11, 4.2), columns=2) as (figure, (left, right)):
        epochs = [line["epoch"] for line in history]
        for name in (name for name in history[-1] if name.startswith("loss_")):
            left.plot(epochs, [line[name] for line in history], label=name.removeprefix("loss_"), marker=".")
        left.set(xlabel="epoch", ylabel="training loss (unweighted parts)", yscale="log")
        # No powers: setting a formula takes longer than all curves.
        left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        left.yaxis.set_major_formatter("{x:g}")
        left.yaxis.set_minor_locator(NullLocator())
        for label, name in curves:
            points = [(line["epoch"], line[name]) for line in history if name in line]
            if points:
                right.plot(*zip(*points, strict=True), label=label, marker=".")
        cosines = all(name.endswith("_cosine") for _, name in curves)
        scale = {"ylabel": of, "ylim": (-0.05, 1)} if cosines else {"ylabel": f"{of} (%)", "ylim": (0, 100)}
        right.set(xlabel="epoch", **scale)
        for axes in (left, right):
            axes.grid(alpha=0.3)
            if axes.lines:
                axes.legend(loc="upper left")  # the best place takes long to find
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.suptitle(title)


def last_mean(history: Sequence[dict[str, Any]], name: str) -> float | None:
    """Return the mean of a metric over the last epochs that have it; None where no epoch has."""
    values = [line[name] for line in history[-LAST_EPOCHS:] if name in line]
    return sum(values) / len(values) if values else None


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a number."""
    installed = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:  # run from its folder, without being installed
            installed[name] = "not installed"
    return installed


def hardware(device: torch.device) -> dict[str, Any]:
    """Return the processor, its cores, and the GPU in use."""
    machine: dict[str, Any] = {"cpu": _cpu_name(), "cores": cores(), "device": str(device)}
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
    return machine


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


def peak_memory(device: torch.device) -> dict[str, int]:
    """Return the most memory that this process has held, in bytes."""
    most = {"host": peak_resident()}
    if device.type == "cuda":
        most["device"] = torch.cuda.max_memory_allocated(device)
    return most
