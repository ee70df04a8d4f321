"""The teacher's forward, and what could make it faster.

Bare forwards of resident batches, in each way: as stage 1 does it; with float32 weights under autocast; with
the attention's fused path of torch switched off; with the norms and activations alone compiled, which are
what open_clip computes in three passes each; and the whole image tower through torch.compile, which is
`cache-features --compile`, also with its matrix products autotuned. Then other sizes of a batch. "Of the
peak" is the share of what the card can do at most by its data sheet (dense, in bfloat16). "Away" is the
largest distance (1 - cosine) of a row from that of the first way, "first" the seconds until the first batch
is done.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cache_features import bare, operations, peak_of, unfused
from benchmarks.turns import PRECISIONS, Row, median_ratios, medians, seconds_in_turn, timed, weights_of
from cache.runtime.devices import check_compiler, choose_device
from cache.teacher.load import load_teacher
from cache.teacher.teacher import DTYPES, Teacher

AS_IT_IS, AUTOCAST, UNFUSED = "as it is", "float32 weights, autocast", "attention not fused"
POINTWISE, COMPILED, TUNED = "norms and activations compiled", "compiled", "compiled, autotuned"
WAYS = (AS_IT_IS, AUTOCAST, UNFUSED, POINTWISE, COMPILED, TUNED)
ROUNDS = 3
OPTIONS = {
    "model": "ViT-L-14-quickgelu",
    "weights": "",  # random ones
    "batch_size": 256,
    "other_sizes": [64, 512],
    "seconds": 1.5,  # of a turn, about
    "precision": ("auto", *PRECISIONS),
    "device": "auto",
    "ways": [*WAYS[:-1]],
}
COLUMNS = {
    "teacher, precision, batch": "{}",
    "way": "{}",
    "images/s": "{:,.0f}",
    "time beside it": "{:.3f}",
    "TFLOP/s": "{:.3g}",
    "of the peak": "{:.1%}",
    "away": "{:.1e}",
    "first": "{:.1f} s",
    "GPU memory": "{:.2f} GB",
    "not measured": "{}",
}
Encode = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Load:
    """A batch on the device, how often a turn takes it, and what an image costs."""

    images_B3HW: Tensor
    repeats: int
    gflop: float
    about: str

    @property
    def batches(self) -> list[Tensor]:
        """What a turn embeds."""
        return [self.images_B3HW] * self.repeats


def measure(args: argparse.Namespace, keep: Callable[[list[Row]], None] = lambda rows: None) -> Any:
    """Let the ways take turns in this process; ``keep`` is given the rows whenever there are more."""
    device = choose_device(args.device)
    with tempfile.TemporaryDirectory() as scratch:
        weights = args.weights or weights_of(args.model, Path(scratch))
        load = partial(load_teacher, args.model, pretrained=weights, device=device)
        teacher = load(precision=args.precision)
        encoders = {name: partial(encoder, name, teacher, load) for name in args.ways}
        rows, rounds = ways_in_turn(args, teacher, encoders)
    keep(rows)
    for size in args.other_sizes:
        more = one_size(args, teacher, size)
        rows.append(more)
        keep(rows)
    return rows, rounds


def encoder(name: str, teacher: Teacher, load: Callable[..., Teacher]) -> Encode:
    """Return what embeds a batch in a way; raises what the machine has not got."""
    if name in (POINTWISE, COMPILED, TUNED):
        check_compiler(teacher.device)
    if name == AUTOCAST:
        return autocast(load(precision="float32"), DTYPES[teacher.spec.precision])
    if name == UNFUSED:
        return without_fused_attention(teacher.images.embed)
    if name == POINTWISE:
        return pointwise_compiled(teacher)
    if name == COMPILED:
        return torch.compile(teacher.images.embed, dynamic=False)
    if name == TUNED:
        return torch.compile(teacher.images.embed, dynamic=False, mode="max-autotune-no-cudagraphs")
    return teacher.images.embed


def autocast(teacher: Teacher, dtype: torch.dtype) -> Encode:
    """Return the forward of float32 weights, which are cast at every batch."""

    def encode(images: Tensor) -> Tensor:
        with torch.autocast(teacher.device.type, dtype=dtype):
            return teacher.images.embed(images.float())

    return encode


def without_fused_attention(embed: Encode) -> Encode:
    """Return a forward without the fused path of torch's attention module."""

    def encode(images: Tensor) -> Tensor:
        with unfused():
            return embed(images)

    return encode


