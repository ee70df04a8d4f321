"""``distill demo``: the whole way in a minute or two, from drawn pictures to a model that is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cache.build.from_folder import FeatureOptions, cache_features
from cache.runtime.errors import UserError
from cache.runtime.progress import Progress
from distill.config import RunConfig
from distill.demo.scenes import draw_dataset
from distill.demo.unlabelled import UNKNOWN, draw_new, draw_pool, draw_unknown
from distill.demo.words import CLASSES
from distill.deploy.export import export_run
from distill.deploy.export_options import ExportOptions
from distill.deploy.info import NAME as MODEL_JSON
from distill.deploy.model import Model
from distill.deploy.onnx_door import check_can_export
from distill.deploy.predict import predict
from distill.record.run_files import CONFIG
from distill.settings import load_recipe, with_part
from distill.train.start import train

HERE = Path(__file__).parent
RECIPE, TEACHER, TRUNK = HERE / "demo.toml", HERE / "teacher", HERE / "trunk.safetensors"
# What nothing was learnt from: a class that no label names.
ASKED = next(one for one in CLASSES if one.name == "striped blue star")
TESTS = ("id_test", "ood_test")


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute by one thread: others add little to networks this small, and on a busy machine wait long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_thread()
def run_demo(out: Path, *, epochs: int, seed: int, device: str, progress: Progress) -> dict[str, Any]:
    """Draw, cache, take a head by ridge, train, export, and ask the model of a new picture.

    Run again, it goes on: what is drawn, cached, trained or exported already is used. UserError where ``out``
    has a student of other settings.

    Returns
    -------
    dict
        ``accuracy``: percent right by who and test split, among its own classes and among all;
        ``calibration``: by split; where onnxruntime is there, which runs it, what the model says:
        ``none_of_these``, ``asked``; ``files``: where things are.
    """
    data, cache, run = out / "data", out / "cache", out / "runs" / "student"
    config = config_of(epochs=epochs, seed=seed, device=device)
    check_same(run, config)
    draw(data, out / UNKNOWN, progress)
    progress.note("the teacher looks at every picture, once")
    progress.start(0, "the teacher")
    options = FeatureOptions(model=f"local-dir:{TEACHER}", device=device)
    cache_features(data, cache, options, progress=progress)
    summary = train(
        config,
        cache_dir=cache,
        data_dir=data,
        out=run,
        resume_run=(run / CONFIG).is_file(),
        progress=progress,
    )
    places = {"pictures": data, "cache": cache, "run": run, "model": out / "model"}
    result = {"accuracy": told(summary), "calibration": calibration_of(summary)}
    try:
        check_can_export()
    except UserError as error:
        progress.note(f"no model is written: {error}")
        del places["model"]
    else:
        result |= asked(run, places["model"], out, progress)
    return {**result, "files": {what: str(place) for what, place in places.items()}}


def draw(data: Path, unknown: Path, progress: Progress) -> None:
    """Draw all pictures, unless they are there."""
    if (data / "label2text.txt").exists() and unknown.exists():
        return
    progress.note(f"drawing pictures into {data}: of 50 classes with labels, of 50 new ones, and a pool")
    draw_unknown(unknown)
    draw_pool(data)
    draw_dataset(data, progress=progress)  # what says that all is there comes last


def config_of(*, epochs: int, seed: int, device: str) -> RunConfig:
    """Return the recipe of the demo's student, which begins with the trunk that ships."""
    config = with_part(load_recipe(str(RECIPE)), "student", start=str(TRUNK))
    return with_part(config, "train", epochs=epochs, seed=seed, device=device)


def check_same(run: Path, config: RunConfig) -> None:
    """Refuse to go on with a student of other epochs, or another seed; UserError."""
    if not (run / CONFIG).is_file():
        return
    begun, asked = load_recipe(str(run / CONFIG)).train, config.train
    if (begun.epochs, begun.seed) != (asked.epochs, asked.seed):
        raise UserError(
            f"{run} is of {begun.epochs} epochs and seed {begun.seed}, not {asked.epochs} and {asked.seed}",
            fix="choose another --out.",
        )


def told(summary: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return percent right by who and split: among the split's own classes, and among all."""
    numbers = {
        "teacher": summary["teacher_metrics"],
        "head by ridge": summary["closed_form"],
        "trained student": summary,
    }
    names = [f"{split}{among}_accuracy" for among in ("", "_all") for split in TESTS]
    students = {who: {name: of[name] for name in names} for who, of in numbers.items()}
    classes = [summary["classes"][split] for split in TESTS]
    chances = [100 / count for count in (*classes, *[sum(classes)] * len(classes))]
    return {**students, "chance": dict(zip(names, chances, strict=True))}


def calibration_of(summary: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return by test split how far a probability among all classes is off, in points, before and after."""
    of_all = summary["calibration"]["among_all"]
    return {split: {when: of_all[split][when] for when in ("before", "ece")} for split in TESTS}


def asked(run: Path, model: Path, out: Path, progress: Progress) -> dict[str, Any]:
    """Export the student, unless that was done, and ask it about a picture of a class without labels."""
    new, unknown = out / "new.jpg", out / UNKNOWN
    if not (model / MODEL_JSON).is_file():
        progress.note("exporting")
        export_run(run, model, ExportOptions(unknowns=(str(unknown),)), progress=progress)
    draw_new(new, ASKED)
    opened = Model.open(model)
    (answer,) = predict(opened, [new], opened.class_set(), top=3)
    return {
        "none_of_these": opened.rejection().in_words(),
        "asked": {
            "picture": str(new),
            "shows": ASKED.name,
            "answers": [asdict(one) for one in answer.labels],
        },
    }
