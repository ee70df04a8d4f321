"""What N ablations cost.

Whole runs, from after the imports to the last file: stage 1 or the teacher's loading, decoding, texts,
training, judging. A is one stage-1 pass and N separate runs from its cache; B one stage-1 pass and N
students trained together from one stream of batches; C N separate runs with the teacher in the loop, each
of which loads it, embeds the class texts, and at every step lets it embed the student's very batch. The
runs differ in their losses and learning rates. Each measurement is a process of its own. C is run for N = 1
and taken N times, unless --all is given.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.steps import teaching
from benchmarks.turns import (
    PRECISIONS,
    Row,
    alone,
    in_turn,
    linked,
    medians,
    random_rows,
    timed,
    weights_of,
)
from cache.build.from_folder import FeatureOptions, cache_features, text_banks
from cache.maintain.imported_banks import ImportedTexts
from cache.runtime.devices import choose_device
from cache.runtime.errors import WrongOption
from cache.runtime.progress import Silent
from cache.sources.data import open_data
from cache.teacher.load import load_teacher
from distill.config import RunConfig
from distill.data.batch import Batch, Targets
from distill.settings import with_settings
from distill.student.names import resolve
from distill.student.photo_model import PhotoModel
from distill.sweep.plan import PlannedRun, Sweep
from distill.sweep.run import FAILED, Place, run_sweep
from distill.sweep.together import Together
from distill.sweep.watch import Lines
from distill.train.loop import fit_together
from distill.train.run import StudentRun
from distill.train.session import open_session
from distill.train.start import train

SEPARATE, TOGETHER, IN_LOOP = (
    "A: one cache, separate runs",
    "B: one cache, together",
    "C: teacher in the loop",
)
LOSSES = (("cls", "mse", "im_cst", "vlalign"), ("cls", "vlalign"), ("cls", "mse"), ("cls", "im_cst"))
RATES = (0.05, 0.02, 0.01, 0.005)
ROUNDS = 1
OPTIONS = {
    "data": Path,
    "images": 100,  # of train; other splits are cut alike
    "counts": [1, 4, 16],
    "all": False,
    "model": "ViT-B-32-quickgelu",
    "arch": "resnet18",
    "image_size": 224,
    "epochs": 5,
    "batch_size": 32,
    "precision": PRECISIONS,
    "workers": 1,
    "device": "auto",
}
COLUMNS = {
    "N": "{}",
    **dict.fromkeys((SEPARATE, TOGETHER, IN_LOOP), "{:.1f} s"),
    "C is": "{}",
    "C / A": "{:.2f}",
    "C / B": "{:.2f}",
}


@dataclass(frozen=True, kw_only=True)
class TeacherInLoop(PhotoModel):
    """A student whose targets are what the teacher gives for the very batch."""

    teach: Callable[[Tensor], Targets]

    def losses(self, outputs: Tensor, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Return an augmented batch's losses, and its cosines."""
        return super().losses(outputs, replace(batch, targets=(self.teach(batch.image_BXRR),)))


def ablations(args: argparse.Namespace, count: int) -> list[RunConfig]:
    """Return the configs of N runs of one stream: sets of losses, then learning rates."""
    settings = [f"student.{name}={getattr(args, name)}" for name in ("arch", "image_size")]
    names = ("epochs", "batch_size", "precision", "device")
    settings += [f"train.{name}={getattr(args, name)}" for name in names]
    base = with_settings(RunConfig(), [*settings, f"data.workers={args.workers}"])
    chosen = itertools.islice(itertools.product(RATES, LOSSES), count)
    return [
        with_settings(base, [f"optim.lr={rate}", *(f"loss.{name}=1" for name in losses)])
        for rate, losses in chosen
    ]


def options_of(args: argparse.Namespace) -> FeatureOptions:
    """Return the options of stage 1."""
    names = ("model", "precision", "device", "workers", "batch_size")
    return FeatureOptions(pretrained=args.weights, **{name: getattr(args, name) for name in names})


