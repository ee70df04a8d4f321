"""Training steps on one resident batch: plain supervised, this program's own, the teacher in the loop."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.turns import PRECISIONS, forget_peak, random_rows, tiny_photos
from cache.runtime.devices import keep_freed_memory
from cache.sources.crop_boxes import crop_boxes
from cache.teacher.load import load_teacher
from cache.teacher.teacher import DTYPES, Teacher
from distill.config import RunConfig
from distill.data.batch import Batch, Crops, Share, Targets
from distill.precision import autocast
from distill.record.peak_memory import peak_resident
from distill.settings import with_settings
from distill.student.build import build_student
from distill.student.names import family, resolve
from distill.train.optim import build_optimizer
from distill.train.run import StudentRun
from distill.train.session import Session, open_session
from distill.train.shared_batches import stream_generator

PLAIN, CACHED, IN_LOOP = "plain supervised", "from the cache", "teacher in the loop"
GRID = 256
Step = Callable[[], None]
STEP_OPTIONS = {
    "arch": "resnet18",
    "batch_size": 32,
    "image_size": 224,
    "precision": PRECISIONS,
    "classes": 200,
    "embed_dim": 768,
    "losses": ["cls", "mse", "im_cst", "vlalign"],
    "steps": 2,  # in a turn
    "warm_up": 2,  # steps before those that count
    "device": "auto",
    "compile": ("off", "default", "reduce-overhead", "max-autotune"),
}


def config_of(args: argparse.Namespace, more: Sequence[str] = ()) -> RunConfig:
    """Return the config that the arguments describe, with ``more`` settings; UserError where it cannot be."""
    resolve(args.arch)
    settings = [f"loss.{name}=1" for name in args.losses]
    settings += [f"student.{name}={getattr(args, name)}" for name in ("arch", "image_size")]
    settings += [
        f"train.{name}={getattr(args, name)}" for name in ("batch_size", "precision", "device", "compile")
    ]
    return with_settings(RunConfig(), [*settings, *more, "data.workers=0"])


def open_resident(args: argparse.Namespace, folder: Path, more: Sequence[str] = ()) -> tuple[Session, Batch]:
    """Return a session on small data, its student in training, and a batch on the device.

    ``more`` are settings beside those of the arguments.
    """
    data, images = folder / "data", max(2, 4 * args.batch_size // args.classes)
    photos = tiny_photos(data, classes=args.classes, images=images)
    random_rows(folder / "cache", photos, embed_dim=args.embed_dim)
    session = open_session(config_of(args, more), cache_dir=folder / "cache", data_dir=data)
    session.model.student.train()
    chosen, images = next(session.data.images([np.arange(args.batch_size)]))
    return session, session.data.batch(chosen, images.to(session.model.device))


def plain_step(session: Session, classes: int, batch: Batch) -> Step:
    """Return a supervised step on a resident, normalised batch, with a linear layer of so many classes."""
    config, size = session.config, session.config.student.image_size
    torch.manual_seed(0)
    student = build_student(config.student.arch, embed_dim=classes, image_size=size).to(session.model.device)
    images = torch.randn(len(batch.label_B), 3, size, size, device=session.model.device)
    if family(config.student.arch) == "cnn":
        student = student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = images.contiguous(memory_format=torch.channels_last)
    optimizer = build_optimizer(student, config.optim)
    if config.train.compile != "off":
        student.compile(mode=config.train.compile)  # type: ignore[operator]

    def take() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(session.model.amp_dtype, session.model.device):
            logits = student(images)
        loss = F.cross_entropy(logits.float(), batch.label_B)
        session.scaler.scale(loss).backward()
        session.scaler.step(optimizer)
        session.scaler.update()

    return take


def own_step(
    session: Session,
    batch: Batch,
    out: Path,
    teach: Callable[[Tensor], Targets] | None = None,
    crops: Crops | None = None,
) -> Step:
    """Return this program's step on a resident batch, with its cached targets or those that ``teach`` gives.

    ``teach`` takes the images as the student does, augmented; ``crops`` are replayed instead of drawn ones.
    """
    student = StudentRun(session, out)
    student.begin_epoch()
    share = Share.whole(len(batch.label_B))

    def take() -> None:
        student.position.step %= len(student.batches)  # an epoch that never ends
        generator = stream_generator(0, 0, student.position.step)
        images = session.model.augment(batch.image_BXRR, generator, share, crops)
        targets = batch.targets if teach is None else (teach(images),)
        student.step(replace(batch, image_BXRR=images, targets=targets))

    return take


def drawn_crops(count: int) -> Crops:
    """Return a view of each of so many images, as a cache that keeps views has them."""
    generator = torch.Generator().manual_seed(0)
    return Crops(
        view_B=torch.zeros(count, dtype=torch.int64),
        box_B4=crop_boxes(count, GRID, scale=(0.4, 1.0), generator=generator) / GRID,
        flip_B=torch.rand(count, generator=generator) < 0.5,
        operation_OB=torch.zeros(0, count, dtype=torch.int64),
        magnitude=0,
    )


def teaching(teacher: Teacher) -> Callable[[Tensor], Targets]:
    """Return what embeds a batch as the student takes it, on the device and without gradients."""
    sides, dtype = teacher.spec.image_size, DTYPES[teacher.spec.precision]

    @torch.no_grad()
    def teach(images: Tensor) -> Targets:
        if images.shape[-2:] != sides:
            images = F.interpolate(images, size=sides, mode="bilinear")
        return Targets(teacher_BD=teacher.images.embed(images.to(dtype)).float())

    return teach


def seconds_of(take: Step, device: torch.device, steps: int) -> float:
    """Return the seconds a step takes, over some steps."""
    began = time.perf_counter()
    for _ in range(steps):
        take()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - began) / steps


def one_way(args: argparse.Namespace, way: str, kept: bool = True) -> dict[str, float]:
    """Measure one way in this process: seconds a step, and the most memory while steps were taken (Linux).

    ``kept``: glibc's malloc keeps what tensors free, as every run on the CPU asks for.
    """
    with tempfile.TemporaryDirectory() as folder:
        session, batch = open_resident(args, Path(folder))
        if way == PLAIN:
            take = plain_step(session, args.classes, batch)
        else:
            teach = None
            if way == IN_LOOP:
                where = {"pretrained": args.weights, "precision": args.precision}
                teach = teaching(load_teacher(args.model, **where, device=session.model.device))
            take = own_step(session, batch, Path(folder) / "run", teach)
        if kept:
            keep_freed_memory(session.model.device)
        forget_peak()
        seconds_of(take, session.model.device, args.warm_up)
        result = {"seconds": seconds_of(take, session.model.device, args.steps)}
    result["host_bytes"] = peak_resident()
    if session.model.device.type == "cuda":
        result["device_bytes"] = torch.cuda.max_memory_allocated(session.model.device)
    return result
