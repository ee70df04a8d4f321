"""Training from the cache against the teacher in the loop, and against plain supervised training.

    python scripts/bench_teacher_in_loop.py --model ViT-B-32-quickgelu --batch-size 32

A is a plain supervised step; B is this program's whole step with the teacher's rows from the cache; C is B
with the teacher in the loop, as open_clip's --distill-model has it: at every step the teacher, its weights
random and without gradients, embeds the student's very batch, and the same losses take its rows. A and B are
the plain and the whole step of bench_train_step.py. The batch is resident and the class texts are embedded
once, so decoding, texts and start-up are in none. The teacher runs in the student's precision, and
where it takes images of another size, they are resized.

Each measurement is a process of its own, in turn: A B C A B C. Prints medians of seconds a step, images/s and
the most memory that was resident while steps were taken (Linux), writes JSON.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench_parts import (
    forget_peak,
    fresh,
    in_turn,
    median_ratios,
    medians,
    parser_of,
    run,
    weights_of,
    whole,
    write_result,
)
from bench_train_step import add_step_arguments, config_of, open_resident, own_step, plain_step, seconds_of
from cache.runtime.devices import choose_device, keep_freed_memory
from cache.teacher.open_clip_model import DTYPES, Teacher, load_teacher
from cache.teacher.weights import model_config
from distill.data.batch import Targets
from distill.record.peak_memory import peak_resident

PLAIN, CACHED, IN_LOOP = "plain supervised", "from the cache", "teacher in the loop"
WAYS = (PLAIN, CACHED, IN_LOOP)
OWN = ("rounds", "out", "way")


def teaching(teacher: Teacher) -> Callable[[Tensor], Targets]:
    """Return what embeds a batch as the student takes it, on the device and without gradients."""
    size, dtype = teacher.spec.image_size, DTYPES[teacher.spec.precision]

    @torch.no_grad()
    def teach(images: Tensor) -> Targets:
        if images.shape[-1] != size:
            images = F.interpolate(images, size=(size, size), mode="bilinear")
        return Targets(teacher_BD=teacher.model.encode_image(images.to(dtype)).float())  # type: ignore[operator]

    return teach


def load(args: argparse.Namespace, device: torch.device) -> Teacher:
    """Return the teacher in the student's precision."""
    return load_teacher(args.model, pretrained=args.weights, precision=args.precision, device=device)


def measure(args: argparse.Namespace) -> None:
    """Measure one way, here, and write what was found."""
    with tempfile.TemporaryDirectory() as folder:
        session, batch = open_resident(args, Path(folder))
        device = session.device
        if args.way == PLAIN:
            take = plain_step(session, args.classes, batch, args.image_size)
        else:
            teach = teaching(load(args, device)) if args.way == IN_LOOP else None
            take = own_step(session, batch, Path(folder) / "run", teach)
        keep_freed_memory(device)  # a run asks for it too
        forget_peak()
        seconds_of(take, device, args.warm_up)
        found: dict[str, float] = {"seconds": seconds_of(take, device, args.steps)}
    found["host_bytes"] = peak_resident()
    if device.type == "cuda":
        found["device_bytes"] = torch.cuda.max_memory_allocated(device)
    write_result(args, found, device)


def measured(args: argparse.Namespace, way: str) -> dict[str, Any]:
    """Return what a process of its own found of one way."""
    own = {name: value for name, value in vars(args).items() if value is not None and name not in OWN}
    return fresh(Path(__file__), [f"--{k.replace('_', '-')}={v}" for k, v in {**own, "way": way}.items()])


def report(args: argparse.Namespace, rounds: list[dict[str, dict[str, Any]]]) -> None:
    """Print the table and write it."""
    seconds = [{way: found["seconds"] for way, found in turn.items()} for turn in rounds]
    memory = medians([{way: found["host_bytes"] for way, found in turn.items()} for turn in rounds])
    ratios = median_ratios(seconds, PLAIN)
    result: dict[str, Any] = {"rounds": rounds, "ways": {}}
    print(f"{'':20}{'s a step':>10}{'images/s':>12}{'beside plain':>14}{'peak memory, GB':>18}")
    for way, spent in medians(seconds).items():
        rate = args.batch_size / spent
        result["ways"][way] = {
            "seconds": spent,
            "images_per_s": rate,
            "ratio": ratios[way],
            "host_bytes": memory[way],
        }
        print(f"{way:20}{spent:10.3f}{rate:12.2f}{ratios[way]:14.3f}{memory[way] / 1e9:18.2f}")
    result["slower_than_cache"] = median_ratios(seconds, CACHED)[IN_LOOP]
    print(f"the teacher in the loop takes {result['slower_than_cache']:.2f} times as long as the cache")
    write_result(args, result, choose_device(args.device))


def main() -> None:
    """Parse, measure, print."""
    parser = parser_of(__file__, __doc__, rounds=3)
    add_step_arguments(parser)
    parser.add_argument("--model", default="ViT-B-32-quickgelu", help="An open_clip name: the teacher.")
    parser.add_argument("--warm-up", type=whole(0), default=2, help="Steps before those that count.")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--embed-dim", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        measure(args)
        return
    # What is wrong is found before anything is measured.
    args.embed_dim = model_config(args.model)["embed_dim"]
    config_of(args)
    choose_device(args.device)
    with tempfile.TemporaryDirectory() as folder:
        weights = weights_of(args.model, Path(folder))
        args.weights = str(weights) if weights else None
        report(args, in_turn({way: partial(measured, args, way) for way in WAYS}, args.rounds))


if __name__ == "__main__":
    run(main)
