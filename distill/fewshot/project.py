"""Few-shot by projection: a student's last layer refitted to a support in closed form; nothing is tuned.

With the support's features X [n, F] as the last layer W0 [D, F] takes them and targets V [n, D],

    W = argmin ||X W' + b0 - V||^2 + l ||W - W0||^2 = W0 + R' X (X'X + l I)^-1   with   R = V - X W0' - b0

so that what the support says nothing about stays as it was; l is lambda times the mean squared length of X's
rows. From one SVD, X = U S Z', come the heads of every lambda, and what each image would be told if the layer
were fitted to the others alone: its residual is then (R - U g U'R)_i / (1 - (U g U')_ii) with
g = S^2 / (S^2 + l). Lambda is that by which these images are classified best, by cross entropy among all
classes at the run's temperature: no image but the support's plays a part.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cache.runtime.errors import UserError
from cache.runtime.progress import Progress
from cache.sources.samples import labels_of
from distill.data.stream import EvalSplit, to_judge
from distill.fewshot.retrieval import Judge, less_the_support
from distill.judge.evaluate import Result
from distill.judge.model import judged
from distill.judge.trained_run import TrainedRun
from distill.student.parts import head_of
from distill.student.trunk_features import head_outputs, standard_of
from distill.train.feature_files import FeatureFiles, Features

LAMBDAS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
# Images whose features are in memory at once.
BLOCK = 2048


@dataclass(frozen=True, kw_only=True)
class Refit:
    """A change of a last layer's weight [D, F], float64, and the lambda that it is of.

    ``losses`` are what lambda was chosen by: of rows that were left out, by lambda.
    """

    change: Tensor
    ridge: float
    losses: dict[float, float]


def refit(
    features: Tensor,
    targets: Tensor,
    current: Tensor,
    *,
    loss: Callable[[Tensor], float],
    lambdas: Sequence[float] = LAMBDAS,
) -> Refit:
    """Return the change of a layer that gives ``current`` [n, D] of ``features`` [n, F]; see this module.

    ``loss`` is that of the rows [n, D] of images that were left out; of equals the largest lambda is taken.
    ValueError if every feature is 0.
    """
    rows, goal = features.double(), targets.double()
    residual = goal - current.double()
    square = float(rows.square().sum(dim=1).mean())
    if not square > 0:
        raise ValueError("every feature of the support is 0")
    left, values, right = torch.linalg.svd(rows, full_matrices=False)
    turned = left.T @ residual
    losses: dict[float, float] = {}
    for ridge in sorted(lambdas, reverse=True):
        gain = values.square() / (values.square() + ridge * square)
        own = left.square() @ gain  # the diagonal of U g U'
        without = (residual - left @ (gain[:, None] * turned)) / (1 - own)[:, None]
        losses[ridge] = loss(goal - without)
    best = min(losses, key=lambda ridge: losses[ridge])
    shrunk = (values / (values.square() + best * square))[:, None] * turned
    return Refit(change=shrunk.T @ right, ridge=best, losses=dict(sorted(losses.items())))


def last_layer(student: nn.Module, features: Tensor) -> tuple[nn.Module, Tensor]:
    """Return a student's last layer, and what that takes of its trunk's features [B, F], float32."""
    layer, standard = head_of(student), standard_of(student)
    rows = features if standard is None else standard(features)
    if isinstance(layer, nn.Sequential):  # a hidden layer before it
        rows, layer = layer[:-1](rows), layer[-1]
    return layer, rows


class ProjectJudge(Judge):
    """Judges one student's last layer refitted to many supports; its trunk sees each image once.

    The features are those of head-only runs, files in the cache, or where that cannot be written in ``out``.
    """

    def __init__(self, trained: TrainedRun, out: Path, progress: Progress) -> None:
        super().__init__(trained)
        self._files = FeatureFiles(trained.model, out, progress=progress)
        self._features: dict[tuple[str, int], Features] = {}

    @cached_property
    def id_test(self) -> EvalSplit | None:
        """The ID test images, where there are any."""
        there = "id_test" in self.trained.folder.splits
        return self.trained.wanted(["id_test"])[0] if there else None

    def features_of(self, split: EvalSplit) -> Features:
        """Return the features of a split's images."""
        which = split.name, len(split.pixels.samples)
        if which not in self._features:
            (self._features[which],) = self._files.of(split.name, [split.pixels])
        return self._features[which]

    @cached_property
    def _every_ood_image(self) -> EvalSplit:
        """All that a support is drawn from: what class means were made of is not judged, but taught."""
        samples = to_judge(self.trained.folder.split("ood_test"))
        if len(samples) == len(self.ood.pixels.samples):
            return self.ood
        return replace(self.ood, pixels=self.trained.pixels(samples, "ood_test"))

    def _whole(self, split: EvalSplit) -> tuple[Tensor, Tensor]:
        return self._outputs(split, None)

    @torch.no_grad()
    def _outputs(self, split: EvalSplit, change: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return (outputs [N, ...], labels) of a split's readable images, of the layer with a change."""
        model, features = self.trained.model, self.features_of(split)
        readable, parts = np.flatnonzero(features.readable), []
        for start in range(0, len(readable), BLOCK):
            block = features.of(readable[start : start + BLOCK]).to(model.device)
            outputs = head_outputs(model.student, block)
            if change is not None:
                _, rows = last_layer(model.student, block)
                outputs[:, : len(change)] += rows @ change.T.to(rows)
            parts.append(outputs.cpu())
        return torch.cat(parts), _labels(split)[torch.from_numpy(readable)]

    def projected(
        self, support: Sequence[str], *, text_share: float
    ) -> tuple[dict[str, Result], dict[str, Any]]:
        """Judge the OOD images less the support, and the ID test images, with the layer refitted to it.

        Returned by split, with what is told of the refit. Else as :meth:`refitted`.
        """
        began, model = time.perf_counter(), self.trained.model
        fitted = self.refitted(support, text_share=text_share)
        seconds = time.perf_counter() - began
        results: dict[str, Any] = {}
        for split, less in ((self.ood, support), (self.id_test, ())):
            if split is not None:
                kept = less_the_support(split, *self._outputs(split, fitted.change), less)
                results |= {
                    split.name: judged(model, [kept], split, among=self.trained.competing)[split.name]
                }
        return results, {
            "lambda": fitted.ridge,
            "left_out_losses": {f"{ridge:g}": value for ridge, value in fitted.losses.items()},
            "text_share": text_share,
            "seconds": seconds,
        }

    @torch.no_grad()
    def refitted(self, support: Sequence[str], *, text_share: float) -> Refit:
        """Return the last layer's change for a support.

        ``text_share`` is the share of the class's text in a target, beside the teacher's row. UserError if an
        image of it cannot be read.
        """
        model, head, split = self.trained.model, self.trained.heads[0], self._every_ood_image
        place = {sample.key: i for i, sample in enumerate(split.pixels.samples)}
        features = self.features_of(split)
        at = np.array([place[key] for key in support], dtype=np.int64)
        if not features.readable[at].all():
            missing = support[int((~features.readable[at]).argmax())]
            raise UserError(f"{missing} of the support cannot be read", fix="mend it, or take it away.")
        taken, labels = features.of(at).to(model.device), _labels(split)[torch.from_numpy(at)]
        _, rows = last_layer(model.student, taken)
        current = head.embed(head_outputs(model.student, taken)).cpu()
        targets = self._targets(support, labels, text_share)
        # The layer's outputs may be of any length, which no cosine sees: so the targets' is what fits them.
        scale = float((current * targets).sum() / len(targets))
        scale = scale if scale > 0 else float(current.norm(dim=1).mean())
        return refit(rows.cpu(), scale * targets, current, loss=self._loss_of(labels))

    def _loss_of(self, labels: Tensor) -> Callable[[Tensor], float]:
        """Return the cross entropy of rows of OOD images of these labels, among all classes that compete."""
        own, among = self.ood.class_names, self.trained.competing
        names = own if among is None else among.names
        temperature = self.trained.config.loss.temperature
        classifier = self.trained.heads[0].classifier(names, temperature=temperature)
        right = torch.tensor([names.index(name) for name in own])[labels]
        return lambda rows: float(F.cross_entropy(classifier(rows.float()).cpu().float(), right))

    def _targets(self, support: Sequence[str], labels: Tensor, text_share: float) -> Tensor:
        """Return unit targets [n, D] in the student's space: the teacher's rows, and the classes' texts."""
        head, names = self.trained.heads[0], self.ood.class_names
        own = head.cache.split("ood_test")
        teacher = torch.from_numpy(own.embeddings[own.find(support)].astype(np.float32))
        rows = F.normalize(head.in_its_space(F.normalize(teacher, dim=1)).cpu(), dim=1)
        if not text_share:
            return rows
        if head.texts.per_image:
            raise UserError("CoCoOp has no class texts of its own to project to", fix="give --text-share 0.")
        nothing = torch.empty(0, head.stop - head.start, device=self.trained.model.device)
        text = F.normalize(head.class_texts(names, nothing).float().cpu(), dim=1)
        return F.normalize((1 - text_share) * rows + text_share * text[labels], dim=1)


def _labels(split: EvalSplit) -> Tensor:
    return torch.from_numpy(labels_of(split.pixels.samples, split.class_names))
