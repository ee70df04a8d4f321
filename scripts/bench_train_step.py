"""A training step against a plain supervised step of the same student.

    python scripts/bench_train_step.py --arch resnet18 --batch-size 32 --precision bfloat16

A is forward, cross-entropy, backward and the optimiser's step on one resident, normalised batch, with a
linear layer of C classes; B is this program's whole step on one resident batch: augmentation, forward,
every loss that is on, backward, step, sums; C is B without augmentation. Both are channels_last, in the same
precision, with the same optimiser. They take turns, A B C A B C. Prints a table of medians, writes JSON.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from cache.devices import keep_freed_memory
from cache.files import write_json
from cache.images import ImageFolder
from cache.import_embeddings import ImportedTexts, import_embeddings
from distill.batch import Batch, Share
from distill.config import RunConfig, with_settings
from distill.optim import build_optimizer
from distill.runlog import hardware, peak_memory, versions
from distill.session import Session, open_session
from distill.student_run import StudentRun, stream_generator
from distill.students import build_student, family
from distill.train import ImageTask


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
    found = ImageFolder.scan(data)
    keys = [f"{name}/{image.key}" for name, split in found.splits.items() for image in split.images]
    names = found.class_names
    import_embeddings(
        folder / "cache",
        keys=keys,
        embeddings=rng.normal(size=(len(keys), embed_dim)).astype("float32"),
        texts=[
            ImportedTexts(
                name="labels", classes=list(names), embeddings=rng.normal(size=(len(names), embed_dim))
            )
        ],
        folder=found,
    )
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


def own_step(session: Session, batch: Batch, out: Path) -> Callable[[], None]:
    """Return this program's step on a resident batch."""
    run = StudentRun(ImageTask(session), out, resume_run=False)
    run.begin_epoch()
    share = Share.whole(len(batch.keys))

    def take() -> None:
        generator = stream_generator(0, 0, run.position.step)
        images = run.task.augmented(batch.image_BXRR, generator, share)
        run.step(replace(batch, image_BXRR=images))

    return take


def seconds_of(take: Callable[[], None], device: torch.device, steps: int) -> float:
    """Return the seconds a step takes, over some steps."""
    began = time.perf_counter()
    for _ in range(steps):
        take()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - began) / steps


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--embed-dim", type=int, default=768)
    parser.add_argument("--losses", default="cls,mse,im_cst,vlalign")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--plain-allocator", action="store_true", help="Leave glibc's malloc as it is.")
    parser.add_argument("--out", type=Path, default=Path("artifacts/bench_train_step.json"))
    args = parser.parse_args()
    chosen = [f"loss.{name}=1" for name in args.losses.split(",")]
    config = with_settings(
        RunConfig(),
        [
            *chosen,
            f"student.arch={args.arch}",
            f"student.image_size={args.image_size}",
            f"train.batch_size={args.batch_size}",
            f"train.precision={args.precision}",
            f"train.device={args.device}",
            "data.workers=0",
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        data, cache = small_data(
            Path(folder), classes=args.classes, images=4 * args.batch_size, embed_dim=args.embed_dim
        )
        session = open_session(config, cache_dir=cache, data_dir=data)
        session.student.train()
        if not args.plain_allocator:  # a run asks for it too
            keep_freed_memory(session.device)
        batch = next(session.data.batches([np.arange(args.batch_size)])).to(session.device)
        bare = replace(session, augment=replace(session.augment, policy="none"))
        steps = {
            "plain supervised": plain_step(session, args.classes, batch, args.image_size),
            "whole step": own_step(session, batch, Path(folder) / "whole"),
            "without augmentation": own_step(bare, batch, Path(folder) / "bare"),
        }
        for take in steps.values():
            seconds_of(take, session.device, 2)
        rounds: list[dict[str, float]] = [
            {name: seconds_of(take, session.device, args.steps) for name, take in steps.items()}
            for _ in range(args.rounds)
        ]
    report(args, rounds, session.device)


def report(args: argparse.Namespace, rounds: list[dict[str, float]], device: torch.device) -> None:
    """Print the table and write it."""
    result: dict[str, Any] = {"arguments": {k: str(v) for k, v in vars(args).items()}, "rounds": rounds}
    print(f"{'':24}{'ms':>10}{'images/s':>12}{'ratio':>10}")
    for name in rounds[0]:
        seconds = statistics.median(r[name] for r in rounds)
        ratio = statistics.median(r[name] / r["plain supervised"] for r in rounds)
        result[name] = {"seconds": seconds, "images_per_s": args.batch_size / seconds, "ratio": ratio}
        print(f"{name:24}{1000 * seconds:10.1f}{args.batch_size / seconds:12.1f}{ratio:10.3f}")
    result["peak_memory_bytes"] = peak_memory(device)
    write_json(args.out, {**result, "hardware": hardware(device), "versions": versions()})


if __name__ == "__main__":
    main()
