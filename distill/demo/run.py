"""``distill demo``: the whole way in a few minutes, from drawn pictures to two students compared."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from cache.build.from_folder import FeatureOptions, cache_features
from cache.runtime.progress import Silent
from cache.sources.data import open_data
from distill.demo.scenes import draw_dataset
from distill.judge.evaluate import evaluate_teacher, metrics_of
from distill.record.run_files import CONFIG, SUMMARY
from distill.settings import load_recipe, with_settings
from distill.train.start import train

RECIPE = Path(__file__).parent / "demo.toml"
CLS_ALONE = ("loss.mse=0", "loss.im_cst=0", "loss.vlalign=0", "loss.cap=0")
STUDENTS = {"student, L-cls alone": ("cls", CLS_ALONE), "student, full method": ("full", ())}


class Lines(Silent):
    """Notes alone, as lines of text: the demo's steps are short."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def note(self, message: str) -> None:
        """Pass a line on."""
        self._say(f"  {message}")


def run_demo(out: Path, *, epochs: int, seed: int, device: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Draw, cache, train with L-cls alone and with the full method, and compare.

    Run again, it goes on: what is drawn, cached or trained already is used.

    Returns
    -------
    dict
        ``accuracy``: percent by who and split (teacher, students, chance); ``files``: where things are.
    """
    data, cache = out / "data", out / "cache"
    if not (data / "label2text.txt").exists():
        say(f"drawing pictures into {data}")
        draw_dataset(data)
    say(f"embedding them once with the small teacher into {cache}")
    with as_file(files("distill.demo") / "teacher") as teacher:
        options = FeatureOptions(model=f"local-dir:{teacher}", device=device)
        summary = cache_features(data, cache, options, progress=Lines(say))
    say(f"  {summary.rows:,} images, {summary.new_rows:,} of them embedded now")
    config = with_settings(
        load_recipe(str(RECIPE)), [f"train.epochs={epochs}", f"train.seed={seed}", f'train.device="{device}"']
    )
    judged = evaluate_teacher(cache)
    of_teacher = {name: metrics_of(judged)[f"{name}_accuracy"] for name in judged}
    accuracy = {"teacher": of_teacher}
    runs = {}
    for who, (name, settings) in STUDENTS.items():
        runs[who] = out / "runs" / f"{name}-{epochs}-epochs-seed-{seed}"
        say(f"training the {who}, into {runs[who]}")
        if (runs[who] / SUMMARY).exists():
            say("  trained already")
        result = train(
            with_settings(config, settings),
            cache_dir=cache,
            data_dir=data,
            out=runs[who],
            resume_run=(runs[who] / CONFIG).exists(),
            progress=Lines(say),
        )
        accuracy[who] = {split: result[f"{split}_accuracy"] for split in ("id_test", "ood_test")}
    folder = open_data([data])
    accuracy["chance"] = {split: 100 / len(folder.split(split).classes) for split in ("id_test", "ood_test")}
    places = {"pictures": str(data), "cache": str(cache)}
    places |= {f"curves of the {who}": str(where / "curves.png") for who, where in runs.items()}
    return {"accuracy": accuracy, "files": places}
