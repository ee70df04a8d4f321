"""Finetuning a trained run with a few images of every OOD class, as the paper does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cache.runtime.progress import Progress
from distill.config import SCRATCH, FewShotConfig, RunConfig
from distill.data.support import QUERY
from distill.headline import headline
from distill.judge.evaluate import Result, SplitResult
from distill.judge.trained_run import TrainedRun
from distill.record.run_files import CONFIG, SUMMARY
from distill.robotics.metrics import EpisodeResult
from distill.settings import with_part, with_settings
from distill.train.start import train

# The paper's: 20 epochs of OneCycle from the trained weights, by the student's optimiser.
EPOCHS, SCHEDULE = 20, "onecycle"
LEARNING_RATES = {"sgd": 1e-3, "adamw": 2e-4}
EPISODE_LEARNING_RATES, EPISODE_BATCH_SIZE = {"sgd": 5e-4, "adamw": 2e-4}, 46
# Groups of objects of an episode, and what a table has of each.
GROUPS, PRECISION = ("all", "id_objects", "ood_objects"), "average_precision"


def finetune_config(
    config: RunConfig,
    *,
    start: Path,
    support: FewShotConfig,
    settings: Sequence[str] = (),
    episodes: bool = False,
) -> RunConfig:
    """Return the paper's few-shot finetuning of a run: its own config from ``start``'s weights on.

    20 epochs of OneCycle, learning rate 1e-3 with SGD or 2e-4 with AdamW, with another optimiser a tenth of
    the run's own; of episodes in batches of 46, 5e-4 with SGD. The trunk is trained from the first epoch
    on, the head goes on from the run's; one of ``train.head_only`` makes its head anew, with the support.
    Then ``settings`` (``section.key=value``) are applied; it is judged at the size that the run is.
    """
    rates = EPISODE_LEARNING_RATES if episodes else LEARNING_RATES
    batches = {"batch_size": EPISODE_BATCH_SIZE} if episodes else {}
    lr = rates.get(config.optim.name, config.optim.lr / 10)
    config = with_part(config, "student", start=SCRATCH, freeze_epochs=0, head_start="random")
    config = with_part(config, "train", epochs=EPOCHS, **batches)
    config = with_part(config, "optim", schedule=SCHEDULE, lr=lr, warmup=0.0)
    config = with_part(config, "eval", choose=False)
    config = with_settings(config, settings)
    return replace(config, fewshot=replace(support, start=str(start)))


def finetuned(trained: TrainedRun, config: RunConfig, folder: Path, progress: Progress) -> dict[str, Any]:
    """Return the summary of a finetuned student, which is trained unless it is already."""
    if (folder / SUMMARY).exists():
        progress.note(f"{folder} is trained already")
    return train(
        config,
        cache_dir=trained.cache.path,
        data_dir=trained.folder.given,
        out=folder,
        resume_run=(folder / CONFIG).exists(),
        progress=progress,
        decoder=trained.decoder,
        code=trained.origin.code.path if trained.origin.code else None,
    )


def scores_of(
    before: Result, summary: dict[str, Any]
) -> tuple[dict[str, float | None], dict[str, dict[str, dict[str, float]]]]:
    """Return the table's columns of one draw, and of episodes every metric of every group of objects."""
    if isinstance(before, SplitResult):
        told = {split: headline(summary, split) for split in (QUERY, "id_test")}
        return {"before": before.headline, **told}, {}
    assert isinstance(before, EpisodeResult)
    metrics = ("accuracy", "precision", "recall", PRECISION)
    starts = {group: f"{QUERY}_{'' if group == 'all' else group + '_'}" for group in GROUPS}
    after = {
        group: {name: summary[start + name] for name in metrics if start + name in summary}
        for group, start in starts.items()
    }
    by_group = {"before": before.groups, "after": after}
    columns = {
        f"{when}_{group}": groups.get(group, {}).get(PRECISION)
        for when, groups in by_group.items()
        for group in GROUPS
    }
    return columns, by_group
