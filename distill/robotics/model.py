"""A student of episodes, several labels each: how it is built, what it learns from, how it is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from cache import EmbeddingCache
from cache.sources.samples import DataFolder
from distill.config import RunConfig
from distill.data.batch import Batch
from distill.data.frames import FrameAugment
from distill.precision import autocast
from distill.robotics.metrics import ObjectCounts
from distill.robotics.objective import episode_objective
from distill.robotics.scores import (
    closed_set_logits,
    local_pair_logits,
    margins,
    pair_logits,
    probabilities,
    scores,
)
from distill.robotics.student import EpisodeStudent, build_episode_student
from distill.robotics.texts import open_pair_texts
from distill.student.build import NEW, Origin, start_of
from distill.student.classifier import closed_set_columns
from distill.student.heads import Head

_GROUPS = {"": "", "id_objects_": " ID objects", "ood_objects_": " OOD objects"}


@dataclass(frozen=True, kw_only=True)
class EpisodeModel:
    """A student with one head, whose texts are pairs; none for the closed-set student.

    ``class_names`` are the objects that it is trained on, ``amp_dtype`` what it computes in (None: float32).
    """

    config: RunConfig
    cache: EmbeddingCache
    folder: DataFolder
    device: torch.device
    augment: FrameAugment
    class_names: tuple[str, ...]
    heads: tuple[Head, ...]
    student: EpisodeStudent
    amp_dtype: torch.dtype | None

    unit: ClassVar[str] = "episodes"
    headline: ClassVar[str] = "accuracy, precision and recall by counts, mean average precision in percent"
    measure: ClassVar[str] = "mean average precision"
    chosen_by: ClassVar[str] = "id_val_average_precision"
    curves: ClassVar[tuple[tuple[str, str], ...]] = tuple(
        (f"{split}{words} AP", f"{split}_{group}average_precision")
        for split in ("id_val", "id_test", "ood_test", "ood_query")
        for group, words in _GROUPS.items()
    )

    @staticmethod
    def open_heads(config: RunConfig, cache: EmbeddingCache, device: torch.device) -> tuple[Head, ...]:
        """Return the head that the texts of the config classify; none for the closed-set student.

        UserError if the cache has no such banks, or keeps no text tower where prompts are to be learnt.
        """
        if config.train.closed_set:
            return ()
        texts = open_pair_texts(cache, config, device)
        return (Head(name=config.teachers[0], cache=cache, start=0, stop=cache.embed_dim, texts=texts),)

    @staticmethod
    def build(
        config: RunConfig,
        cache: EmbeddingCache,
        folder: DataFolder,
        heads: Sequence[Head],
        *,
        starting: bool,
        origin: Origin = NEW,
    ) -> EpisodeStudent:
        """Return a student of the config's outputs; ``starting`` from the weights that it names."""
        return build_episode_student(
            **start_of(config.student, starting=starting),
            embed_dim=heads[-1].stop if heads else 2 * len(folder.class_names),
            local=config.robotics.local,
            with_depth=cache.episode_keys.with_depth,
            origin=origin,
        )

    def forward(self, class_names: Sequence[str]) -> Callable[[Tensor], Tensor]:
        """Return what takes frames to what is judged: the embedding, then a margin an object, [B, D+C].

        The texts are those of now, whatever is learnt afterwards.
        """
        text, columns = self.texts(class_names), self._columns_of(class_names)

        def outputs(frames: Tensor) -> Tensor:
            with autocast(self.amp_dtype, self.device):
                both = self.student(self.augment.plain(frames))
            return torch.cat([both[0].float(), margins(self._logits(both, text, columns))], dim=1)

        return outputs

    def texts(self, class_names: Sequence[str]) -> Tensor | None:
        """Return raw embeddings [2, C, D] of objects' texts, the positive first; None for a closed set."""
        return self.heads[0].texts(class_names, torch.empty(0)) if self.heads else None

    def _columns_of(self, class_names: Sequence[str]) -> Tensor:
        columns = closed_set_columns(self.folder.class_names, class_names)
        return torch.tensor(columns, device=self.device)

    @cached_property
    def _columns(self) -> Tensor:
        return self._columns_of(self.class_names)

    def _logits(
        self, outputs: tuple[Tensor, Tensor | None], text_2CD: Tensor | None, columns_C: Tensor
    ) -> Tensor:
        """Return each object's pair of logits [2, B, C]: by texts, or a closed set's own."""
        embeddings, located = outputs
        if text_2CD is None:
            return closed_set_logits(embeddings if located is None else located, columns_C)
        if located is None:
            return pair_logits(embeddings, text_2CD, temperature=self.config.loss.temperature)
        return local_pair_logits(located, text_2CD, temperature=self.config.loss.temperature)

    def losses(self, outputs: tuple[Tensor, Tensor | None], batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Return a batch's losses with their ``total``, and its scores [B, C] without gradient."""
        text = self.texts(self.class_names)
        logits = self._logits(outputs, text, self._columns)
        bias, probability_BC = self.student.score_bias, probabilities(logits)
        terms = episode_objective(
            probability_BC,
            batch.label_B,
            bias,
            self.config.loss,
            self.config.robotics,
            student_BD=outputs[0] if text is not None else None,
            teacher_BD=batch.targets[0].teacher_BD if text is not None else None,
        )
        return terms, scores(probability_BC.detach(), bias.detach())

    def counts(self, state: dict[str, Any]) -> ObjectCounts:
        """Return an epoch's counts, which go on from ``state``; that may be empty."""
        threshold = self.config.robotics.threshold
        if state:
            return ObjectCounts(**state, threshold=threshold)
        return ObjectCounts.none(self.device, threshold=threshold)
