"""The files of a shipped model, one after the other: weights, a torch.export program, ONNX graphs."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cache.runtime.errors import UserError
from cache.sources.splits import POOL
from distill.data.stream import EvalSplit
from distill.deploy.check import Written, prepared, sampled
from distill.deploy.check_episodes import prepared_batches
from distill.deploy.info import ONNX, PRECISIONS, PROGRAM, WEIGHTS, ModelInfo
from distill.deploy.int8_file import write_int8
from distill.deploy.model import Embed, open_graph
from distill.deploy.onnx_files import UnitEmbedding, finish, traced, write_float16, write_float32
from distill.deploy.timm_student import LIBRARIES, TFLITE
from distill.deploy.weights_file import write_weights
from distill.judge.trained_run import TrainedRun
from distill.robotics.student import build_episode_student
from distill.student.build import NEW, Origin, build_student, made_of
from distill.student.names import HUB
from distill.student.stages import StagesStudent, with_head
from distill.student.weights_files import read_state_dict

FORMATS = ("onnx", "torch", "safetensors", *LIBRARIES, TFLITE)
CALIBRATION_IMAGES = 128


def write_models(
    folder: Path,
    embedding: UnitEmbedding,
    info: ModelInfo,
    trained: TrainedRun,
    formats: Sequence[str],
    precisions: Sequence[str],
    of_int8: Callable[[], nn.Module] | None = None,
) -> Iterator[Written]:
    """Write what was asked for into ``folder``, one file at a time; 8 bits are set on training images.

    The int8 file is made of what ``of_int8`` gives, the embedding itself without.
    """
    if "safetensors" in formats:
        yield _weights(folder / WEIGHTS, embedding, info, Origin(code=trained.origin.code))
    if not {"torch", "onnx"} & {*formats}:
        return
    trained.progress.start(None, "tracing the network", "")
    program = traced(embedding, info.preprocessing)
    if "torch" in formats:
        torch.export.save(program, folder / PROGRAM)
        loaded = torch.export.load(folder / PROGRAM).module()
        yield Written(name="torch", path=folder / PROGRAM, embed=embed_with(loaded))
    if "onnx" not in formats:
        return
    base = folder / ".float32.onnx"
    write_float32(base, program)
    for precision in (name for name in PRECISIONS if name in precisions):
        path = folder / ONNX[precision]
        trained.progress.start(None, f"writing {path.name}", "")
        if precision == "float32":
            shutil.copy(base, path)
        elif precision == "float16":
            write_float16(path, base)
        else:
            if of_int8 is not None:  # the last of all
                write_float32(base, traced(of_int8(), info.preprocessing))
            write_int8(path, base, calibration_batches(trained, info))
        finish(path, info.preprocessing, _described(info))
        _try_to_open(path)
        yield Written(name=precision, path=path, embed=open_graph(path), where=info.preprocessing.where)
    base.unlink()


def _weights(path: Path, embedding: UnitEmbedding, info: ModelInfo, origin: Origin) -> Written:
    start, stop = embedding.start, embedding.stop or info.outputs
    write_weights(
        path,
        embedding.student.state_dict(),
        info,
        normalisation=made_of(embedding.student).normalisation,
        outputs=info.outputs,
        columns=(start, stop),
    )
    again = embedding_of(info, read_state_dict(path), start, stop, origin=origin)
    return Written(name="safetensors", path=path, embed=embed_with(again))


def embedding_of(
    info: ModelInfo,
    state: dict[str, torch.Tensor],
    start: int = 0,
    stop: int | None = None,
    *,
    origin: Origin = NEW,
) -> nn.Module:
    """Return a model's student with some weights, as unit embeddings; ``origin`` has one's own code."""
    built: dict[str, Any] = {
        "embed_dim": info.outputs,
        "image_size": info.image_size or info.preprocessing.crop,
        "kwargs": info.kwargs,
        "origin": origin,
    }
    if info.arch.startswith(f"{HUB}:"):  # a name that no export writes, and that would be fetched
        raise UserError(f"the model names its student {info.arch}", fix="export the run again.")
    student: nn.Module
    if info.objects is None:
        student = with_head(
            build_student(info.arch, **built),
            kind=info.head,
            embed_dim=info.outputs,
            image_size=built["image_size"],
            hidden=info.hidden,
            arch=info.arch,
        )
        if isinstance(student, StagesStudent):
            student = student.folded()
    else:
        local, with_depth = info.objects.local, info.objects.keys.with_depth
        student = build_episode_student(info.arch, **built, local=local, with_depth=with_depth)
    student.load_state_dict(state)
    return UnitEmbedding(student, start, stop).eval()


def calibration_batches(trained: TrainedRun, info: ModelInfo) -> Iterator[NDArray[np.float32]]:
    """Yield training images as the student takes them, as many of every class as of any other.

    Of a pool where there are no others.
    """
    name = "train" if "train" in trained.folder.splits else POOL
    split = trained.folder.split(name)
    some = sampled(split.all(), CALIBRATION_IMAGES)
    trained.progress.start(len(some), "calibrating int8", trained.model.unit)
    if info.objects is not None:
        yield from prepared_batches(some, info)
        return
    part = EvalSplit(name=name, pixels=trained.pixels(some, name), class_names=split.classes)
    for images in prepared(part, info.preprocessing):
        yield images
        trained.progress.advance(len(images))


def embed_with(module: Callable[[torch.Tensor], torch.Tensor]) -> Embed:
    """Return a torch module as a function of arrays."""

    @torch.no_grad()
    def embed(images: NDArray[Any]) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = module(torch.from_numpy(images)).numpy()
        return rows

    return embed


def _try_to_open(path: Path) -> None:
    """Open an ONNX file in a process of its own: what onnxruntime makes of some graphs is a crash.

    UserError if that process ends so.
    """
    code = "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1])"
    ended = subprocess.run([sys.executable, "-P", "-c", code, str(path)], capture_output=True)
    if ended.returncode < 0:
        raise UserError(
            f"onnxruntime crashes when it opens {path.name} ({signal.Signals(-ended.returncode).name})",
            fix="export without that one of the --precisions, or try another onnxruntime.",
        )


def _described(info: ModelInfo) -> dict[str, Any]:
    rows = "unit rows [B, D] float32; its cosine with a text's unit row, divided by temperature, is the logit"
    if info.objects is not None:
        rows = "unit rows [B, L, D] float32 of L locations; model.json beside it says how objects are scored"
    return {
        "arch": info.arch,
        "embed_dim": str(info.embed_dim),
        "temperature": str(info.temperature),
        "output": f"embedding: {rows}",
    }
