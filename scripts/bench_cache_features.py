"""Stage 1 against the bare teacher: what decoding, batching and writing cost beside encode_image.

    python scripts/bench_cache_features.py --data DATA --model ViT-L-14-quickgelu --weights FILE.pt

Without --weights it saves random ones. A is encode_image in a loop over tensors that are preprocessed
already; B is the stage-1 run on the same images: decode, preprocess, embed, write. They take turns, A B
A B; start-up (loading the model, embedding texts) is in neither. Prints a table, writes JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch

from cache.build import BuildOptions, build_cache
from cache.devices import choose_device
from cache.files import write_json
from cache.images import ImageFolder, SplitImages, load_rgb
from cache.spec import CacheSpec
from cache.teacher import Teacher, load_teacher
from distill.runlog import hardware, versions


def random_weights(model: str, folder: Path) -> Path:
    """Save a randomly initialised model's state dict."""
    import open_clip

    torch.manual_seed(0)
    path = folder / f"{model}-random.pt"
    torch.save(open_clip.create_model(model).state_dict(), path)
    return path


def first_images(data: Path, count: int) -> ImageFolder:
    """Return DATA's training split cut to its first images, spread over the classes."""
    folder = ImageFolder.scan(data)
    train = folder.split("train")
    step = max(len(train.images) // count, 1)
    chosen = train.images[::step][:count]
    split = SplitImages(name="train", class_names=train.class_names, images=chosen)
    return ImageFolder(path=data, splits={"train": split})


def bare(teacher: Teacher, batches: list[torch.Tensor]) -> float:
    """Return the seconds that encode_image takes over tensors at hand."""
    began = time.perf_counter()
    for batch in batches:
        teacher.embed_images(batch)
    return time.perf_counter() - began


def stage_one(teacher: Teacher, folder: ImageFolder, out: Path, options: BuildOptions) -> dict[str, float]:
    """Return the seconds of a whole stage-1 run, from the first image asked for to the last row written."""
    shutil.rmtree(out, ignore_errors=True)
    summary = build_cache(folder, out, teacher, CacheSpec(teacher=teacher.spec), banks=[], options=options)
    seconds = summary.seconds
    return {
        "all": seconds.waiting + seconds.teacher + seconds.writing,
        "waiting": seconds.waiting,
        "teacher": seconds.teacher,
        "writing": seconds.writing,
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="ViT-L-14-quickgelu")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("artifacts/bench_cache_features.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        weights = args.weights or random_weights(args.model, Path(scratch))
        teacher = load_teacher(
            args.model,
            pretrained=str(weights),
            precision=args.precision,
            device=choose_device(args.device),
        )
        folder = first_images(args.data, args.images)
        images = folder.split("train").images
        pixels = torch.stack([teacher.transform(load_rgb(image.path)) for image in images])
        batches = list(pixels.split(args.batch_size))
        options = BuildOptions(batch_size=args.batch_size, workers=args.workers)
        bare(teacher, batches[:1])
        rounds = []
        for _ in range(args.rounds):
            a = bare(teacher, batches)
            b = stage_one(teacher, folder, Path(scratch) / "cache", options)
            rounds.append({"bare": a, **b, "ratio": b["all"] / a})
            print(f"bare {a:.2f} s   stage 1 {b['all']:.2f} s   ratio {b['all'] / a:.3f}", flush=True)
    n = len(images)
    result = {
        "model": args.model,
        "precision": teacher.spec.precision,
        "images": n,
        "rounds": rounds,
        "bare_images_per_s": n / statistics.median(r["bare"] for r in rounds),
        "stage_1_images_per_s": n / statistics.median(r["all"] for r in rounds),
        "ratio_median": statistics.median(r["ratio"] for r in rounds),
        "hardware": hardware(teacher.device),
        "versions": versions(),
        "platform": platform.platform(),
    }
    rate, ratio = result["stage_1_images_per_s"], result["ratio_median"]
    print(f"bare encode_image  {result['bare_images_per_s']:8.2f} images/s")
    print(f"stage 1            {rate:8.2f} images/s   time ratio {ratio:.3f}")
    write_json(args.out, result)
    print(json.dumps(result["hardware"]))


if __name__ == "__main__":
    main()
