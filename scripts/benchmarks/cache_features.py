"""Stage 1 beside the bare teacher.

Bare is encode_image in a loop over tensors that are preprocessed and on the device already (of the first
2,048 images, again and again where there are more). Stage 1 is the whole run on the same images: decode,
check sums, preprocess, embed, write, list. The DataLoader is the loop of open_clip and clip-retrieval: the
files with the model's own transform, encode_image, normalised rows in float16, one .npy at the end. Both
count their workers' start, neither loading the model or embedding texts. Images/s, and time beside bare.
Decoding is what the same workers do without a teacher, that is the most that stage 1 can reach. "Of the peak"
is the share that bare reaches of what the card can do at most by its data sheet (dense, in bfloat16): the
image tower's operations are counted by torch, two for a multiplication with its addition.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.turns import (
    PRECISIONS,
    Row,
    linked,
    median_ratios,
    medians,
    seconds_in_turn,
    weights_of,
)
from cache.build.options import Build, BuildOptions
from cache.build.pipeline import build_cache
from cache.runtime.devices import choose_device, default_workers
from cache.runtime.gpus import dense_peak
from cache.sources.decoding import load_rgb
from cache.sources.samples import DataFolder
from cache.store.spec import CacheSpec
from cache.teacher.load import load_teacher
from cache.teacher.teacher import DTYPES, Teacher

BARE, STAGE_1, LOADER, DECODING = "bare", "stage 1", "DataLoader to .npy", "decoding"
ROUNDS = 2
RESIDENT = 2048  # images that bare holds on the device
OPTIONS = {
    "data": Path,
    "model": "ViT-L-14-quickgelu",
    "weights": "",  # random ones
    "images": 64,
    "batch_size": 16,
    "workers": -1,  # as many as a run has
    "precision": ("auto", *PRECISIONS),
    "device": "auto",
}
COLUMNS = {
    "teacher, precision, images": "{}",
    BARE: "{:.2f}",
    STAGE_1: "{:.2f}",
    "stage 1, time": "{:.3f}",
    LOADER: "{:.2f}",
    "DataLoader, time": "{:.3f}",
    DECODING: "{:.2f}",
    "GFLOP an image": "{:.0f}",
    "TFLOP/s": "{:.3g}",
    "of the peak": "{:.1%}",
}


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
def bare(encode: Callable[[Tensor], Tensor], batches: Sequence[Tensor]) -> None:
    """Embed tensors at hand; a copy to the CPU waits for every batch."""
    for batch in batches:
        encode(batch).float().cpu()


def stage_one(teacher: Teacher, folder: DataFolder, out: Path, options: BuildOptions) -> None:
    """Do a whole stage-1 run."""
    shutil.rmtree(out, ignore_errors=True)
    build_cache(
        Build(folder=folder, out=out, teacher=teacher, spec=CacheSpec(teacher=teacher.spec), options=options)
    )


@torch.no_grad()
def data_loader(teacher: Teacher, paths: Sequence[Path], out: Path, options: BuildOptions) -> None:
    """Do the usual loop over the files, from the DataLoader's making to the .npy."""
    rows, cuda = [], teacher.device.type == "cuda"
    sizes = {"batch_size": options.batch_size, "num_workers": options.workers}
    for batch in DataLoader(Photos(paths, teacher.transform), **sizes, pin_memory=cuda):
        images = batch.to(teacher.device, DTYPES[teacher.spec.precision], non_blocking=True)
        embedding = torch.nn.functional.normalize(teacher.images.embed(images), dim=1)
        rows.append(embedding.half().cpu().numpy())
    np.save(out, np.concatenate(rows))


def decoding(teacher: Teacher, paths: Sequence[Path], options: BuildOptions) -> None:
    """Decode and prepare all files as stage 1 does, and embed none."""
    sizes = {"batch_size": options.batch_size, "num_workers": options.workers}
    for _ in DataLoader(Photos(paths, teacher.in_workers), **sizes):
        pass


def peak_of(device: torch.device) -> float | None:
    """Return the TFLOP/s that a device can do at most; None where that is not known."""
    return dense_peak(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


@contextmanager
def unfused() -> Iterator[None]:
    """Do without the fused path of torch's attention module, of which no operations are counted."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def operations(teacher: Teacher, image_13HW: Tensor) -> int:
    """Return the operations of embedding one image, as torch counts them."""
    with FlopCounterMode(display=False) as counter, unfused(), sdpa_kernel(SDPBackend.MATH):
        teacher.embed_images(image_13HW)
    return counter.get_total_flops()


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Let all take turns in this process."""
    device = choose_device(args.device)
    with tempfile.TemporaryDirectory() as scratch:
        folder = linked(args.data, Path(scratch) / "data", args.images)
        folder = DataFolder(path=folder.path, splits={"train": folder.split("train")})
        weights = args.weights or weights_of(args.model, Path(scratch))
        where = {"pretrained": weights, "precision": args.precision, "device": device}
        return in_turns(args, load_teacher(args.model, **where), folder, Path(scratch))


def in_turns(
    args: argparse.Namespace, teacher: Teacher, folder: DataFolder, scratch: Path
) -> tuple[list[Row], Any]:
    """Let all take turns, and return the table's row."""
    paths = [Path(image.where) for image in folder.split("train").all()]
    pixels = torch.stack([teacher.transform(load_rgb(path)) for path in paths[:RESIDENT]])
    resident = pixels.to(teacher.device, DTYPES[teacher.spec.precision]).split(args.batch_size)
    batches = list(islice(cycle(resident), -(-len(paths) // args.batch_size)))
    workers = default_workers(teacher.device) if args.workers < 0 else args.workers
    options = BuildOptions(model="", batch_size=args.batch_size, workers=workers)
    ways = {
        BARE: partial(bare, teacher.embed_images, batches),
        STAGE_1: partial(stage_one, teacher, folder, scratch / "cache", options),
        LOADER: partial(data_loader, teacher, paths, scratch / "rows.npy", options),
        DECODING: partial(decoding, teacher, paths, options),
    }
    bare(teacher.embed_images, batches[:1])
    rounds = seconds_in_turn(ways, args.rounds)
    ratios = median_ratios(rounds, BARE)
    rates = {name: len(paths) / seconds for name, seconds in medians(rounds).items()}
    gflop = operations(teacher, batches[0][:1]) / 1e9
    reached = rates[BARE] * gflop / 1e3
    row = {"teacher, precision, images": f"{args.model}, {teacher.spec.precision}, {len(paths)}", **rates}
    row |= {"stage 1, time": ratios[STAGE_1], "DataLoader, time": ratios[LOADER]}
    row |= {"GFLOP an image": gflop, "TFLOP/s": reached}
    if peak := peak_of(teacher.device):
        row["of the peak"] = reached / peak
    return [row], rounds
