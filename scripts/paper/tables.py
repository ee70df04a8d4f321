"""The paper's tables for one data set: every variant with several seeds, then mean and deviation.

python scripts/paper/tables.py --data DATA --cache CACHE --out OUT [--recipe resnet18] [--seeds 0,1,2]

Each training is a run folder below OUT; run again, what is trained is used and what was stopped goes on.
Results: OUT/results.md, OUT/results.json. Losses are added one by one; descriptions and captions come
on top of all of them where the cache has them; few-shot starts from the runs with all losses, and with
descriptions where there are any. Settings (--set) hold for every training.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from cache import EmbeddingCache
from cache.runtime.atomic_files import replacing, write_json
from cache.runtime.errors import UserError
from cache.runtime.progress import progress_for
from distill.config import RunConfig
from distill.fewshot.run import FewShotOptions, few_shot
from distill.judge.evaluate import evaluate_teacher
from distill.settings import load_recipe, with_settings
from distill.spread import spread
from distill.train.images import CONFIG, run

OFF = tuple(f"loss.{name}=0" for name in ("cls", "mse", "mse_raw", "im_cst", "vlalign", "cap"))
# As the paper's commands have it: k = 256, images that the teacher gets wrong left out.
VLALIGN = ("loss.vlalign=1", "loss.vlalign_k=256", "loss.vlalign_filter=true")
STEPS = (("loss.cls=1",), ("loss.mse=1",), ("loss.im_cst=1",), VLALIGN)
START_OF_FEWSHOT = ("descriptions", "4-losses")
COLUMNS = ("id_test", "ood_test", "ood_query")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A row of the table: its name, what it sets, and what the cache must hold."""

    name: str
    title: str
    settings: tuple[str, ...]
    needs: str = ""


def variants() -> list[Variant]:
    """Return the zero-shot rows in the paper's order."""
    rows = [Variant(name="closed-set", title="closed set, no teacher", settings=("train.baseline=true",))]
    titles = ("L-cls", "+ L-mse", "+ L-im-cst", "+ L-vlalign")
    for count, title in enumerate(titles, start=1):
        added = tuple(setting for step in STEPS[:count] for setting in step)
        rows.append(Variant(name=f"{count}-losses", title=title, settings=(*OFF, *added)))
    everything = rows[-1].settings
    described = (*everything, 'text="descriptions"')
    rows.append(
        Variant(name="descriptions", title="+ descriptions", settings=described, needs="descriptions")
    )
    rows.append(
        Variant(
            name="captions",
            title="all losses + captions",
            settings=(*everything, "loss.cap=1"),
            needs="captions",
        )
    )
    return rows


def config_of(recipe: str, variant: Variant, settings: Sequence[str], seed: int) -> RunConfig:
    """Return a variant's config: the recipe, the variant's settings, then those of the command line."""
    return with_settings(load_recipe(recipe), [*variant.settings, *settings, f"train.seed={seed}"])


def lacks(cache: EmbeddingCache, need: str) -> bool:
    """Say whether a cache lacks what a variant needs."""
    if need == "captions":
        return cache.split("train").caption_embeddings is None
    return bool(need) and need not in cache.bank_names


def train(config: RunConfig, cache: Path, data: Path, out: Path) -> dict[str, Any]:
    """Train one student, or take it from where it stands; return its summary."""
    progress = progress_for(out.name)
    try:
        return run(
            config,
            cache_dir=cache,
            data_dir=data,
            out=out,
            resume_run=(out / CONFIG).exists(),
            progress=progress,
            command=sys.argv,
        )
    finally:
        progress.close()


