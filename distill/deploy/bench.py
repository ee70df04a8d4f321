"""How fast a shipped model is beside the torch student and the teacher: what ``distill bench-model`` calls.

Every candidate is measured in processes of its own, which take turns, so that what the machine does besides
falls on all of them. The module is also that process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import CacheMismatch, UserError, WrongOption
from cache.runtime.progress import Progress
from distill.deploy.info import GRAPH, WEIGHTS, ModelInfo
from distill.deploy.onnx_door import import_onnxruntime
from distill.record.peak_memory import peak_resident

TORCH, TEACHER = "torch student", "teacher"
ALONE, MANY = 1, 32
WARM_UP = 3

Embed = Callable[[NDArray[Any]], Any]


def bench_model(
    model: Path,
    *,
    rounds: int,
    repeats: int,
    threads: int,
    run: Path | None = None,
    teacher_model: str | None = None,
    pretrained: str | None = None,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Return what every candidate took, by its name.

    ``p50_ms`` and ``p99_ms`` of one image, ``images_per_s`` in batches of 32, ``bytes`` on disk,
    ``peak_memory_bytes`` of the process; medians over the rounds. ``speedup`` is the median over rounds of
    how much shorter one image takes than the torch student, which is the exported weights or the checkpoint
    of ``run``. Nothing is loaded that the model names: it may be from elsewhere.

    Raises
    ------
    UserError
        If the folder is no exported model, or a candidate fails.
    """
    if pretrained is not None and teacher_model is None:
        raise WrongOption("--pretrained is of --teacher-model", fix="give that too, or leave it out.")
    given = Given(run=run, teacher=tuple(word for word in (teacher_model, pretrained) if word))
    candidates = candidates_of(model, ModelInfo.load(model), given)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in candidates}
    if progress is not None:
        progress.start(rounds * len(candidates))
    for _ in range(rounds):
        for name in candidates:
            found[name].append(_in_own_process(model, name, repeats, threads, given))
            if progress is not None:
                progress.advance(1)
    return {name: _summary(rounds_of, found.get(TORCH)) for name, rounds_of in found.items()}


def machine() -> dict[str, Any]:
    """Return the processor, its cores, and the versions of what is measured."""
    import torch

    from distill.record.run_log import hardware, versions

    return {
        **hardware(torch.device("cpu")),
        "versions": {**versions(), "onnxruntime": import_onnxruntime().__version__},
    }


@dataclass(frozen=True, kw_only=True)
class Given:
    """What is measured beside the model: a run, and the words that name a teacher."""

    run: Path | None = None
    teacher: tuple[str, ...] = ()


def candidates_of(model: Path, info: ModelInfo, given: Given) -> list[str]:
    """Return what can be measured: the exported graphs, the student and teacher where they are at hand."""
    names = list(info.precisions)
    if _student_weights(model, info, given.run) is not None:
        names.append(TORCH)
    if given.teacher:
        names.append(TEACHER)
    if not names:
        raise UserError(
            f"{model} has no ONNX file, and no weights are at hand",
            fix="export with --formats onnx, or give its --run.",
        )
    return names


def _student_weights(model: Path, info: ModelInfo, run: Path | None) -> Path | None:
    """Return the file of the student's weights; UserError where ``run`` was given and has none."""
    if run is None:
        return model / WEIGHTS if WEIGHTS in info.files else None
    checkpoint = run / f"{info.checkpoint}.pt"
    if not checkpoint.is_file():
        raise UserError(f"{run} has no {checkpoint.name}", fix="give the run that was exported.")
    return checkpoint


def _in_own_process(model: Path, name: str, repeats: int, threads: int, given: Given) -> dict[str, Any]:
    # -P: no file of the working folder is imported in place of ours.
    command = [sys.executable, "-P", "-m", __name__, str(model), name, str(repeats), str(threads)]
    command += [f"--run={given.run}"] if given.run else []
    command += [f"--teacher={word}" for word in given.teacher]
    environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(
            f"measuring {name} of {model} failed ({last:.300})", fix="try 'distill predict' with it."
        )
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result


