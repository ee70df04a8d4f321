"""What N ablations cost, three ways: whole runs, from the first line after the imports to the last file.

    python scripts/bench_ablations.py --data DATA --images 100 --counts 1,4,16

A is one stage-1 pass and N separate runs from its cache. B is one stage-1 pass and N students that are
trained together from one stream of batches. C is N separate runs with the teacher in the loop: each loads it,
embeds the class texts, and at every step lets it embed the student's very batch, without gradients. The runs
differ in their losses and learning rates. All judge after every epoch, save and draw as any run does, and all
are counted: loading, decoding, the texts. Only Python's imports are not. The teacher's weights are random;
C's cache has random rows, which its losses never see, and serves for the texts alone.

Each measurement is a process of its own; for every N they take turns, A B A B. C is run for N = 1 and its
median taken N times, which the column "C is" says; with --all it is run for every N. Prints a table of
medians in seconds and the ratios, writes JSON.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bench_parts import (
    PRECISIONS,
    first_images,
    fresh,
    in_turn,
    listed,
    medians,
    parser_of,
    run,
    timed,
    weights_of,
    whole,
    write_result,
)
from bench_teacher_in_loop import load, teaching
from cache.build.from_folder import LABELS, FeatureOptions, cache_features, text_banks
from cache.maintain.import_embeddings import ImportedTexts, import_embeddings
from cache.runtime.devices import choose_device
from cache.sources.image_folder import ImageFolder
from cache.sources.splits import FOLDERS
from distill.config import RunConfig
from distill.data.batch import Batch, Targets
from distill.data.stream import Stream
from distill.settings import with_settings
from distill.student.build import resolve
from distill.train.images import ImageTask
from distill.train.images import run as train
from distill.train.loop import Member, fit, fit_together
from distill.train.session import Session, open_session, session_of

SEPARATE, TOGETHER, IN_LOOP = "separate runs", "trained together", "teacher in the loop"
OWN = ("rounds", "out", "counts", "all", "way", "count")
LOSSES = ("cls,mse,im_cst,vlalign", "cls,vlalign", "cls,mse", "cls,im_cst")
RATES = (0.05, 0.02, 0.01, 0.005)


@dataclass
class TeacherInLoop(ImageTask):
    """An image task whose targets are what the teacher says of the very batch."""

    teach: Callable[[Tensor], Targets] = field(kw_only=True)

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Return an augmented batch's losses, and its cosines."""
        return super().losses(replace(batch, targets=(self.teach(batch.image_BXRR),)))


def ablations(args: argparse.Namespace, count: int) -> list[RunConfig]:
    """Return the configs of N runs of one stream: sets of losses, then learning rates."""
    settings = [f"student.{name}={getattr(args, name)}" for name in ("arch", "image_size")]
    names = ("epochs", "batch_size", "precision", "device")
    settings += [f"train.{name}={getattr(args, name)}" for name in names]
    base = with_settings(RunConfig(), [*settings, f"data.workers={args.workers}"])
    chosen = itertools.islice(itertools.product(RATES, LOSSES), count)
    return [
        with_settings(base, [f"optim.lr={rate}", *(f"loss.{name}=1" for name in losses.split(","))])
        for rate, losses in chosen
    ]


def stage_one(args: argparse.Namespace, out: Path) -> None:
    """Embed the images and texts into the cache ``out``."""
    options = FeatureOptions(
        model=args.model,
        pretrained=args.weights,
        precision=args.precision,
        device=args.device,
        workers=args.workers,
        batch_size=args.batch_size,
    )
    cache_features(args.data, out, options)


def separate(args: argparse.Namespace, configs: Sequence[RunConfig], scratch: Path) -> None:
    """Stage 1, and one run after the other."""
    cache = scratch / "cache"
    stage_one(args, cache)
    for i, config in enumerate(configs):
        train(config, cache_dir=cache, data_dir=args.data, out=scratch / f"run{i}")


def together(args: argparse.Namespace, configs: Sequence[RunConfig], scratch: Path) -> None:
    """Stage 1, and all runs beside each other."""
    cache = scratch / "cache"
    stage_one(args, cache)
    stream = Stream.open(configs[0], cache_dir=cache, data_dir=args.data)
    sessions = [session_of(config, stream) for config in configs]
    members = [Member(task=ImageTask(s), out=scratch / f"run{i}") for i, s in enumerate(sessions)]
    failed = [found for found in fit_together(members) if isinstance(found, Exception)]
    if failed:
        raise failed[0]


def in_loop(args: argparse.Namespace, configs: Sequence[RunConfig], scratch: Path) -> None:
    """One run with the teacher after the other."""
    for i, config in enumerate(configs):
        session, teach = open_with_teacher(args, config, scratch / f"cache{i}")
        fit(TeacherInLoop(session, teach=teach), scratch / f"run{i}")


