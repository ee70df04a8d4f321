"""A training step against a plain supervised step of the same student.

    python scripts/bench_train_step.py --arch resnet18 --batch-size 32 --precision bfloat16

A is forward, cross-entropy, backward and the optimiser's step on one resident, normalised batch, with a
linear layer of C classes; B is this program's whole step on one resident batch: augmentation, forward,
every loss that is on, backward, step, sums; C is B without augmentation. Both are channels_last, in the same
precision, with the same optimiser. They take turns, A B C A B C. Prints a table of medians, writes JSON.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from bench_parts import (
    PRECISIONS,
    in_turn,
    median_ratios,
    medians,
    parser_of,
    random_rows,
    run,
    whole,
    write_result,
)
from cache.runtime.devices import keep_freed_memory
from cache.sources.image_folder import ImageFolder
from distill.config import RunConfig
from distill.data.batch import Batch, Share, Targets
from distill.record.run_log import peak_memory
from distill.settings import with_settings
from distill.student.build import build_student, family, resolve
from distill.train.images import ImageTask
from distill.train.optim import build_optimizer
from distill.train.run import StudentRun, stream_generator
from distill.train.session import Session, open_session


def small_data(folder: Path, *, classes: int, images: int, embed_dim: int) -> tuple[Path, Path]:
    """Write a data folder of tiny pictures and a cache of random rows; return both."""
    rng = np.random.default_rng(0)
    data = folder / "data"
    for split in ("train", "val"):
        for c in range(classes if split == "train" else 2):
            place = data / split / f"{split}_{c:05d}"
            place.mkdir(parents=True)
            for i in range(max(2, images // classes)):
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(place / f"{i}.png")
    random_rows(folder / "cache", ImageFolder.scan(data), embed_dim=embed_dim)
    return data, folder / "cache"


def plain_step(session: Session, classes: int, batch: Batch, image_size: int) -> Callable[[], None]:
    """Return a supervised step on a resident, normalised batch."""
    config = session.config
    torch.manual_seed(0)
    student = build_student(config.student.arch, embed_dim=classes, image_size=image_size).to(session.device)
    images = torch.randn(len(batch.keys), 3, image_size, image_size, device=session.device)
    if family(config.student.arch) == "cnn":
        student = student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = images.contiguous(memory_format=torch.channels_last)
    optimizer = build_optimizer(student, config.optim)

    def take() -> None:
        optimizer.zero_grad(set_to_none=True)
        with session.autocast():
            logits = student(images)
        loss = F.cross_entropy(logits.float(), batch.label_B)
        session.scaler.scale(loss).backward()
        session.scaler.step(optimizer)
        session.scaler.update()

    return take


def own_step(
    session: Session, batch: Batch, out: Path, teach: Callable[[Tensor], Targets] | None = None
) -> Callable[[], None]:
    """Return this program's step on a resident batch, with its cached targets or those that ``teach`` gives.

    ``teach`` takes the images as the student does, augmented.
    """
    student = StudentRun(ImageTask(session), out, resume_run=False)
    student.begin_epoch()
    share = Share.whole(len(batch.keys))

    def take() -> None:
        generator = stream_generator(0, 0, student.position.step)
        images = student.task.augmented(batch.image_BXRR, generator, share)
        targets = batch.targets if teach is None else (teach(images),)
        student.step(replace(batch, image_BXRR=images, targets=targets))

    return take


def seconds_of(take: Callable[[], None], device: torch.device, steps: int) -> float:
    """Return the seconds a step takes, over some steps."""
    began = time.perf_counter()
    for _ in range(steps):
        take()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - began) / steps


def add_step_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which step is taken."""
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--batch-size", type=whole(1), default=32)
    parser.add_argument("--image-size", type=whole(1), default=224)
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--classes", type=whole(1), default=200)
    parser.add_argument("--losses", default="cls,mse,im_cst,vlalign")
    parser.add_argument("--steps", type=whole(1), default=2, help="Steps in a turn.")
    parser.add_argument("--device", default="auto")


def config_of(args: argparse.Namespace) -> RunConfig:
    """Return the config that the arguments say; UserError where it cannot be."""
    resolve(args.arch)
    settings = [f"loss.{name}=1" for name in args.losses.split(",")]
    settings += [f"student.{name}={getattr(args, name)}" for name in ("arch", "image_size")]
    settings += [f"train.{name}={getattr(args, name)}" for name in ("batch_size", "precision", "device")]
    return with_settings(RunConfig(), [*settings, "data.workers=0"])


def open_resident(args: argparse.Namespace, folder: Path) -> tuple[Session, Batch]:
    """Return a session on small random data, its student in training, and a batch on the device."""
    config = config_of(args)
    data, cache = small_data(
        folder, classes=args.classes, images=4 * args.batch_size, embed_dim=args.embed_dim
    )
    session = open_session(config, cache_dir=cache, data_dir=data)
    session.student.train()
    chosen, images = next(session.data.images([np.arange(args.batch_size)]))
    return session, session.data.batch(chosen, images.to(session.device))


def main() -> None:
    """Parse, measure, print."""
    parser = parser_of(__file__, __doc__, rounds=5)
    add_step_arguments(parser)
    parser.add_argument("--embed-dim", type=whole(1), default=768)
    parser.add_argument("--plain-allocator", action="store_true", help="Leave glibc's malloc as it is.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        session, batch = open_resident(args, Path(folder))
        if not args.plain_allocator:  # a run asks for it too
            keep_freed_memory(session.device)
        bare = replace(session, augment=replace(session.augment, policy="none"))
        steps = {
            "plain supervised": plain_step(session, args.classes, batch, args.image_size),
            "whole step": own_step(session, batch, Path(folder) / "whole"),
            "without augmentation": own_step(bare, batch, Path(folder) / "bare"),
        }
        for take in steps.values():
            seconds_of(take, session.device, 2)
        turns = {name: partial(seconds_of, take, session.device, args.steps) for name, take in steps.items()}
        rounds = in_turn(turns, args.rounds)
    report(args, rounds, session.device)


def report(args: argparse.Namespace, rounds: list[dict[str, float]], device: torch.device) -> None:
    """Print the table and write it."""
    result: dict[str, Any] = {"rounds": rounds}
    ratios = median_ratios(rounds, "plain supervised")
    print(f"{'':24}{'ms':>10}{'images/s':>12}{'ratio':>10}")
    for name, seconds in medians(rounds).items():
        rate = args.batch_size / seconds
        result[name] = {"seconds": seconds, "images_per_s": rate, "ratio": ratios[name]}
        print(f"{name:24}{1000 * seconds:10.1f}{rate:12.1f}{ratios[name]:10.3f}")
    write_result(args, {**result, "peak_memory_bytes": peak_memory(device)}, device)


if __name__ == "__main__":
    run(main)