def _summary(
    rounds: Sequence[dict[str, Any]], torch_rounds: Sequence[dict[str, Any]] | None
) -> dict[str, Any]:
    found = {name: median(one[name] for one in rounds) for name in rounds[0]}
    if torch_rounds:
        found["speedup"] = median(
            theirs["p50_ms"] / mine["p50_ms"] for mine, theirs in zip(rounds, torch_rounds, strict=True)
        )
    return found


def measured(embed: Embed, image: NDArray[Any], repeats: int) -> dict[str, float]:
    """Return times of ``embed`` on one image, and on batches of 32 of it."""
    one, many = np.repeat(image[None], ALONE, axis=0), np.repeat(image[None], MANY, axis=0)
    singles = _times(embed, one, repeats)
    batches = _times(embed, many, max(3, repeats // 10))
    p50, p99 = np.percentile(singles, [50, 99])
    return {
        "p50_ms": float(p50) * 1000,
        "p99_ms": float(p99) * 1000,
        "images_per_s": MANY / float(np.median(batches)),
    }


def _times(embed: Embed, images: NDArray[Any], repeats: int) -> list[float]:
    for _ in range(WARM_UP):
        embed(images)
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        embed(images)
        found.append(time.perf_counter() - began)
    return found


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Something to measure: what embeds, an image as it takes it, and its bytes on disk."""

    embed: Embed
    image: NDArray[Any]
    size: int


def opened(model: Path, name: str, threads: int, given: Given) -> Candidate:
    """Open a candidate by its name."""
    info, rng = ModelInfo.load(model), np.random.default_rng(0)
    if name == TORCH:
        return _torch_student(model, info, given.run, rng)
    if name == TEACHER:
        return _teacher(info, rng, *given.teacher)
    from distill.deploy.model import open_session

    _, path = info.onnx_file(model, name)
    session, steps = open_session(path, threads=threads), info.preprocessing
    image: NDArray[Any] = rng.standard_normal((steps.channels, steps.crop, steps.crop), dtype=np.float32)
    if steps.where == GRAPH:
        image = rng.integers(0, 255, (steps.resize, steps.resize, 3), dtype=np.uint8)
    return Candidate(
        embed=lambda images: session.run(None, {"image": images}), image=image, size=path.stat().st_size
    )


def _torch_student(model: Path, info: ModelInfo, run: Path | None, rng: np.random.Generator) -> Candidate:
    from distill.deploy.models import embed_with, embedding_of
    from distill.student.build import read_state_dict

    path = _student_weights(model, info, run)
    assert path is not None
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
    steps = info.preprocessing
    student = embedding_of(info, state, slice(0, info.outputs))
    image = rng.standard_normal((steps.channels, steps.crop, steps.crop), dtype=np.float32)
    weights = sum(value.numel() * value.element_size() for value in state.values())
    return Candidate(embed=embed_with(student), image=image, size=weights)


def _teacher(
    info: ModelInfo, rng: np.random.Generator, model: str, pretrained: str | None = None
) -> Candidate:
    import torch

    from cache.teacher.open_clip_model import load_teacher

    known = info.teacher_weights
    teacher = load_teacher(model, pretrained=pretrained, precision="float32", weights_sha256=known)
    size = teacher.spec.image_size
    image = rng.standard_normal((3, size, size), dtype=np.float32)
    tower: Any = teacher.model.visual
    weights = sum(part.nbytes for part in tower.parameters())
    return Candidate(
        embed=lambda images: teacher.embed_images(torch.from_numpy(images)), image=image, size=weights
    )


def main() -> None:
    """Measure one candidate in this process and print what was found as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("name")
    parser.add_argument("repeats", type=int)
    parser.add_argument("threads", type=int)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--teacher", action="append", default=[])
    words = parser.parse_args()
    given = Given(run=words.run, teacher=tuple(words.teacher))
    candidate = opened(words.model, words.name, words.threads, given)
    found = measured(candidate.embed, candidate.image, words.repeats)
    more = {"bytes": candidate.size, "peak_memory_bytes": peak_resident()}
    sys.stdout.write(json.dumps({**found, **more}) + "\n")


if __name__ == "__main__":
    main()