def zero_shot(
    recipe: str, cache: Path, data: Path, out: Path, settings: Sequence[str], seeds: Sequence[int]
) -> tuple[list[dict[str, Any]], dict[str, list[Path]]]:
    """Train every variant with every seed; return the table's rows, and each variant's runs by its name."""
    opened, rows = EmbeddingCache.open(cache), []
    made: dict[str, list[Path]] = {}
    for variant in variants():
        if lacks(opened, variant.needs):
            rows.append({"title": variant.title, "skipped": f"the cache has no {variant.needs}"})
            continue
        runs = [out / f"{variant.name}-seed-{seed}" for seed in seeds]
        summaries = [
            train(config_of(recipe, variant, settings, seed), cache, data, folder)
            for seed, folder in zip(seeds, runs, strict=True)
        ]
        found = {c: [s[f"{c}_accuracy"] for s in summaries if f"{c}_accuracy" in s] for c in COLUMNS}
        rows.append({"title": variant.title, **found, "runs": [str(folder) for folder in runs]})
        made[variant.name] = runs
    return rows, made


def with_shots(runs: Sequence[Path], shots: int, settings: Sequence[str]) -> list[dict[str, Any]]:
    """Return the few-shot rows: the runs finetuned, and with retrieval where the cache has what it takes."""
    rows = []
    for method in ("finetune", "retrieval"):
        options = FewShotOptions(shots=(shots,), method=method, settings=tuple(settings))
        found: dict[str, list[float]] = {name: [] for name in COLUMNS}
        title = f"{shots}-shot {method}"
        try:
            for folder in runs:
                draw = few_shot(folder, folder / f"fewshot-{method}", options)["draws"][0]
                found["ood_query"].append(draw["ood_query"])
                if draw["id_test"] is not None:
                    found["id_test"].append(draw["id_test"])
        except UserError as error:
            if method == "finetune" or "--support-views" not in str(error):
                raise
            rows.append({"title": title, "skipped": "the cache has no support views"})
            continue
        rows.append({"title": title, **found})
    return rows


def said(values: Sequence[float]) -> str:
    """Return mean and deviation as a table has them."""
    found = spread(values)
    if found is None:
        return ""
    return f"{found.mean:.1f}" + (f" ± {found.std:.1f}" if found.std is not None else "")


def as_markdown(rows: Sequence[dict[str, Any]], about: str) -> str:
    """Return the table as Markdown."""
    lines = [about, "", "| | ID | OOD | OOD, less the support |", "|---|---|---|---|"]
    for row in rows:
        if "skipped" in row:
            lines.append(f"| {row['title']} | left out: {row['skipped']} | | |")
        else:
            cells = " | ".join(said(row.get(column, [])) for column in COLUMNS)
            lines.append(f"| {row['title']} | {cells} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--cache", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--recipe", default="resnet18", show_default=True)
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--shots", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="For every training. Repeatable.")
@click.option("--fewshot-set", "fewshot_settings", multiple=True, metavar="KEY=VALUE", help="For finetuning.")
def main(
    data: Path,
    cache: Path,
    out: Path,
    recipe: str,
    seeds: str,
    shots: int,
    settings: tuple[str, ...],
    fewshot_settings: tuple[str, ...],
) -> None:
    """Train what the paper's tables need and write them."""
    numbers = [int(seed) for seed in seeds.split(",")]
    try:
        teacher = evaluate_teacher(cache)
        rows: list[dict[str, Any]] = [
            {"title": "teacher", **{name: [result.accuracy] for name, result in teacher.items()}}
        ]
        trained, made = zero_shot(recipe, cache, data, out, settings, numbers)
        start = next(name for name in START_OF_FEWSHOT if name in made)
        rows += trained
        rows += with_shots(made[start], shots, fewshot_settings)
    except UserError as error:
        raise click.ClickException(str(error)) from error
    about = (
        f"Macro accuracy in percent, mean ± standard deviation of seeds {seeds}; recipe {recipe}"
        f"{''.join(f', {setting}' for setting in settings)}. {EmbeddingCache.open(cache).teacher['model']}."
    )
    write_json(out / "results.json", {"about": about, "rows": rows})
    text = as_markdown(rows, about)
    with replacing(out / "results.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
