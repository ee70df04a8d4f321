"""How fast a shipped model is beside the torch student and the teacher: what ``distill bench-model`` calls.

Every candidate is measured in processes of its own, which take turns, so that what the machine does besides
falls on all of them. The module is also that process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import CacheMismatch, UserError, WrongOption
from cache.runtime.progress import Progress, Silent
from distill.deploy.info import OUTSIDE, WEIGHTS, ModelInfo
from distill.deploy.onnx_door import import_onnxruntime
from distill.record.peak_memory import peak_resident

TORCH, TEACHER = "torch student", "teacher"
MANY = 32
WARM_UP = 3

Embed = Callable[[NDArray[Any]], Any]


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What ``distill bench-model`` can be told: how often, and what is measured beside the model."""

    rounds: int
    repeats: int
    threads: int
    run: Path | None = None
    teacher_model: str | None = None
    pretrained: str | None = None
    code: Path | None = None

    def __post_init__(self) -> None:
        if self.pretrained is not None and self.teacher_model is None:
            raise WrongOption("--pretrained is of --teacher-model", fix="give that too, or leave it out.")


def bench_model(
    model: Path, options: BenchOptions, *, progress: Progress | None = None
) -> dict[str, dict[str, Any]]:
    """Return what every candidate took, by its name.

    ``p50_ms`` and ``p99_ms`` of one image, ``images_per_s`` in batches of 32, ``bytes`` on disk,
    ``peak_memory_bytes`` of the process; medians over the rounds. ``speedup`` is the median over rounds of
    how much shorter one image takes than the torch student, which is the exported weights or the checkpoint
    of ``run``. Nothing is loaded that the model names: it may be from elsewhere.

    UserError if the folder is no exported model, or a candidate fails.
    """
    progress = progress or Silent()
    rounds_of: dict[str, list[dict[str, Any]]] = {
        name: [] for name in candidates_of(model, ModelInfo.load(model), options)
    }
    progress.start(options.rounds * len(rounds_of))
    for _ in range(options.rounds):
        for name, rounds in rounds_of.items():
            rounds.append(_in_own_process(model, name, options))
            progress.advance(1)
    return {name: _summary(rounds, rounds_of.get(TORCH)) for name, rounds in rounds_of.items()}


def machine() -> dict[str, Any]:
    """Return the processor, its cores, and the versions of what is measured."""
    import torch

    from distill.record.run_log import hardware, versions

    return {
        **hardware(torch.device("cpu")),
        "versions": {**versions(), "onnxruntime": import_onnxruntime().__version__},
    }


def candidates_of(model: Path, info: ModelInfo, options: BenchOptions) -> list[str]:
    """Return what can be measured: the exported graphs, the student and teacher where they are at hand."""
    names = list(info.precisions)
    if _student_weights(model, info, options) is not None:
        names.append(TORCH)
    if options.teacher_model:
        names.append(TEACHER)
    if not names:
        raise UserError(
            f"{model} has no ONNX file, and no weights are at hand",
            fix="export with --formats onnx, or give its --run.",
        )
    return names


def _student_weights(model: Path, info: ModelInfo, options: BenchOptions) -> Path | None:
    """Return the file of the student's weights; UserError where ``run`` was given and has none.

    None where there is none, or its code is not at hand.
    """
    run = options.run
    if run is None:
        whole = "safetensors" in info.measured
        return model / WEIGHTS if whole and (not info.code or options.code) else None
    checkpoint = run / f"{info.checkpoint}.pt"
    if not checkpoint.is_file():
        raise UserError(f"{run} has no {checkpoint.name}", fix="give the run that was exported.")
    return checkpoint


def _in_own_process(model: Path, name: str, options: BenchOptions) -> dict[str, Any]:
    # -P: no file of the working folder is imported in place of ours.
    words = json.dumps(asdict(options), default=str)
    command = [sys.executable, "-P", "-m", __name__, str(model), name, words]
    environment = {**os.environ, **({"OMP_NUM_THREADS": str(options.threads)} if options.threads else {})}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
        raise UserError(
            f"measuring {name} of {model} failed ({last:.300})", fix="try 'distill predict' with it."
        )
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result


