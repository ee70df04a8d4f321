"""Small runs to be reported, and what is read of a report."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import COLOURS, make_cache, make_photos, write_image
from helpers.once import made_once

SMALL = [
    "student.arch=timm:test_resnet", "student.image_size=32", "train.epochs=2", "train.batch_size=6", "train.device=cpu",
    "optim.lr=0.01", "data.workers=0",
]  # fmt: skip
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="session")
def photo_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two settings with two seeds each, a data set with a hostile class name; to be read."""
    return made_once(tmp_path_factory, "photo_runs", _train_and_report) / "runs"


@pytest.fixture(scope="session")
def report_page(photo_runs: Path) -> Path:
    """The report of ``photo_runs``, made where neither photos nor cache were; to be read."""
    return photo_runs.parent / "page" / "report.html"


def _train_and_report(root: Path) -> None:
    from distill.config import RunConfig
    from distill.report.page import report
    from distill.settings import with_settings
    from distill.train.start import train as run

    photos = make_photos(root / "photos")
    # A folder cannot hold a slash; "</script>" is tried as a question below.
    for i in range(3):
        write_image(photos / "val" / HOSTILE / f"x_{i}.jpg", COLOURS["plum"], np.random.default_rng(i))
    cached = make_cache(root / "cache", photos)
    for name, settings in {"cls": [], "mse": ["loss.mse=1"]}.items():
        for seed in (0, 1):
            config = with_settings(RunConfig(), [*SMALL, *settings, f"train.seed={seed}"])
            run(
                config,
                cache_dir=cached.path,
                data_dir=photos,
                out=root / "runs" / f"{name}-{seed}",
                command=["distill", "train", HOSTILE],
            )
    (root / "runs" / "sweep.json").write_text(json.dumps({"question": "</script><script>alert(2)</script>?"}))
    # The page is made of the runs alone.
    for name in ("photos", "cache"):
        (root / name).rename(root / f"{name}-away")
    (root / "page").mkdir()
    report(root / "runs", root / "page" / "report.html")
    for name in ("photos", "cache"):
        (root / f"{name}-away").rename(root / name)


@pytest.fixture(scope="session")
def episode_runs(tmp_path_factory: pytest.TempPathFactory, episodes: Path, episode_cache: Path) -> Path:
    """Two settings of a student of episodes, with two seeds each; to be read."""
    from distill.settings import load_recipe, with_settings
    from distill.train.start import train as run

    def train(root: Path) -> None:
        for name, settings in {"mse": [], "clsonly": ["loss.mse=0", "loss.im_cst=0"]}.items():
            for seed in (0, 1):
                more = [*SMALL, "train.epochs=2", f"train.seed={seed}", *settings]
                config, out = with_settings(load_recipe("robotics_demo"), more), root / f"{name}-{seed}"
                run(config, cache_dir=episode_cache, data_dir=episodes, out=out)

    return made_once(tmp_path_factory, "episode_runs", train)


def made_up_run(folder: Path, seed: int, ood: float, *settings: str, began: int = 0, **more) -> None:
    """A finished run of two accuracies, as far as a report needs one."""
    folder.mkdir(parents=True)
    result = {"ood_test_accuracy": ood, "id_test_accuracy": ood + 10}
    from distill.config import RunConfig
    from distill.settings import to_toml, with_settings

    config = with_settings(RunConfig(), [*settings, f"train.seed={seed}"])
    (folder / "config.toml").write_text(to_toml(config))
    lines = [json.dumps({"epoch": epoch, **result, "lr": 0.1}) for epoch in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    told = {
        "teacher_metrics": {"ood_test_accuracy": 96.0},
        "classes": {"id_test": 4, "ood_test": 5},
        "per_class_accuracy": {},
        "seconds": 30.0,
        "hardware": {"cpu": "one"},
    }
    (folder / "summary.json").write_text(json.dumps(result | told | more))
    (folder / f"events.out.tfevents.{1000 + began}.here.1.0").touch()


def copied(runs: Path, tmp_path: Path) -> Path:
    """A copy of runs, to be changed."""
    return shutil.copytree(runs, tmp_path / "runs")


def swept(runs: Path, tmp_path: Path) -> Path:
    """The runs as a sweep leaves them: in its own order, and called as it calls them."""
    out = tmp_path / "swept"
    planned = [(point, seed) for point in ("mse-10", "cls-2") for seed in (0, 1)]
    for point, seed in planned:
        shutil.copytree(runs / f"{point[:3]}-{seed}", out / f"{point},seed={seed}")
    told = [{"name": f"{point},seed={seed}", "point": point} for point, seed in planned]
    (out / "sweep.json").write_text(json.dumps({"question": "Which?", "runs": told}))
    return out


def tables_of(markdown: str) -> list[dict[str, dict[str, str]]]:
    """Every table of a Markdown text: {first cell: {heading: cell}}."""
    tables = []
    for part in markdown.split("\n\n"):
        rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("|")]
        if rows:
            tables.append({row[0].strip(): dict(zip(rows[0], row, strict=False)) for row in rows[2:]})
    return tables


class Words(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data
