"""Whether views help.

Eight crops an image embedded by the teacher and replayed to the student (`--views`), against fresh crops
with the plain image's embedding. For every smallest crop the teacher runs once, and for every seed
(--rounds is how many) one student learns each way. ID and OOD are macro accuracies in percent, the mean of
the last epochs; the others compare the student's embeddings of OOD images with the teacher's (see
distill.judge.space): where the teacher does not know the classes these alone mean something. Mean (standard
deviation) over seeds. Without --data the pictures of `distill demo` are drawn.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.turns import Row, positive
from cache.build.from_folder import FeatureOptions, cache_features
from cache.runtime.devices import choose_device
from cache.sources.image_folder import ImageFolder
from cache.sources.splits import FOLDERS
from cache.teacher.weights import model_config
from distill.config import RunConfig
from distill.demo.run import RECIPE
from distill.demo.scenes import draw_dataset
from distill.settings import load_recipe, with_settings
from distill.spread import spread
from distill.train.images import run as train

TEACHER = f"local-dir:{RECIPE.parent / 'teacher'}"
SPACE = {"cosine": "cosine", "linear_cka": "linear CKA", "vlalign": "vlalign"}
NAMES = ("ID", "OOD", *(f"OOD {name}" for name in SPACE.values()))
COLUMNS = {
    "smallest crop": "{} of the area",
    "views": "{}",
    **dict.fromkeys(NAMES[:2], "{0[0]:.1f} ({0[1]:.1f})"),
    **dict.fromkeys(NAMES[2:], "{0[0]:.3f} ({0[1]:.3f})"),
}
ALL = 10**9


def part_of(source: Path, out: Path, *, classes: int, images: int) -> Path:
    """Copy the first images of the first classes of every split, and the texts; return the new folder."""
    shutil.copytree(
        source, out, ignore=lambda folder, names: [n for n in names if (Path(folder) / n).is_dir()]
    )
    for name, split in ImageFolder.scan(source).splits.items():
        taken: dict[int, int] = {}
        for image in split.images:
            taken[image.label] = taken.get(image.label, 0) + 1
            if image.label < classes and taken[image.label] <= images:
                place = out / FOLDERS[name] / image.key
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(image.path, place)
    return out


def trained(config: RunConfig, cache: Path, data: Path) -> dict[str, float]:
    """Train one student in a folder that is thrown away; return its numbers."""
    with tempfile.TemporaryDirectory() as out:
        summary = train(config, cache_dir=cache, data_dir=data, out=Path(out) / "run")
    space = summary["space"]["ood_test"]
    accuracies = (summary["id_test_accuracy"], summary["ood_test_accuracy"])
    return dict(zip(NAMES, (*accuracies, *(space[name] for name in SPACE)), strict=True))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this benchmark takes."""
    parser.add_argument("--data", type=Path, help="An image folder with ID and OOD tests.")
    parser.add_argument(
        "--classes", type=positive, default=ALL, help="The first classes of every split alone."
    )
    parser.add_argument("--images", type=positive, default=ALL, help="The first images of every class alone.")
    parser.add_argument("--model", default=TEACHER)
    parser.add_argument("--recipe", default=str(RECIPE))
    parser.add_argument("--views", type=positive, default=8)
    parser.add_argument("--scales", type=float, nargs="+", default=[0.5])
    parser.add_argument("--epochs", type=positive, default=14)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--device", default="auto")


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Train with and without views for every smallest crop and seed."""
    choose_device(args.device)
    model_config(args.model)
    settings = [f'train.device="{args.device}"', f"train.epochs={args.epochs}", *args.set]
    config = with_settings(load_recipe(args.recipe), settings)
    rows, details = [], []
    with tempfile.TemporaryDirectory() as scratch:
        data = _data(args, Path(scratch))
        for scale in args.scales:
            cache = Path(scratch) / f"cache-{scale}"
            options = FeatureOptions(
                model=args.model, device=args.device, views=args.views, views_scale=scale
            )
            cache_features(data, cache, options)
            runs: dict[bool, list[dict[str, float]]] = {False: [], True: []}
            for seed in range(args.rounds):
                for views, taken in runs.items():
                    own = [
                        f"data.scale_min={scale}",
                        f"data.views={str(views).lower()}",
                        f"train.seed={seed}",
                    ]
                    taken.append(trained(with_settings(config, own), cache, data))
            details.append(list(runs.values()))
            for views, taken in runs.items():
                over = {name: spread([run[name] for run in taken]) for name in NAMES}
                row = {"smallest crop": scale, "views": args.views if views else "none"}
                rows.append(row | {name: [one.mean, one.std or 0.0] for name, one in over.items() if one})
    return rows, details


def _data(args: argparse.Namespace, scratch: Path) -> Path:
    """Return the image folder: the drawn one, or that given, or a part of it."""
    data = args.data or scratch / "drawn"
    if args.data:
        ImageFolder.scan(data)  # what is wrong with it is told before a part of it is copied
    else:
        draw_dataset(data)
    if min(args.classes, args.images) == ALL:
        return data
    return part_of(data, scratch / "part", classes=args.classes, images=args.images)
