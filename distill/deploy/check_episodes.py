"""What an exported graph does beside the student of episodes it came from: on the test splits, by object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cache.sources.decoding import UnreadableImage
from cache.sources.episodes import EpisodeSample
from distill.deploy.check import (
    BATCH,
    Judged,
    Written,
    distances,
    judged_of,
    places_of,
    readable,
    tests_or_train,
    with_compared,
)
from distill.deploy.class_sets import ClassSet
from distill.deploy.episode_model import object_margins, prepared_frames
from distill.deploy.info import ModelInfo
from distill.deploy.model import Embed
from distill.judge.model import judged_objects
from distill.judge.trained_run import TrainedRun
from distill.robotics.metrics import EpisodeResult
from distill.robotics.scores import local_pair_logits, margins

Rows = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class JudgedEpisodes(Judged):
    """The episodes of one split that a graph is judged on.

    ``embeddings`` [N, L, D] are unit rows of its locations, ``labels`` [N, K] 0 and 1, ``pair`` [2, K, D] the
    unit rows of the objects' texts; ``student`` is the result of the student.
    """

    pair: Rows
    student: EpisodeResult


@dataclass(frozen=True, kw_only=True)
class EpisodeCheck:
    """What the files of a student of episodes are compared with; ``classes`` is how many objects it knows."""

    trained: TrainedRun
    judged: dict[str, JudgedEpisodes]
    classes: int

    def measured(self, info: ModelInfo, file: Written) -> ModelInfo:
        """Return ``info`` with what a file does."""
        splits = {
            split: episodes_compared(self.trained, judged, info, file.embed)
            for split, judged in self.judged.items()
        }
        return with_compared(info, file, splits, self.classes)


def judged_episodes(
    trained: TrainedRun, student: Embed, banks: Sequence[ClassSet], *, most: int
) -> dict[str, JudgedEpisodes]:
    """Return the run's test splits with the student's embeddings, ``most`` episodes of each.

    Without any they are of id_val, else of train. ``banks`` have the positive and the negative text of every
    object.
    """
    judged = {}
    for split in tests_or_train(trained):
        some = judged_of(trained, split, student, most=most)
        pair = np.stack([bank.embeddings[places_of(bank, split.class_names)] for bank in banks])
        logits = local_pair_logits(
            torch.from_numpy(some.embeddings),
            torch.from_numpy(pair),
            temperature=trained.config.loss.temperature,
        )
        student_says = judged_objects(trained.model, [(margins(logits), some.labels)], some.split)  # type: ignore[arg-type]
        judged[split.name] = JudgedEpisodes(**vars(some), pair=pair, student=student_says)
    return judged


def prepared_batches(samples: Sequence[EpisodeSample], info: ModelInfo) -> Iterator[Rows]:
    """Yield episodes as a shipped model takes them, [B, C, S, S]; what cannot be read is left out."""
    batch: list[Rows] = []
    for sample in samples:
        try:
            batch.append(prepared_frames(sample.frames(), info.preprocessing))
        except UnreadableImage:
            continue
        if len(batch) == BATCH:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


def episodes_compared(
    trained: TrainedRun, judged: JudgedEpisodes, info: ModelInfo, embed: Embed
) -> dict[str, Any]:
    """Return how well a graph finds objects, and how far it and what it finds are from the student.

    Metrics are those of :class:`distill.robotics.metrics.EpisodeResult`, of all objects, and the average
    precision also of ID and OOD ones; ``other_data`` is there where it is not what the run was judged on.
    """
    embeddings = np.concatenate([embed(images) for images in prepared_batches(readable(judged.split), info)])
    margin = torch.from_numpy(object_margins(embeddings, judged.pair, info.temperature))
    result = judged_objects(trained.model, [(margin, judged.labels)], judged.split)  # type: ignore[arg-type]
    return {
        "episodes": len(embeddings),
        "of": judged.of,
        "objects": len(judged.split.class_names),
        **result.groups["all"],
        **{
            f"{group}_average_precision": metrics["average_precision"]
            for group, metrics in result.groups.items()
            if group != "all" and "average_precision" in metrics
        },
        "student_average_precision": judged.student.groups["all"]["average_precision"],
        **distances(judged, embeddings),
    }