def _summary(
    rounds: Sequence[dict[str, Any]], torch_rounds: Sequence[dict[str, Any]] | None
) -> dict[str, Any]:
    medians = {name: median(one[name] for one in rounds) for name in rounds[0]}
    if torch_rounds:
        medians["speedup"] = median(
            theirs["p50_ms"] / mine["p50_ms"] for mine, theirs in zip(rounds, torch_rounds, strict=True)
        )
    return medians


def measured(embed: Embed, blank: NDArray[Any], repeats: int) -> dict[str, float]:
    """Return times of ``embed`` on an image of noise that is like ``blank``, and on batches of 32 of it."""
    image = (127 * np.random.default_rng(0).random(blank.shape)).astype(blank.dtype)
    singles = _times(embed, image[None], repeats)
    batches = _times(embed, np.repeat(image[None], MANY, axis=0), max(3, repeats // 10))
    p50, p99 = np.percentile(singles, [50, 99])
    return {
        "p50_ms": float(p50) * 1000,
        "p99_ms": float(p99) * 1000,
        "images_per_s": MANY / float(np.median(batches)),
    }


def _times(embed: Embed, images: NDArray[Any], repeats: int) -> list[float]:
    for _ in range(WARM_UP):
        embed(images)
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        embed(images)
        times.append(time.perf_counter() - began)
    return times


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Something to measure: what embeds, an empty image as it takes it, and its bytes on disk."""

    embed: Embed
    blank: NDArray[Any]
    size: int


def opened(model: Path, name: str, options: BenchOptions) -> Candidate:
    """Open a candidate by its name."""
    info = ModelInfo.load(model)
    if name == TORCH:
        return _torch_student(model, info, options)
    if name == TEACHER:
        return _teacher(info, options)
    from distill.deploy.model import open_graph

    _, path = info.onnx_file(model, name)
    graph = open_graph(path, threads=options.threads)
    return Candidate(embed=graph, blank=info.preprocessing.blank(), size=path.stat().st_size)


def _torch_student(model: Path, info: ModelInfo, options: BenchOptions) -> Candidate:
    from distill.deploy.models import embed_with, embedding_of
    from distill.student.build import Origin
    from distill.student.weights_files import read_state_dict

    path, run = _student_weights(model, info, options), options.run
    assert path is not None
    origin = Origin.of(info.arch, options.code)
    if origin.code is not None and origin.code.sha256 != info.code:
        raise CacheMismatch(
            f"{options.code} is not the code that {model} was exported with",
            fix="give the file as it was then.",
        )
    if run is None:
        state = read_state_dict(info.checked(model, WEIGHTS))
    else:
        from distill.checkpoint import read_checkpoint

        checkpoint = read_checkpoint(path)
        # Of several teachers a run keeps the fingerprint of each.
        if info.source["fingerprint"] not in checkpoint["fingerprint"].split("+"):
            raise CacheMismatch(
                f"{run} learnt from the teacher {checkpoint['fingerprint']}, {model} from "
                f"{info.source['fingerprint']}",
                fix="give the run that was exported.",
            )
        state = checkpoint["student"]
    weights = sum(value.nbytes for value in state.values())
    blank = replace(info.preprocessing, where=OUTSIDE).blank()
    return Candidate(embed=embed_with(embedding_of(info, state, origin=origin)), blank=blank, size=weights)


def _teacher(info: ModelInfo, options: BenchOptions) -> Candidate:
    import torch

    from cache.teacher.load import load_teacher

    assert options.teacher_model is not None
    teacher = load_teacher(
        options.teacher_model,
        pretrained=options.pretrained,
        precision="float32",
        weights_sha256=info.teacher_weights,
    )
    return Candidate(
        embed=lambda images: teacher.embed_images(torch.from_numpy(images)),
        blank=np.zeros((3, *teacher.spec.image_size), dtype=np.float32),
        size=teacher.images.nbytes,
    )


def main() -> None:
    """Measure one candidate in this process and print its times as JSON."""
    model, name, words = sys.argv[1:]
    given = json.loads(words)
    paths = {name: Path(given[name]) for name in ("run", "code") if given[name]}
    options = BenchOptions(**{**given, **paths})
    candidate = opened(Path(model), name, options)
    times = measured(candidate.embed, candidate.blank, options.repeats)
    more = {"bytes": candidate.size, "peak_memory_bytes": peak_resident()}
    sys.stdout.write(json.dumps({**times, **more}) + "\n")


if __name__ == "__main__":
    main()