def pointwise_compiled(teacher: Teacher) -> Encode:
    """Return the forward of a copy whose norms and activations alone are compiled."""
    images: Any = copy.deepcopy(teacher.images)
    for module in images.network.modules():
        if type(module).__name__ in ("LayerNormFp32", "LayerNorm", "QuickGELU", "GELU"):
            module.compile(dynamic=False)
    embed: Encode = images.embed
    return embed


def loaded(teacher: Teacher, size: int, seconds: float, about: str) -> Load:
    """Return a batch of a size, as often as takes about so many seconds, at least twice."""
    height, width = teacher.spec.image_size
    images = torch.randn(size, 3, height, width).to(teacher.device, DTYPES[teacher.spec.precision])
    bare(teacher.images.embed, [images])
    once, _ = timed(lambda: bare(teacher.images.embed, [images]))
    repeats = max(2, min(64, round(seconds / once)))
    gflop = operations(teacher, images[:1]) / 1e9
    return Load(images_B3HW=images, repeats=repeats, gflop=gflop, about=f"{about}, {size}")


@torch.inference_mode()
def first_batch(make: Callable[[], Encode], load: Load) -> tuple[Encode, Tensor, Row]:
    """Make a way and let it embed its first batch; return it, the rows, and what that took."""
    cuda = load.images_B3HW.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    encode = make()
    rows = encode(load.images_B3HW).float().cpu()
    took: Row = {"first": time.perf_counter() - began}
    if cuda:
        took["GPU memory"] = torch.cuda.max_memory_allocated() / 1e9
    return encode, rows, took


def ways_in_turn(
    args: argparse.Namespace, teacher: Teacher, encoders: Mapping[str, Callable[[], Encode]]
) -> tuple[list[Row], Any]:
    """Return a row of each way, and the turns; a way that this machine cannot go says why."""
    load = loaded(teacher, args.batch_size, args.seconds, f"{args.model}, {teacher.spec.precision}")
    rows: dict[str, Row] = {}
    ways, first = dict[str, Callable[[], Any]](), None
    for name, make in encoders.items():
        rows[name] = {"teacher, precision, batch": load.about, "way": name}
        try:
            encode, embedded, took = first_batch(make, load)
        except Exception as error:
            rows[name]["not measured"] = " ".join(f"{type(error).__name__}: {error}".split())[:120]
            continue
        first = embedded if first is None else first
        away = 1 - F.cosine_similarity(embedded.double(), first.double()).min().item()
        rows[name] |= took | {"away": max(away, 0.0)}
        ways[name] = partial(bare, encode, load.batches)
    rounds = seconds_in_turn(ways, args.rounds)
    ratios = median_ratios(rounds, next(iter(ways)))
    for name, seconds in medians(rounds).items():
        rows[name] |= speed(teacher, load, seconds) | {"time beside it": ratios[name]}
    return list(rows.values()), rounds


def one_size(args: argparse.Namespace, teacher: Teacher, size: int) -> Row:
    """Return the row of another size of a batch, as it is."""
    load = loaded(teacher, size, args.seconds, f"{args.model}, {teacher.spec.precision}")
    encode, _, took = first_batch(lambda: teacher.images.embed, load)
    seconds = medians(seconds_in_turn({AS_IT_IS: partial(bare, encode, load.batches)}, args.rounds))
    about = {"teacher, precision, batch": load.about, "way": AS_IT_IS}
    return about | speed(teacher, load, seconds[AS_IT_IS]) | {"GPU memory": took.get("GPU memory")}


def speed(teacher: Teacher, load: Load, seconds: float) -> Row:
    """Return images and operations a second of a turn that took so long."""
    rate = load.repeats * len(load.images_B3HW) / seconds
    row: Row = {"images/s": rate, "TFLOP/s": (reached := rate * load.gflop / 1e3)}
    if peak := peak_of(teacher.device):
        row["of the peak"] = reached / peak
    return row
