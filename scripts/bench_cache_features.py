"""Stage 1 against the bare teacher, and against the usual loop over a folder.

    python scripts/bench_cache_features.py --data DATA --model ViT-L-14-quickgelu --weights FILE.pt

Without --weights it saves random ones. A is encode_image in a loop over tensors that are preprocessed and on
the device already. B is the stage-1 run on the same images: decode, check sums, preprocess, embed, write,
list. C is the loop that open_clip and clip-retrieval have: a DataLoader over the files with the model's own
transform, encode_image, normalised rows in float16, one .npy at the end. B and C are whole wall-clock
seconds, the start of their workers included. Loading the model and embedding texts are in none. They take
turns, A B C A B C. Prints a table of medians, writes JSON.

With --peak-tflops, what the chip can do in this precision, it says what share of it A reaches: the image
tower's operations are counted by torch, two for a multiplication with its addition. --compile adds A through
torch.compile (CUDA).
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from bench_parts import (
    PRECISIONS,
    above_zero,
    first_images,
    in_turn,
    median_ratios,
    medians,
    parser_of,
    run,
    timed,
    training_images,
    weights_of,
    whole,
    write_result,
)
from cache.build.pipeline import Build, BuildOptions, build_cache
from cache.runtime.devices import check_compiler, choose_device, default_workers
from cache.sources.image_folder import ImageFolder, load_rgb
from cache.store.spec import CacheSpec
from cache.teacher.open_clip_model import DTYPES, Teacher, load_teacher

BARE, STAGE_1, LOADER, COMPILED = "bare encode_image", "stage 1", "DataLoader to .npy", "bare, compiled"


class Photos(Dataset[Any]):
    """One file opened and put through the teacher's transform; runs in workers."""

    def __init__(self, paths: Sequence[Path], transform: Callable[[Any], Tensor]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.paths[index]) as image:
            return self.transform(image)


@torch.inference_mode()
def bare(encode: Callable[[Tensor], Tensor], batches: Sequence[Tensor]) -> float:
    """Return the seconds of embedding tensors at hand; a copy to the CPU waits for every batch."""
    began = time.perf_counter()
    for batch in batches:
        encode(batch).float().cpu()
    return time.perf_counter() - began


def stage_one(teacher: Teacher, folder: ImageFolder, out: Path, options: BuildOptions) -> dict[str, float]:
    """Return the seconds of a whole stage-1 run, and what of them it waited for images and for the disk."""
    shutil.rmtree(out, ignore_errors=True)
    spec = CacheSpec(teacher=teacher.spec)
    build = Build(folder=folder, out=out, teacher=teacher, spec=spec, options=options)
    seconds, done = timed(lambda: build_cache(build))
    return {"seconds": seconds, "waiting": done.seconds.waiting, "writing": done.seconds.writing}


@torch.no_grad()
def data_loader(teacher: Teacher, paths: Sequence[Path], out: Path, options: BuildOptions) -> float:
    """Return the seconds of the usual loop over the files, from the DataLoader's making to the .npy."""
    began, rows = time.perf_counter(), []
    loader = DataLoader(
        Photos(paths, teacher.transform),
        batch_size=options.batch_size,
        num_workers=options.workers,
        pin_memory=teacher.device.type == "cuda",
    )
    for batch in loader:
        images = batch.to(teacher.device, DTYPES[teacher.spec.precision], non_blocking=True)
        embedding = teacher.model.encode_image(images, normalize=True)  # type: ignore[operator]
        rows.append(embedding.half().cpu().numpy())
    np.save(out, np.concatenate(rows))
    return time.perf_counter() - began


def operations(teacher: Teacher, image_13HW: Tensor) -> int:
    """Return the operations of embedding one image, as torch counts them."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # what is fused is not counted
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            teacher.embed_images(image_13HW)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops()


def main() -> None:
    """Parse, measure, print."""
    parser = parser_of(__file__, __doc__, rounds=2)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="ViT-L-14-quickgelu")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images", type=whole(1), default=64)
    parser.add_argument("--batch-size", type=whole(1), default=16)
    parser.add_argument("--workers", type=whole(0), help="Of B and of C; unless given, as many as a run has.")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--peak-tflops", type=above_zero(1e6), help="What the chip can do, dense, in this precision."
    )
    parser.add_argument("--compile", action="store_true", help="Also A through torch.compile.")
    args = parser.parse_args()
    device = choose_device(args.device)
    if args.compile:
        check_compiler(device)
    photos = training_images(ImageFolder.scan(args.data, require=("train",)))
    photos = first_images(photos, args.images)
    with tempfile.TemporaryDirectory() as scratch:
        weights = args.weights or weights_of(args.model, Path(scratch))
        teacher = load_teacher(
            args.model,
            pretrained=str(weights) if weights else None,
            precision=args.precision,
            device=device,
        )
        measure(args, teacher, photos, Path(scratch))


def measure(args: argparse.Namespace, teacher: Teacher, folder: ImageFolder, scratch: Path) -> None:
    """Let all take turns, print the table and write it."""
    paths = [image.path for image in folder.split("train").images]
    pixels = torch.stack([teacher.transform(load_rgb(path)) for path in paths])
    batches = pixels.to(teacher.device, DTYPES[teacher.spec.precision]).split(args.batch_size)
    workers = default_workers(teacher.device) if args.workers is None else args.workers
    options = BuildOptions(batch_size=args.batch_size, workers=workers)
    own: list[dict[str, float]] = []

    def stage() -> float:
        own.append(stage_one(teacher, folder, scratch / "cache", options))
        return own[-1]["seconds"]

    ways = {
        BARE: partial(bare, teacher.embed_images, batches),
        STAGE_1: stage,
        LOADER: partial(data_loader, teacher, paths, scratch / "rows.npy", options),
    }
    if args.compile:
        ways[COMPILED] = partial(bare, torch.compile(teacher.model.encode_image), batches)  # type: ignore[arg-type]
        ways[COMPILED]()
    bare(teacher.embed_images, batches[:1])
    rounds = in_turn(ways, args.rounds)
    result: dict[str, Any] = {
        "model": args.model,
        "precision": teacher.spec.precision,
        "images": len(paths),
        "workers": workers,
        "rounds": rounds,
        "stage_1": medians(own),
        "gflop_per_image": operations(teacher, batches[0][:1]) / 1e9,
    }
    ratios = median_ratios(rounds, BARE)
    print(f"{len(paths)} images, workers: {workers}\n{'':20}{'s':>10}{'images/s':>12}{'time ratio':>12}")
    for name, seconds in medians(rounds).items():
        rate = len(paths) / seconds
        result[name] = {"seconds": seconds, "images_per_s": rate, "ratio": ratios[name]}
        print(f"{name:20}{seconds:10.2f}{rate:12.2f}{ratios[name]:12.3f}")
    beside = medians([{"": r[STAGE_1] / r[LOADER]} for r in rounds])[""]
    result["stage_1_beside_loader"] = beside
    print(f"stage 1 beside the DataLoader {beside:.3f}; of it waiting for images ", end="")
    print(f"{result['stage_1']['waiting']:.2f} s, for the disk {result['stage_1']['writing']:.3f} s")
    reached = result[BARE]["images_per_s"] * result["gflop_per_image"] / 1e3
    said = f"bare: {result['gflop_per_image']:.1f} GFLOP an image, {reached:.3g} TFLOP/s"
    if args.peak_tflops:
        result["share_of_peak"] = reached / args.peak_tflops
        said += f", {result['share_of_peak']:.1%} of the peak"
    print(said)
    write_result(args, result, teacher.device)


if __name__ == "__main__":
    run(main)
