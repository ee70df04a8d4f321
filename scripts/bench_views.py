"""Does it help a student to see the very crops that its teacher saw? Students with and without --views.

    python scripts/bench_views.py
    python scripts/bench_views.py --data photos --classes 10 --images 30 --set loss.cap=0 --scales 0.08

Without --data the demo's pictures are drawn. For every smallest crop of --scales the teacher runs once, over
the images and over V crops of each; then for every seed one student learns from the images' own rows whatever
its crop, and one from the crop's. ID and OOD are macro accuracies in percent, the mean of the last epochs;
the others compare the student's embeddings with the teacher's (see distill.judge.space). Where the teacher
does not know the classes these alone mean something. --rounds is how many seeds there are. Prints means and
deviations over them, writes JSON.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from bench_parts import above_zero, listed, parser_of, run, whole, write_result
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
SPLITS = {"id": "id_test", "ood": "ood_test"}
SPACE = ("cosine", "linear_cka", "image_neighbours_10", "vlalign")


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


def metrics_of(summary: dict[str, Any]) -> dict[str, float]:
    """Return what is compared, by name."""
    found = {"seconds": summary["seconds"]}
    for short, split in SPLITS.items():
        found[f"{short}_accuracy"] = summary[f"{split}_accuracy"]
        found |= {f"{short}_{name}": summary["space"][split][name] for name in SPACE}
    return found


def trained(config: RunConfig, cache: Path, data: Path) -> dict[str, float]:
    """Train one student in a folder that is thrown away; return its metrics."""
    with tempfile.TemporaryDirectory() as out:
        return metrics_of(train(config, cache_dir=cache, data_dir=data, out=Path(out) / "run"))


def measure(args: argparse.Namespace, folder: Path) -> dict[str, list[dict[str, float]]]:
    """Return the metrics of every seed's student, by what it learnt from."""
    config = with_settings(
        load_recipe(args.recipe), [f'train.device="{args.device}"', f"train.epochs={args.epochs}", *args.set]
    )
    data = args.data or folder / "drawn"
    if args.data:
        ImageFolder.scan(data)  # what is wrong with it is found before a part of it is copied
    else:
        draw_dataset(data)
    if args.classes or args.images:
        data = part_of(data, folder / "part", classes=args.classes or 10**9, images=args.images or 10**9)
    found: dict[str, list[dict[str, float]]] = {}
    for scale in args.scales:
        cache = folder / f"cache-{scale}"
        options = FeatureOptions(model=args.model, device=args.device, views=args.views, views_scale=scale)
        cache_features(data, cache, options)
        for seed in range(args.rounds):
            for views in (False, True):
                settings = [
                    f"data.scale_min={scale}",
                    f"data.views={str(views).lower()}",
                    f"train.seed={seed}",
                ]
                name = f"scale {scale:g}, {args.views} views" if views else f"scale {scale:g}"
                row = trained(with_settings(config, settings), cache, data)
                found.setdefault(name, []).append(row)
                print(f"{name}, seed {seed}: {row['id_accuracy']:.1f} {row['ood_accuracy']:.1f}", flush=True)
    return found


def main() -> None:
    """Parse, measure, print."""
    parser = parser_of("bench_views", __doc__, rounds=3)
    parser.add_argument("--data", type=Path, help="An image folder with ID and OOD tests.")
    parser.add_argument("--classes", type=whole(1), help="The first classes of every split alone.")
    parser.add_argument("--images", type=whole(1), help="The first images of every class alone.")
    parser.add_argument("--model", default=TEACHER)
    parser.add_argument("--recipe", default=str(RECIPE))
    parser.add_argument("--views", type=whole(1), default=8)
    parser.add_argument("--scales", type=listed(above_zero(1)), default=[0.5])
    parser.add_argument("--epochs", type=whole(1), default=14)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    choose_device(args.device)
    model_config(args.model)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args, Path(folder))
    names = list(next(iter(found.values()))[0])
    table: dict[str, dict[str, Any]] = {name: {"n": args.rounds} for name in found}
    print(f"{'n, mean (deviation)':26}" + "".join(f"{arm:>24}" for arm in found))
    for name in names:
        line = f"{name:26}"
        for arm, rows in found.items():
            over = spread([row[name] for row in rows])
            assert over is not None
            table[arm][name] = {"mean": over.mean, "deviation": over.std}
            around = "" if over.std is None else f" ({over.std:.3f})"
            line += f"{f'{over.n}, {over.mean:.3f}{around}':>24}"
        print(line)
    write_result(args, {"table": table, "runs": found}, choose_device(args.device))


if __name__ == "__main__":
    run(main)
