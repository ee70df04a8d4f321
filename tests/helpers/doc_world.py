"""What the commands of README and docs run on: photos of flowers, a teacher, a cache, a run, a model, all very small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from conftest import write_image
from helpers.teachers import save_clip

COLOURS = {
    "rose": (200, 40, 60),
    "sunflower": (230, 190, 40),
    "tulip": (190, 60, 160),
    "daisy": (235, 235, 220),
    "orchid": (120, 50, 150),
}
ID, OOD = ("rose", "sunflower", "tulip"), ("daisy", "orchid")
STUDENT = "timm:test_resnet"


def make_world(root: Path) -> None:
    """Draw, embed, train and export what pages begin with: see ``THINGS`` of ``doc_distill.py``."""
    _draw(root)
    save_clip(root / "teacher", seed=0, text={"layers": 1})
    save_clip(root / "second", seed=1, text={"layers": 1})
    _student(root / "student.safetensors")
    _first_steps(root)


def _draw(root: Path) -> None:
    from distill.demo.episodes import draw_episodes

    rng = np.random.default_rng(0)
    rows = ["path,label,split"]
    for split, classes, count in (("train", ID, 12), ("val_on_train", ID, 5), ("val", OOD, 12)):
        for name in classes:
            for i in range(count):
                path = root / "photos" / split / name / f"{split}_{i}.jpg"
                write_image(path, COLOURS[name], rng, side=64)
                rows.append(f"{path},{name},{split}")
    names = sorted(COLOURS)
    photos = root / "photos"
    (photos / "label2text.txt").write_text("".join(f"{n} {i} {n}\n" for i, n in enumerate(names, start=1)))
    (photos / "chatgpt.txt").write_text("".join(f"{n}\tA {n} is a flower.\n" for n in names))
    (photos / "captions.jsonl").write_text(
        "".join(
            json.dumps({"key": f"{path.parent.name}/{path.name}", "caption": f"a {path.parent.name} outside"})
            + "\n"
            for path in sorted(photos.rglob("*.jpg"))
        )
    )
    for i in range(12):
        write_image(root / "pool" / f"{i}.jpg", COLOURS[names[i % len(names)]], rng, side=64)
    (root / "list.csv").write_text("\n".join(rows) + "\n")
    draw_episodes(root / "episodes", image_size=32, train=16, id_test=6, ood_test=14)


def _student(file: Path) -> None:
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(timm.create_model(STUDENT.removeprefix("timm:"), pretrained=False).state_dict(), file)


def _first_steps(root: Path) -> None:
    from cache.build.from_folder import FeatureOptions, cache_features
    from distill.config import RunConfig
    from distill.deploy.export import export_run
    from distill.settings import with_settings
    from distill.train.start import train

    options = FeatureOptions(
        model=f"local-dir:{root / 'teacher'}", device="cpu", workers=0, keep_text_tower=True
    )
    cache_features(root / "photos", root / "cache", options)
    settings = (f"student.arch={STUDENT}", "student.image_size=32", "train.epochs=2", "train.batch_size=6",
                "train.device=cpu", "data.workers=0", "loss.mse=1", "data.id_val=0.2", "optim.lr=0.01")  # fmt: skip
    config = with_settings(RunConfig(), settings)
    train(config, cache_dir=root / "cache", data_dir=root / "photos", out=root / "run")
    export_run(root / "run", root / "model")