def separate(args: argparse.Namespace, configs: Sequence[RunConfig], scratch: Path) -> None:
    """Stage 1, and one run after the other."""
    cache_features(args.data, scratch / "cache", options_of(args))
    for i, config in enumerate(configs):
        train(config, cache_dir=scratch / "cache", data_dir=args.data, out=scratch / f"run{i}")


def together(args: argparse.Namespace, configs: Sequence[RunConfig], scratch: Path) -> None:
    """Stage 1, and all runs beside each other, as a sweep trains them."""
    cache_features(args.data, scratch / "cache", options_of(args))
    runs = [
        PlannedRun(name=f"run{i}", point=f"run{i}", settings={}, seed=0, config=config)
        for i, config in enumerate(configs)
    ]
    place = Place(cache=scratch / "cache", data=args.data, out=scratch / "runs")
    sweep = Sweep(question="", runs=tuple(runs))
    results = run_sweep(sweep, place, Together(progress=Silent()), Lines(runs, place))
    failed = [result.error for result in results if result.status == FAILED]
    if failed:
        raise RuntimeError(failed[0])


def in_loop(args: argparse.Namespace, configs: Sequence[RunConfig], scratch: Path) -> None:
    """One run with the teacher after the other, on caches of random rows that no loss sees."""
    for i, config in enumerate(configs):
        where = {"pretrained": args.weights, "precision": args.precision}
        teacher = load_teacher(args.model, **where, device=choose_device(args.device))
        folder, cache = open_data([args.data]), scratch / f"cache{i}"
        bank = text_banks(folder, options_of(args))[0]
        embedded = teacher.embed_texts(bank.texts)[0].numpy()
        texts = ImportedTexts(name="labels", classes=bank.classes, texts=bank.texts, embeddings=embedded)
        random_rows(cache, folder, embed_dim=teacher.embed_dim, texts=[texts])
        session = open_session(config, cache_dir=cache, data_dir=args.data)
        parts = {field.name: getattr(session.model, field.name) for field in fields(session.model)}
        model = TeacherInLoop(**parts, teach=teaching(teacher))
        (summary,) = fit_together([StudentRun(replace(session, model=model), scratch / f"run{i}")])
        if isinstance(summary, Exception):
            raise summary


def one_way(take: Callable[..., None], args: argparse.Namespace, count: int) -> float:
    """Return the seconds of one way with so many ablations, in this process."""
    with tempfile.TemporaryDirectory() as scratch:
        return timed(lambda: take(args, ablations(args, count), Path(scratch)))[0]


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Let the ways take turns for every N, each in a process of its own."""
    if args.counts[0] != 1 or max(args.counts) > len(RATES) * len(LOSSES):
        most = len(RATES) * len(LOSSES)
        raise WrongOption("--counts are not right", fix=f"begin with 1, and give none above {most}.")
    # What is wrong is told before anything is measured.
    ablations(args, max(args.counts))
    resolve(args.arch)
    rows, details, once = [], [], 0.0
    with tempfile.TemporaryDirectory() as scratch:
        args.weights = weights_of(args.model, Path(scratch))
        args.data = linked(args.data, Path(scratch) / "data", args.images).path
        for count in args.counts:
            ways = {SEPARATE: separate, TOGETHER: together, IN_LOOP: in_loop}
            if count > 1 and not args.all:
                del ways[IN_LOOP]
            rounds = in_turn(
                {name: partial(alone, args, one_way, take, args, count) for name, take in ways.items()},
                args.rounds,
            )
            seconds = medians(rounds)
            once = seconds.get(IN_LOOP, once) if count == 1 else once
            how = "measured" if IN_LOOP in seconds else "times N"
            seconds.setdefault(IN_LOOP, once * count)
            ratios = {f"C / {way[0]}": seconds[IN_LOOP] / seconds[way] for way in (SEPARATE, TOGETHER)}
            rows.append({"N": count, **seconds, "C is": how, **ratios})
            details.append(rounds)
    return rows, details
