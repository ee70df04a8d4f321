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
from cache.sources.image_folder import SplitImages
from distill.config import FewShotConfig
from distill.data.support import pick_support, query_of
from distill.data.training_data import join_training_rows
from distill.judge.evaluate import SplitResult, evaluate
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
        self._kept: dict[str, tuple[Tensor, Tensor, list[str]]] = {}

    def outputs(self, split: SplitImages) -> tuple[Tensor, Tensor, list[str]]:
        """Return (outputs [N, D], labels [N], keys) of a split's readable images."""
        if split.name not in self._kept:
            pixels = self.trained.pixels(split.images, split.name)
            found = list(self.trained.outputs(pixels))
            keys = [image.key for image in split.images if image.key not in pixels.unreadable]
            rows = torch.cat([output.cpu() for output, _ in found])
            self._kept[split.name] = rows, torch.cat([labels for _, labels in found]), keys
        return self._kept[split.name]

    @cached_property
    def id_val(self) -> SplitImages:
        """The images set aside from train; UserError when the run set none aside."""
        trained = self.trained
        joined = join_training_rows(trained.cache, trained.folder, id_val=trained.config.data.id_val)
        if not joined.id_val:
            raise UserError(
                "the run set no id_val aside to search on",
                fix="train with --set data.id_val=0.1, or use --search id_test.",
            )
        train, aside = trained.folder.split("train"), {image.key for image in joined.id_val}
        return replace(
            train, name="id_val", images=tuple(image for image in train.images if image.key in aside)
        )

    def query(self, support: Sequence[str], shots: int, retrieval: Retrieval | None) -> SplitResult:
        """Judge the OOD images less the support: zero-shot, or with the support bank."""
        ood = self.trained.folder.split("ood_test")
        rest = {image.key for image in query_of(ood, support).images}
        return self.judged(ood, rest, "ood_test", support, retrieval)

    def judged(
        self,
        split: SplitImages,
        query: set[str],
        support_split: str,
        support: Sequence[str],
        retrieval: Retrieval | None,
    ) -> SplitResult:
        """Judge the images ``query`` of a split; the support's rows are of ``support_split``."""
        outputs, labels, keys = self.outputs(split)
        at = torch.from_numpy(np.array([i for i, key in enumerate(keys) if key in query], dtype=np.int64))
        name = f"{split.name} less the support" if support_split == "ood_test" else split.name
        if retrieval is None:
            results = self.trained.judged([(outputs[at], labels[at])], split.class_names, name)
            return results[name]
        head = self.trained.heads[0]
        views = head.cache.support_views(support_split, support, views=retrieval.views)
        bank = support_bank(torch.from_numpy(views), len(split.class_names), average=retrieval.average)
        nothing = torch.empty(0, head.stop - head.start, device=self.trained.device)
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
    smallest alpha, then the smallest beta is taken.

    Raises
    ------
    UserError
        If there is no such split, a class has too few images, or the cache has no views of them.
    """
    if split not in SEARCH_SPLITS:
        raise UserError(f"--search is {split!r}", fix=f"choose from {', '.join(SEARCH_SPLITS)}.")
    trained = judge.trained
    images = judge.id_val if split == "id_val" else trained.folder.split("id_test")
    joined = join_training_rows(trained.cache, trained.folder, id_val=trained.config.data.id_val)
    by_class: dict[str, list[str]] = {name: [] for name in joined.rows.class_names}
    for image, row in zip(joined.images, joined.row_of, strict=True):
        by_class[joined.rows.class_names[joined.rows.labels[row]]].append(image.key)
    keys = pick_support(by_class, shots=support.shots, seed=support.support_seed, leave=0)
    query = {image.key for image in images.images}
    found = {
        (alpha, beta): judge.judged(
            images, query, "train", keys, replace(retrieval, alpha=alpha, beta=beta)
        ).accuracy
        for alpha in ALPHAS
        for beta in BETAS
    }
    alpha, beta = min(found, key=lambda pair: (-found[pair], pair))
    return replace(retrieval, alpha=alpha, beta=beta)
