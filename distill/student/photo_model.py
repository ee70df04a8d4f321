"""A student of photos, one label each: how it is built, what it learns from, how it is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cache import EmbeddingCache
from cache.runtime.devices import widest_float
from cache.sources.samples import DataFolder
from cache.sources.splits import MEAN
from distill.config import RunConfig
from distill.data.augment import TrainAugment
from distill.data.batch import Batch
from distill.data.support import ROWS_OF
from distill.data.teacher_texts import losses_of
from distill.headline import SET_ASIDE
from distill.losses import classification_loss, teacher_weights
from distill.metrics import ClassCounts
from distill.objective import distillation_objective, text_cosines
from distill.precision import autocast
from distill.student.build import NEW, Origin, build_student, check_eval_size, start_of
from distill.student.classifier import closed_set_columns
from distill.student.heads import Head, open_heads
from distill.student.names import family
from distill.student.stages import with_head


@dataclass(frozen=True, kw_only=True)
class PhotoModel:
    """A student with a head for every teacher, none for the closed-set student.

    ``class_names`` are those that it is trained on, ``amp_dtype`` what it computes in (None: float32).
    """

    config: RunConfig
    cache: EmbeddingCache
    folder: DataFolder
    device: torch.device
    augment: TrainAugment
    class_names: tuple[str, ...]
    heads: tuple[Head, ...]
    student: nn.Module
    amp_dtype: torch.dtype | None

    unit: ClassVar[str] = "images"
    open_heads: ClassVar[Callable[..., tuple[Head, ...]]] = staticmethod(open_heads)

    @property
    def has_texts(self) -> bool:
        """Whether it classifies: not where its first teacher has no texts. Then it is judged by cosines."""
        return not self.heads or self.heads[0].has_texts

    @property
    def measure(self) -> str:
        """What it is judged by."""
        return "macro accuracy" if self.has_texts else "mean cosine with the teacher"

    @property
    def headline(self) -> str:
        """The same, with its unit."""
        return f"{self.measure} in percent" if self.has_texts else self.measure

    @property
    def chosen_by(self) -> str:
        """The metric that chooses, of id_val."""
        return "id_val_accuracy" if self.has_texts else "id_val_cosine"

    @property
    def curves(self) -> tuple[tuple[str, str], ...]:
        """What is told of every split over the epochs, and its metric: of one class that among all.

        Of several heads it is the first, and on the tests the mean of all as well.
        """
        tests = ("id_test", "ood_test", "ood_query")
        names = ("train", *SET_ASIDE, *tests)
        if not self.has_texts:
            return tuple((f"{name} cosine", f"{name}_cosine") for name in names)
        of_one = {name for name, own in self.folder.classes.items() if len(own) == 1}
        told = [(name, name) for name in names]
        if sum(head.has_texts for head in self.heads) > 1:
            told += [(f"{name}, mean of heads", f"{name}@{MEAN}") for name in tests]
        return tuple(
            (f"{label} among all", f"{name}_all_accuracy")
            if ROWS_OF.get(split := name.partition("@")[0], split) in of_one
            else (label, f"{name}_accuracy")
            for label, name in told
        )

    @staticmethod
    def build(
        config: RunConfig,
        cache: EmbeddingCache,
        folder: DataFolder,
        heads: Sequence[Head],
        *,
        starting: bool,
        origin: Origin = NEW,
    ) -> nn.Module:
        """Return a student of the config's outputs; ``starting`` from the weights that it names."""
        own, outputs = config.student, heads[-1].stop if heads else len(folder.class_names)
        student = with_head(
            build_student(**start_of(own, starting=starting), embed_dim=outputs, origin=origin),
            kind=own.head,
            embed_dim=outputs,
            image_size=own.image_size,
            hidden=own.hidden,
            noise=own.feature_noise,
            arch=own.arch,
        )
        check_eval_size(student, config.student)
        if starting and family(config.student.arch) == "cnn":
            student = student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return student

    def forward(self, class_names: Sequence[str]) -> Callable[[Tensor], Tensor]:
        """Return what takes decoded images to the outputs that are judged, [B, D] of all heads."""
        del class_names

        def outputs(images: Tensor) -> Tensor:
            with autocast(self.amp_dtype, self.device):
                rows: Tensor = self.student(self.augment.plain(images))
            return rows

        return outputs

    @cached_property
    def _columns(self) -> Tensor:
        return torch.tensor(closed_set_columns(self.folder.class_names, self.class_names), device=self.device)

    def losses(self, outputs: Tensor, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Return a batch's losses with their ``total``, and its cosines or logits [B, C] without gradient.

        With several teachers each has its own losses, called ``TEACHER/LOSS``, and the total is their sum;
        the cosines are the first head's, none [B, 0] of one without texts. Of mixed images every loss is that
        of both images' targets, by their shares.
        """
        texts = [
            head.class_texts(self.class_names, rows) if head.has_texts else rows[:0]
            for head in self.heads
            for rows in [head.embed(outputs)]
        ]
        own, scores = self._losses(outputs, batch, texts)
        if (mix := batch.mix) is None:
            return own, scores
        others, _ = self._losses(outputs, batch.of_others(mix), texts)
        return {name: mix.share * own[name] + (1 - mix.share) * others[name] for name in own}, scores

    def _losses(
        self, outputs: Tensor, batch: Batch, texts: Sequence[Tensor]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the losses against a batch's own targets; ``texts`` are every head's class texts."""
        if not self.heads:
            label, columns = batch.label_B, self._columns
            outputs_B = torch.where(label >= 0, columns[label.clamp(min=0)], label)
            loss = classification_loss(outputs, outputs_B)
            return {"cls": loss, "total": loss}, outputs.detach()[:, columns]
        terms: dict[str, Tensor] = {}
        total, first = outputs.new_zeros((), dtype=torch.float32), None
        weights = self._weights(batch, texts)
        for head, targets, text, weight in zip(self.heads, batch.targets, texts, weights, strict=True):
            rows, captions = head.embed(outputs), targets.caption_BD
            cosines = text_cosines(rows, text)
            own = distillation_objective(
                rows,
                head.in_its_space(targets.teacher_BD),
                text,
                batch.label_B,
                losses_of(self.config, head.cache),
                captions=None if captions is None else head.texts_in_its_space(captions),
                neighbours=targets.neighbours,
                cosines=cosines,
                bank=head.bank.rows if head.bank is not None else None,
                scales=head.scales,
                weights=weight,
            )
            total = total + own.pop("total")
            before = f"{head.name}/" if len(self.heads) > 1 else ""
            terms |= {f"{before}{name}": value for name, value in own.items()}
            first = cosines.detach() if first is None else first
        assert first is not None
        return {**terms, "total": total}, first

    @torch.no_grad()
    def _weights(self, batch: Batch, texts: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """Return how much every teacher counts of each image; None each where all count alike."""
        if not self.config.loss.teacher_confidence:
            return [None] * len(self.heads)
        label_B, temperature = batch.label_B, self.config.loss.temperature
        entropies = [
            F.cross_entropy(
                text_cosines(head.in_its_space(targets.teacher_BD), text) / temperature,
                label_B.clamp(min=0),
                reduction="none",
            )
            if head.has_texts
            else torch.zeros(len(label_B), device=label_B.device)
            for head, targets, text in zip(self.heads, batch.targets, texts, strict=True)
        ]
        judges = [head.has_texts for head in self.heads]
        return teacher_weights(torch.stack(entropies, dim=1), label_B, judges_T=judges).unbind(dim=1)

    def counts(self, state: dict[str, Any]) -> ClassCounts:
        """Return an epoch's counts, which go on from ``state``; that may be empty."""
        if state:
            return ClassCounts(**state)
        kind = widest_float(self.device)
        zeros = torch.zeros(len(self.class_names), dtype=kind, device=self.device)
        return ClassCounts(right_C=zeros, seen_C=zeros.clone())