def open_with_teacher(
    args: argparse.Namespace, config: RunConfig, cache: Path
) -> tuple[Session, Callable[[Tensor], Targets]]:
    """Load the teacher, embed the texts, and open a session on random rows."""
    teacher = load(args, choose_device(args.device))
    folder = ImageFolder.scan(args.data)
    bank = text_banks(folder, FeatureOptions(model=args.model))[0]
    embedded, _ = teacher.embed_texts(bank.texts)
    texts = ImportedTexts(name="labels", classes=bank.classes, texts=bank.texts, embeddings=embedded.numpy())
    keys = [f"{name}/{image.key}" for name, split in folder.splits.items() for image in split.images]
    rows = np.random.default_rng(0).standard_normal((len(keys), teacher.embed_dim), dtype=np.float32)
    import_embeddings(cache, keys=keys, embeddings=rows, texts=[texts], folder=folder)
    return open_session(config, cache_dir=cache, data_dir=args.data), teaching(teacher)


WAYS = {SEPARATE: separate, TOGETHER: together, IN_LOOP: in_loop}


def measure(args: argparse.Namespace) -> None:
    """Measure one way with one number of ablations, here, and write the seconds."""
    configs = ablations(args, args.count)
    with tempfile.TemporaryDirectory() as scratch:
        seconds, _ = timed(lambda: WAYS[args.way](args, configs, Path(scratch)))
    write_result(args, {"seconds": seconds}, choose_device(args.device))


def measured(args: argparse.Namespace, way: str, count: int) -> float:
    """Return the seconds that a process of its own found."""
    own = {name: value for name, value in vars(args).items() if value is not None and name not in OWN}
    given = {**own, "way": way, "count": count}
    found = fresh(Path(__file__), [f"--{k.replace('_', '-')}={v}" for k, v in given.items()])
    return float(found["seconds"])


def linked(folder: ImageFolder, out: Path) -> Path:
    """Make a data folder of links to the images that a folder has been cut to."""
    for name, split in folder.splits.items():
        for image in split.images:
            link = out / FOLDERS[name] / image.key
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(image.path.absolute())
    if (folder.path / LABELS).is_file():
        (out / LABELS).symlink_to((folder.path / LABELS).absolute())
    return out


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Let the ways take turns for every N, print the table and return it."""
    found: dict[str, Any] = {}
    once = 0.0
    print(f"{'N':>4}{'A: separate, s':>18}{'B: together, s':>18}{'C: teacher, s':>18}", end="")
    print(f"{'C is':>10}{'C / A':>8}{'C / B':>8}")
    for count in args.counts:
        runs_teacher = args.all or count == 1
        ways = [way for way in WAYS if way != IN_LOOP or runs_teacher]
        rounds = in_turn({way: partial(measured, args, way, count) for way in ways}, args.rounds)
        seconds = medians(rounds)
        if count == 1:
            once = seconds[IN_LOOP]
        seconds.setdefault(IN_LOOP, once * count)
        how = "measured" if runs_teacher else "times N"
        ratios = {way: seconds[IN_LOOP] / seconds[way] for way in (SEPARATE, TOGETHER)}
        found[str(count)] = {"rounds": rounds, "seconds": seconds, "in_loop_is": how, "ratios": ratios}
        print(f"{count:4}{seconds[SEPARATE]:18.1f}{seconds[TOGETHER]:18.1f}{seconds[IN_LOOP]:18.1f}", end="")
        print(f"{how:>10}{ratios[SEPARATE]:8.2f}{ratios[TOGETHER]:8.2f}", flush=True)
    return found


def main() -> None:
    """Parse, measure, print."""
    parser = parser_of(__file__, __doc__, rounds=1)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=whole(1), default=100, help="Of train; other splits are cut alike.")
    parser.add_argument("--counts", type=listed(whole(1)), default="1,4,16", help="Each N; begins with 1.")
    parser.add_argument("--all", action="store_true", help="Also C is run for every N.")
    parser.add_argument("--model", default="ViT-B-32-quickgelu", help="An open_clip name: the teacher.")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--image-size", type=whole(1), default=224)
    parser.add_argument("--epochs", type=whole(1), default=5)
    parser.add_argument("--batch-size", type=whole(1), default=32)
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="Of the students and of the teacher."
    )
    parser.add_argument("--workers", type=whole(0), default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        measure(args)
        return
    if not args.all and args.counts[0] != 1:
        parser.error("--counts begins with 1, whose run with the teacher is the measure of the others")
    if max(args.counts) > len(RATES) * len(LOSSES):
        parser.error(f"--counts: there are {len(RATES) * len(LOSSES)} ablations, not {max(args.counts)}")
    # What is wrong is found before anything is measured.
    ablations(args, max(args.counts))
    resolve(args.arch)
    choose_device(args.device)
    folder = first_images(ImageFolder.scan(args.data), args.images)
    with tempfile.TemporaryDirectory() as scratch:
        weights = weights_of(args.model, Path(scratch))
        args.weights = str(weights) if weights else None
        args.data = linked(folder, Path(scratch) / "data")
        found = compare(args)
    write_result(args, {"counts": found}, choose_device(args.device))


if __name__ == "__main__":
    run(main)
