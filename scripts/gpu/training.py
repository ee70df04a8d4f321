"""Training steps beside plain ones, what options cost, and how far two runs are apart."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks import step_options, train_step
from benchmarks.steps import STEP_OPTIONS, open_resident, own_step
from benchmarks.turns import Row
from gpu.work import MOST_STEP, Work, arguments, peak_gb

STUDENTS = ("resnet18", "vit_b_32")
STEPS = 5
LEAST = {"image_size": 32, "classes": 2, "embed_dim": 8, "steps": 1, "warm_up": 1, "rounds": 1}


def step(work: Work) -> None:
    """Measure the whole step beside a plain one."""
    _steps(work, "off")


def step_compiled(work: Work) -> None:
    """Measure both through torch.compile, on a GPU as CUDA graphs."""
    _steps(work, "reduce-overhead")


def _steps(work: Work, compile: str) -> None:
    rows: list[Row] = []
    for arch in STUDENTS[:1] if work.small else STUDENTS:
        more = {"compile": "off" if work.small else compile}  # on a CPU that takes minutes
        row = train_step.measure(_arguments(work, train_step.OPTIONS, arch=arch, **more))[0][0]
        rows += _beside_plain(work, row, f"{arch}, batch {work.batch_size}")
        work.keep(rows)


def _beside_plain(work: Work, row: Row, about: str) -> list[Row]:
    return [
        {"what": f"plain step: {about}", "images/s": row["plain, images/s"], "time ratio": 1.0},
        {
            "what": f"whole step: {about}",
            "images/s": row["whole step, images/s"],
            "time ratio": row["time ratio"],
            "GPU memory": peak_gb(work.device),
            **work.goal(row["time ratio"], most=MOST_STEP, of=" of plain"),
        },
        {"what": f"without augmentation: {about}", "time ratio": row["ratio without augmentation"]},
    ]


def options(work: Work) -> None:
    """Measure what a pool and replayed views cost a step, on the device."""
    ways = [step_options.POOL, step_options.VIEWS]
    args = _arguments(work, step_options.OPTIONS, arch=STUDENTS[0], ways=ways)
    rows, _ = step_options.measure(args)
    work.keep(
        [
            {"what": row["step"], "images/s": row["images/s"], "time ratio": row["time by plain"]}
            for row in rows
        ]
    )


def _arguments(work: Work, options: Mapping[str, Any], **given: Any) -> argparse.Namespace:
    size = {"image_size": 224, "batch_size": work.batch_size, "steps": 20, "warm_up": 5}
    small = LEAST if work.small else {}
    return arguments(options, device=str(work.device), **size | small | given)


def determinism(work: Work) -> None:
    """Take the same steps twice from the same seed, and say how far apart the students are."""
    args = _arguments(work, STEP_OPTIONS, arch=STUDENTS[0], compile="off")
    first, second = (weights_after(work, args, 2 if work.small else STEPS) for _ in range(2))
    away = float((first - second).norm() / first.norm())
    said = "bit for bit equal" if torch.equal(first, second) else f"{away:.1e} of the weights' length apart"
    about = f"{args.arch}, batch {args.batch_size}, the same seed twice"
    work.keep([{"what": about, "said": f"after {2 if work.small else STEPS} steps {said}"}])


def weights_after(work: Work, args: argparse.Namespace, steps: int) -> Tensor:
    """Return a student's weights after some steps from its seed, float64 on the CPU."""
    folder = work.folder("run")
    session, batch = open_resident(args, folder)
    take = own_step(session, batch, folder / "run")
    for _ in range(steps):
        take()
    return flat(list(session.model.student.parameters()))


def flat(parameters: Sequence[Tensor]) -> Tensor:
    """Return all numbers of some tensors, float64 on the CPU."""
    return torch.cat([own.detach().cpu().double().flatten() for own in parameters])
