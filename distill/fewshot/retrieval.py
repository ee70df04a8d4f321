"""Few-shot retrieval: a trained student judged with the teacher's rows of a support; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from cache.runtime.errors import UserError
from distill.config import FewShotConfig
from distill.data.stream import EvalSplit
from distill.data.support import pick_support
from distill.data.training_rows import join_training_rows
from distill.judge.evaluate import Result, SplitResult, evaluate
from distill.judge.model import judged, whole_outputs
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
    support_views: int | None = None
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


class Judge:
    """Judges one student with many supports: its outputs on a split are computed once."""

    def __init__(self, trained: TrainedRun) -> None:
        self.trained = trained
        self._kept: dict[str, tuple[Tensor, Tensor]] = {}

    @cached_property
    def ood(self) -> EvalSplit:
        """The OOD images."""
        return self.trained.wanted(["ood_test"])[0]

    def without(self, support: Sequence[str]) -> Result:
        """Judge the OOD images less the support as the student is."""
        model, outputs = self.trained.model, [self._less(self.ood, support)]
        return judged(model, outputs, self.ood, among=self.trained.competing)[self.ood.name]

    def query(self, support: Sequence[str], retrieval: Retrieval) -> SplitResult:
        """Judge the OOD images less the support with the support bank."""
        return self.retrieved(self.ood, "ood_test", support, retrieval)

    def _less(self, split: EvalSplit, support: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return (outputs [N, ...], labels) of a split's readable images less the support."""
        if split.name not in self._kept:
            self._kept[split.name] = self._whole(split)
        return less_the_support(split, *self._kept[split.name], support)

    def _whole(self, split: EvalSplit) -> tuple[Tensor, Tensor]:
        """Return (outputs [N, ...], labels) of a split's readable images."""
        return whole_outputs(self.trained.model, split, self.trained.progress)

    def retrieved(
        self, split: EvalSplit, support_split: str, support: Sequence[str], retrieval: Retrieval
    ) -> SplitResult:
        """Judge a split less the support with the bank of the support, whose rows are ``support_split``'s."""
        taken = support if split.name == support_split else ()  # another split's keys may be the same
        outputs, labels = self._less(split, taken)
        name = f"{split.name} less the support" if support_split == "ood_test" else split.name
        head = self.trained.heads[0]
        views = head.cache.support_views(support_split, support, views=retrieval.support_views)
        bank = support_bank(
            head.in_its_space(torch.from_numpy(views)).cpu(),
            len(split.class_names),
            average=retrieval.average,
        )
        nothing = torch.empty(0, head.stop - head.start, device=self.trained.model.device)
        if head.texts.per_image:
            raise UserError(
                "CoCoOp has no class texts of its own to retrieve with", fix="use --method finetune."
            )
        if head.has_texts:
            with torch.no_grad():
                text = head.class_texts(split.class_names, nothing).cpu()
        else:  # the support alone classifies: whatever its weight
            text, retrieval = (
                torch.zeros(len(split.class_names), head.stop - head.start),
                replace(retrieval, alpha=1.0),
            )
        classifier = partial(
            retrieval_logits, text=text, support=bank, alpha=retrieval.alpha, beta=retrieval.beta
        )
        return evaluate(
            [(head.embed(outputs), labels)], classifier, split=name, class_names=split.class_names
        )


def less_the_support(
    split: EvalSplit, outputs: Tensor, labels: Tensor, support: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Return the outputs and labels of a split's readable images that are not support."""
    taken = set(support)
    at = torch.tensor([i for i, key in enumerate(split.keys) if key not in taken], dtype=torch.int64)
    return outputs[at], labels[at]


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
    if len(images.class_names) == 1:
        raise UserError(f"--search chooses by ID classes, and {split} has one alone", fix="leave it out.")
    joined = join_training_rows(trained.identities, trained.config.data)
    by_class: dict[str, list[str]] = {name: [] for name in joined.rows.class_names}
    for image, row in zip(joined.images, joined.row_of, strict=True):
        if (label := int(joined.rows.labels[row])) >= 0:
            by_class[joined.rows.class_names[label]].append(image.key)
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
