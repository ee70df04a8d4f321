"""Few-shot on episodes: what ``distill robotics fewshot`` calls."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cache.runtime.atomic_files import remove_temporaries, write_json
from cache.runtime.errors import UserError
from cache.runtime.locks import only_writer
from cache.runtime.progress import Progress, Silent
from distill.checkpoint import read_checkpoint, weights_digest
from distill.config import FewShotConfig, RunConfig
from distill.data.stream import EvalSplit
from distill.data.support import QUERY
from distill.fewshot.run import check_start, same_data
from distill.judge.trained_run import checkpoint_file
from distill.record.drawing import drawing
from distill.robotics.evaluate import open_trained_episodes
from distill.robotics.session import episode_pixels, splits_to_judge, support_episodes
from distill.robotics.train import run
from distill.settings import from_toml, with_part, with_settings
from distill.spread import as_columns
from distill.train.loop import CONFIG, SUMMARY

RESULTS, PLOT = "fewshot.json", "fewshot.png"
# The paper's few-shot recipe.
EPOCHS, BATCH_SIZE, SCHEDULE = 20, 46, "onecycle"
LEARNING_RATES = {"sgd": 5e-4, "adamw": 2e-4}
HEADLINE = "average_precision"


@dataclass(frozen=True, kw_only=True)
class EpisodeFewShotOptions:
    """``episodes`` are the numbers of OOD episodes to learn from; ``settings`` change the recipe."""

    episodes: tuple[int, ...]
    support_seeds: tuple[int, ...] = ()
    settings: tuple[str, ...] = ()
    checkpoint: str = "last"
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One number of episodes and one seed: metrics of the query before and after, and of the ID episodes.

    ``data`` and ``start`` name the data and the weights that it started from.
    """

    episodes: int
    support_seed: int
    query_episodes: int
    before: dict[str, dict[str, float]]
    after: dict[str, dict[str, float]]
    run: str
    data: str
    start: str


