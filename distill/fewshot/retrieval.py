"""Few-shot retrieval: a trained student judged with the teacher's rows of a support; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cache.runtime.errors import UserError
from distill.config import FewShotConfig
from distill.data.stream import EvalSplit
from distill.data.support import pick_support
from distill.data.training_data import join_training_rows
from distill.judge.evaluate import Result, SplitResult, evaluate
from distill.judge.model import judged, outputs_of
from distill.judge.trained_run import TrainedRun
from distill.tip_adapter import retrieval_logits

ALPHAS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
BETAS = (1.0, 2.0, 3.5, 5.5, 8.0, 12.0, 20.0)
SEARCH_SPLITS = ("id_val", "id_test")


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Weight ``alpha`` and sharpness ``beta`` of the support term; which views of a support image count."""

    alpha: float = 1.0
    beta: float = 5.5
    views: int | None = None
    average: bool = False

    def __post_init__(self) -> None:
        for name, value in (("alpha", self.alpha), ("beta", self.beta)):
            if not 0 <= value < float("inf"):
                raise UserError(f"--{name} is {value}", fix="give a number of at least 0.")


def support_bank(views_NVD: Tensor, classes: int, *, average: bool) -> Tensor:
    """Return the support bank [C, M, D] of unit rows.

    ``views_NVD`` are raw rows of the support images, class after class, as many of each. Every view is a
    row of its own, or with ``average`` the mean of an image's unit views is its one row.
    """
    unit = F.normalize(views_NVD.float(), dim=2)
    if average:
        unit = F.normalize(unit.mean(dim=1, keepdim=True), dim=2)
    return unit.reshape(classes, -1, unit.shape[2])


@dataclass(frozen=True, kw_only=True)
class RetrievalClassifier:
    """Plain cosines with the class texts plus the support term; see :func:`retrieval_logits`."""

    text: Tensor
    support: Tensor
    alpha: float
    beta: float

    def __call__(self, outputs: Tensor) -> Tensor:
        """Return logits [B, C] float32."""
        text, support = self.text.to(outputs.device), self.support.to(outputs.device)
        return retrieval_logits(outputs, text, support, alpha=self.alpha, beta=self.beta)


class Judge:
    """Judges one student with many supports: its outputs on a split are computed once."""

    def __init__(self, trained: TrainedRun) -> None:
        self.trained = trained
        self._kept: dict[str, tuple[Tensor, Tensor]] = {}

    @cached_property
    def ood(self) -> EvalSplit:
        """The OOD images."""
        return self.trained.wanted(["ood_test"])[0]

    def outputs(self, split: EvalSplit) -> tuple[Tensor, Tensor, list[str]]:
        """Return (outputs [N, ...], labels, keys) of a split's readable images."""
        if split.name not in self._kept:
            rows, labels = zip(*outputs_of(self.trained.model, split), strict=True)
            self._kept[split.name] = torch.cat([part.cpu() for part in rows]), torch.cat(labels)
        pixels = split.pixels
        keys = [image.key for image in pixels.records if image.key not in pixels.unreadable]
        return *self._kept[split.name], keys

    def without(self, support: Sequence[str]) -> Result:
        """Judge the OOD images less the support as the student is."""
        outputs, labels, at = self._less(self.ood, support)
        return judged(
            self.trained.model, [(outputs[at], labels[at])], self.ood, among=self.trained.competing
        )[self.ood.name]

    def query(self, support: Sequence[str], retrieval: Retrieval) -> SplitResult:
        """Judge the OOD images less the support with the support bank."""
        return self.retrieved(self.ood, "ood_test", support, retrieval)

    def _less(self, split: EvalSplit, support: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        outputs, labels, keys = self.outputs(split)
        taken = set(support)
        at = np.array([i for i, key in enumerate(keys) if key not in taken], dtype=np.int64)
        return outputs, labels, torch.from_numpy(at)

    def retrieved(
        self, split: EvalSplit, support_split: str, support: Sequence[str], retrieval: Retrieval
    ) -> SplitResult:
        """Judge a split less the support with the bank of the support, whose rows are ``support_split``'s."""
        taken = support if split.name == support_split else ()  # another split's keys may be the same
        outputs, labels, at = self._less(split, taken)
        name = f"{split.name} less the support" if support_split == "ood_test" else split.name
        head = self.trained.heads[0]
        views = head.cache.support_views(support_split, support, views=retrieval.views)
        bank = support_bank(torch.from_numpy(views), len(split.class_names), average=retrieval.average)
        nothing = torch.empty(0, head.stop - head.start, device=self.trained.model.device)
        if head.texts.per_image:
            raise UserError(
                "CoCoOp has no class texts of its own to retrieve with", fix="use --method finetune."
            )
        with torch.no_grad():
            text = head.texts(split.class_names, nothing).cpu()
        classifier = RetrievalClassifier(text=text, support=bank, alpha=retrieval.alpha, beta=retrieval.beta)
        return evaluate(
            [(head.embed(outputs[at]), labels[at])], classifier, split=name, class_names=split.class_names
        )


def search_weights(judge: Judge, support: FewShotConfig, retrieval: Retrieval, *, split: str) -> Retrieval:
    """Return ``retrieval`` with the alpha and beta that are best on ID images.

    The support are training images, as many a class and drawn as the OOD support; the query is ``split``
    (``id_val``, or ``id_test``, which then is no test any more). OOD images play no part. Of equals the
    smallest alpha, then the smallest beta is taken. UserError if there is no such split, a class has too few
    images, or the cache has no views of them.
    """
    if split not in SEARCH_SPLITS:
        raise UserError(f"--search is {split!r}", fix=f"choose from {', '.join(SEARCH_SPLITS)}.")
    trained = judge.trained
    if split == "id_val" and not trained.config.data.id_val:
        raise UserError(
            "the run set no id_val aside to search on",
            fix="train with --set data.id_val=0.1, or use --search id_test.",
        )
    (images,) = trained.wanted([split])
    joined = join_training_rows(trained.cache, trained.folder, id_val=trained.config.data.id_val)
    by_class: dict[str, list[str]] = {name: [] for name in joined.rows.class_names}
    for image, row in zip(joined.images, joined.row_of, strict=True):
        by_class[joined.rows.class_names[joined.rows.labels[row]]].append(image.key)
    keys = pick_support(by_class, shots=support.shots, seed=support.support_seed, leave=0)
    accuracy = {
        (alpha, beta): judge.retrieved(
            images, "train", keys, replace(retrieval, alpha=alpha, beta=beta)
        ).accuracy
        for alpha in ALPHAS
        for beta in BETAS
    }
    alpha, beta = min(accuracy, key=lambda pair: (-accuracy[pair], pair))
    return replace(retrieval, alpha=alpha, beta=beta)
