"""One head of the student for every teacher: which outputs are its embedding, and its class texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cache import EmbeddingCache
from cache.store.text_banks import TextBank
from distill.config import RunConfig
from distill.student.classifier import Classifier, TextClassifier, closed_set_columns
from distill.student.prompts import open_texts


class Texts(Protocol):
    """Gives class texts: [C, D], or [B, C, D] where every image has its own (``per_image``)."""

    @property
    def per_image(self) -> bool:
        """Whether every image has texts of its own."""
        ...

    @property
    def learner(self) -> nn.Module | None:
        """Where prompts are learnt, None where they are fixed."""
        ...

    def __call__(self, class_names: Sequence[str], images_BD: Tensor) -> Tensor:
        """Return raw embeddings of the classes' texts."""
        ...


class FixedTexts:
    """The class texts of a bank, on a device."""

    per_image = False
    learner = None

    def __init__(self, bank: TextBank, device: torch.device) -> None:
        self._bank, self._device = bank, device
        self._made: dict[tuple[str, ...], Tensor] = {}

    def __call__(self, class_names: Sequence[str], images_BD: Tensor) -> Tensor:
        """Return raw embeddings [C, D] float32; UserError when a class has no text."""
        del images_BD
        names = tuple(class_names)
        if names not in self._made:
            self._made[names] = torch.from_numpy(self._bank.class_texts(names)).to(self._device)
        return self._made[names]


@dataclass(frozen=True, kw_only=True)
class Head:
    """One teacher's head: columns ``start`` to ``stop`` of the student's output are its embedding."""

    name: str
    cache: EmbeddingCache
    start: int
    stop: int
    texts: Texts

    def embed(self, outputs: Tensor) -> Tensor:
        """Return this head's embeddings [B, D]."""
        return outputs[:, self.start : self.stop]

    @torch.no_grad()
    def classifier(self, class_names: Sequence[str], *, temperature: float) -> Classifier:
        """Return what classifies this head's embeddings among some classes, by the texts as they are now."""

        def by_texts_of_the_image(outputs: Tensor) -> Tensor:
            text = F.normalize(self.texts(class_names, outputs).float(), dim=-1)
            rows = F.normalize(outputs.float(), dim=1).to(text.device)
            return torch.einsum("bd,bcd->bc", rows, text) / temperature

        if self.texts.per_image:
            return by_texts_of_the_image
        nothing = torch.empty(0, self.stop - self.start)
        return TextClassifier(text=self.texts(class_names, nothing), temperature=temperature)


def open_heads(config: RunConfig, cache: EmbeddingCache, device: torch.device) -> tuple[Head, ...]:
    """Return one head a teacher, in the config's order; none for the closed-set baseline.

    UserError if the cache has no such teacher or bank, or keeps no text tower where prompts are to be learnt.
    """
    if config.train.baseline:
        return ()
    heads: list[Head] = []
    for name in config.teachers:
        own = cache.teacher_cache(name)
        start = heads[-1].stop if heads else 0
        texts: Any = (
            FixedTexts(own.text_bank(config.text), device)
            if config.prompts.learner == "none"
            else open_texts(own, config.prompts, text=config.text, seed=config.train.seed, device=device)
        )
        heads.append(Head(name=name, cache=own, start=start, stop=start + own.embed_dim, texts=texts))
    return tuple(heads)


def classifiers_for(
    config: RunConfig, heads: Sequence[Head], all_classes: tuple[str, ...], class_names: tuple[str, ...]
) -> list[tuple[str, slice, Classifier]]:
    """Return what classifies a student's outputs among ``class_names``: (ending, columns, classifier).

    One for every head; results of the first are called as their split, of another ``SPLIT@TEACHER``.
    """
    if config.train.baseline:
        columns = list(closed_set_columns(all_classes, class_names))
        return [("", slice(None), lambda outputs: outputs.float()[:, columns])]
    return [
        (
            f"@{head.name}" if i else "",
            slice(head.start, head.stop),
            head.classifier(class_names, temperature=config.loss.temperature),
        )
        for i, head in enumerate(heads)
    ]
