"""One head of the student for every teacher: which outputs are its embedding, and its class texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cache import EmbeddingCache
from cache.runtime.errors import UserError
from cache.sources.splits import MEAN
from distill.config import RunConfig
from distill.data.teacher_texts import has_texts, require_bank
from distill.data.training_data import TeacherRows
from distill.objective import Scales
from distill.student import phi_s
from distill.student.centring import MEAN_ROWS, Bank, Centre
from distill.student.classifier import Classifier, TextClassifier, closed_set_columns, mean_of
from distill.student.prompts import open_texts
from distill.student.texts import FixedTexts, NoTexts, Texts

PHI_S = "phi-s"


@dataclass(frozen=True, kw_only=True)
class Head:
    """One teacher's head: columns ``start`` to ``stop`` of the student's output are its embedding.

    With a ``centre`` that is one of the teacher's centred space; ``texts`` are as the teacher's are.
    ``bank`` and ``scales`` are filled where a student is trained.
    """

    name: str
    cache: EmbeddingCache
    start: int
    stop: int
    texts: Texts
    centre: Centre | None = None
    bank: Bank | None = None
    scales: Scales | None = None

    @property
    def has_texts(self) -> bool:
        """Whether there are texts that its embeddings are compared with: not of a teacher without any."""
        return not isinstance(self.texts, NoTexts)

    def in_its_space(self, rows: Tensor) -> Tensor:
        """Return raw rows of the teacher's images [B, D] as the student is to give them."""
        return rows if self.centre is None else self.centre.images(rows)

    def texts_in_its_space(self, rows: Tensor) -> Tensor:
        """Return raw rows of texts [T, D] as what the student's rows are compared with."""
        return rows if self.centre is None else self.centre.texts(rows)

    def class_texts(self, class_names: Sequence[str], images_BD: Tensor) -> Tensor:
        """Return what :class:`Texts` gives of some classes, in the student's space."""
        return self.texts_in_its_space(self.texts(class_names, images_BD))

    def embed(self, outputs: Tensor) -> Tensor:
        """Return this head's embeddings [B, D]."""
        return outputs[:, self.start : self.stop]

    @torch.no_grad()
    def classifier(self, class_names: Sequence[str], *, temperature: float) -> Classifier:
        """Return what classifies this head's embeddings among some classes, by the texts as they are now."""

        def by_texts_of_the_image(outputs: Tensor) -> Tensor:
            text = F.normalize(self.class_texts(class_names, outputs).float(), dim=-1)
            rows = F.normalize(outputs.float(), dim=1).to(text.device)
            return torch.einsum("bd,bcd->bc", rows, text) / temperature

        if self.texts.per_image:
            return by_texts_of_the_image
        nothing = torch.empty(0, self.stop - self.start)
        return TextClassifier(text=self.class_texts(class_names, nothing), temperature=temperature)


def open_heads(config: RunConfig, cache: EmbeddingCache, device: torch.device) -> tuple[Head, ...]:
    """Return one head a teacher, in the config's order; none for the closed-set student.

    UserError if the cache has no such teacher or bank, or keeps no text tower where prompts are to be learnt.
    """
    if config.train.closed_set:
        return ()
    heads: list[Head] = []
    teachers = [cache.teacher_cache(name) for name in config.teachers]
    if any(own.bank_names for own in teachers):
        require_bank(config, teachers)
    for name, own in zip(config.teachers, teachers, strict=True):
        start = heads[-1].stop if heads else 0
        texts: Any
        if not has_texts(config, own):
            texts = NoTexts(str(own.path))
        elif config.prompts.learner == "none":
            texts = FixedTexts(own.text_bank(config.text), device)
        else:
            texts = open_texts(own, config.prompts, text=config.text, seed=config.train.seed, device=device)
        centre = Centre(own.embed_dim).to(device) if config.loss.center else None
        stop = start + own.embed_dim
        bank = Bank() if config.loss.im_cst and config.loss.im_cst_bank else None
        scales = Scales() if config.loss.standardise == PHI_S else None
        heads.append(
            Head(
                name=name,
                cache=own,
                start=start,
                stop=stop,
                texts=texts,
                centre=centre,
                bank=bank,
                scales=scales,
            )
        )
    return tuple(heads)


def set_from_rows(
    heads: Sequence[Head],
    config: RunConfig,
    class_names: Sequence[str],
    rows: Sequence[TeacherRows],
    device: torch.device,
) -> None:
    """Set what heads take from the ``rows`` that a student learns from.

    Those are its space's means, its negatives, and what its rows are standardised by. UserError where a
    teacher's rows are all the same, which cannot be standardised.
    """
    for head, own in zip(heads, rows, strict=True):
        if head.centre is not None:
            images = own.sampled(MEAN_ROWS, seed=0).to(device)
            texts = images  # what stands in for texts later is made of images
            if head.has_texts:
                bank = head.cache.text_bank(config.text)
                texts = torch.from_numpy(bank.class_texts(tuple(class_names))).to(device)
            head.centre.set_means(images, texts)
        if head.bank is not None:
            most = config.loss.im_cst_bank if config.loss.im_cst_bank > 0 else len(own.row_of)
            sample = own.sampled(most, seed=config.train.seed).to(device)
            head.bank.rows = F.normalize(head.in_its_space(sample), dim=1)
        if head.scales is not None:
            sample = head.in_its_space(own.sampled(MEAN_ROWS, seed=0).to(device)).float()
            try:
                # Their mean over D is what PHI-S makes 1; a loss sums over D.
                own_scales = [
                    phi_s.scale_of(r) / r.shape[1] ** 0.5 for r in (F.normalize(sample, dim=1), sample)
                ]
            except ValueError as error:
                raise UserError(
                    f"loss.standardise is {PHI_S}, but of the teacher {head.name} {error}",
                    fix="look at its rows ('distill cache info'), or set loss.standardise=none.",
                ) from error
            head.scales.unit, head.scales.raw = own_scales


def classifiers_for(
    config: RunConfig, heads: Sequence[Head], all_classes: tuple[str, ...], class_names: tuple[str, ...]
) -> list[tuple[str, slice, Classifier]]:
    """Return what classifies a student's outputs among ``class_names``: (ending, columns, classifier).

    One for every head with texts; results of the first head are called as their split, of another
    ``SPLIT@TEACHER``, and of the mean of several heads' logits ``SPLIT@mean``.
    """
    if config.train.closed_set:
        columns = list(closed_set_columns(all_classes, class_names))
        return [("", slice(None), lambda outputs: outputs.float()[:, columns])]
    own = [
        (
            f"@{head.name}" if i else "",
            slice(head.start, head.stop),
            head.classifier(class_names, temperature=config.loss.temperature),
        )
        for i, head in enumerate(heads)
        if head.has_texts
    ]
    if len(own) > 1:
        own.append((f"@{MEAN}", slice(None), mean_of([(columns, one) for _, columns, one in own])))
    return own