def few_shot_episodes(
    source: Path,
    out: Path,
    options: EpisodeFewShotOptions,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Finetune a run with some OOD episodes beside the training ones; write ``fewshot.json`` and a plot.

    The support is the first episodes sorted by key, or those that a seed draws; what is left is the query
    (``ood_query``). Batches are mixed as :func:`distill.data.training_data.mixed_batches` says. Each
    finetuned student is a run of its own below ``out``: run again, what is trained is used.

    Raises
    ------
    UserError
        If the run, its episodes and its cache do not fit, or are not those that it was trained with; if too
        few episodes would be left; if ``out`` holds runs that started from other weights or data.
    """
    progress = progress or Silent()
    trained = open_trained_episodes(
        source, data_dir=data_dir, cache_dir=cache_dir, checkpoint=options.checkpoint, device=options.device
    )
    if trained.judge.config.fewshot.shots:
        raise UserError(f"{source} is a few-shot run itself", fix="give the run that it started from.")
    file = checkpoint_file(source, options.checkpoint)
    config = from_toml(read_checkpoint(file)["config"], where=str(source))
    folder = trained.judge.folder
    identity, start = same_data(trained, source), weights_digest(file)
    supports = [
        FewShotConfig(shots=count, support_seed=seed)
        for count in sorted(set(options.episodes))
        for seed in options.support_seeds or (-1,)
    ]
    for support in supports:  # what is missing is found before hours of training
        support_episodes(trained.cache, folder.split("ood_test"), support)
        check_start(out / _called(support), identity, start)
    with only_writer(out):
        remove_temporaries(out)
        draws = []
        for support in supports:
            keys = support_episodes(trained.cache, folder.split("ood_test"), support)
            judged = {name: (records, names) for name, records, names in splits_to_judge(folder, (), keys)}
            records, names = judged[QUERY]
            query = EvalSplit(
                name=QUERY, pixels=episode_pixels(records, config, 0, strict=False), class_names=names
            )
            before = trained.judge.judged(query)
            of_draw = out / _called(support)
            if (of_draw / SUMMARY).exists():
                progress.note(f"{of_draw} is trained already")
            summary = run(
                episode_finetune_config(
                    config, start=file.resolve(), support=support, settings=options.settings
                ),
                cache_dir=trained.cache.path,
                data_dir=folder.path,
                out=of_draw,
                resume_run=(of_draw / CONFIG).exists(),
                progress=progress,
                command=sys.argv,
            )
            draws.append(
                Draw(
                    episodes=support.shots,
                    support_seed=support.support_seed,
                    query_episodes=before.episodes,
                    before=before.groups,
                    after=_groups(summary),
                    run=str(of_draw),
                    data=identity.digest(),
                    start=start,
                )
            )
        results: dict[str, Any] = {
            "run": str(source),
            "data": identity.to_json(),
            "start": start,
            "headline": "mean average precision in percent on the OOD episodes that are not support",
            "table": _table(draws),
            "draws": [asdict(draw) for draw in draws],
        }
        write_json(out / RESULTS, results)
        _draw_plot(out / PLOT, results["table"], title=f"{source.name}: few-shot")
    return results


def episode_finetune_config(
    config: RunConfig, *, start: Path, support: FewShotConfig, settings: Sequence[str] = ()
) -> RunConfig:
    """Return the paper's few-shot finetuning of a run, from ``start``'s weights on; then ``settings``.

    20 epochs of OneCycle in batches of 46, learning rate 5e-4 with SGD (2e-4 with AdamW).
    """
    config = with_part(config, "train", epochs=EPOCHS, batch_size=BATCH_SIZE)
    config = with_part(config, "optim", schedule=SCHEDULE, lr=LEARNING_RATES[config.optim.name])
    config = with_part(config, "student", pretrained=False, weights="")
    config = with_settings(config, settings)
    return replace(config, fewshot=replace(support, start=str(start)))


def _called(support: FewShotConfig) -> str:
    drawn = "" if support.support_seed < 0 else f"-seed-{support.support_seed}"
    return f"episodes-{support.shots}{drawn}"


def _groups(summary: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return a summary's metrics of the query by group."""
    groups: dict[str, dict[str, float]] = {}
    for group in ("id_objects", "ood_objects", "all"):
        start = f"{QUERY}_{'' if group == 'all' else group + '_'}"
        own = {name.removeprefix(start): value for name, value in summary.items() if name.startswith(start)}
        groups[group] = {
            name: value
            for name, value in own.items()
            if name in ("accuracy", "precision", "recall", HEADLINE)
        }
    return groups


def _table(draws: Sequence[Draw]) -> list[dict[str, Any]]:
    """Return a row for every number of episodes: means over its draws, and the deviation of several."""
    rows = []
    for count in sorted({draw.episodes for draw in draws}):
        own = [draw for draw in draws if draw.episodes == count]
        row: dict[str, Any] = {"episodes": count, "draws": len(own)}
        for when in ("before", "after"):
            for group in ("all", "id_objects", "ood_objects"):
                values = [getattr(draw, when).get(group, {}).get(HEADLINE) for draw in own]
                known = [value for value in values if value is not None]
                row |= as_columns(f"{when}_{group}", known)
        rows.append(row)
    return rows


def _draw_plot(path: Path, table: Sequence[dict[str, Any]], *, title: str) -> None:
    """Draw average precision over the number of episodes, as a PNG."""
    with drawing(path, (6, 4.2)) as (_, axes):
        counts = [row["episodes"] for row in table]
        for group, colour in (("id_objects", "C0"), ("ood_objects", "C1")):
            for when, style, words in (("before", "--", "before"), ("after", "-", "with the episodes")):
                values = [row[f"{when}_{group}"] for row in table]
                if None not in values:
                    spread = [row[f"{when}_{group}_std"] or 0.0 for row in table]
                    label = f"{group.partition('_')[0].upper()} objects, {words}"
                    axes.errorbar(
                        counts,
                        values,
                        yerr=spread,
                        color=colour,
                        linestyle=style,
                        marker="o",
                        capsize=3,
                        label=label,
                    )
        axes.set(xlabel="OOD episodes learnt from", ylabel="mean average precision (%)", title=title)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.grid(alpha=0.3)
        axes.legend()
