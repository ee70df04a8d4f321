"""A positive and a negative text for every object: fixed prompts, or learnt contexts (dual CoOp)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from cache import EmbeddingCache
from cache.runtime.errors import UserError
from cache.sources.episode_texts import prompt_of
from cache.sources.episodes import object_name
from distill.config import RunConfig
from distill.student.prompts import LearntTexts, PromptLearner, open_tower
from distill.student.texts import FixedTexts, Texts

# The ending of the names of banks with descriptions.
DESCRIBED = "descriptions"


@dataclass(frozen=True, kw_only=True)
class PairTexts:
    """Gives both texts of objects; ``learner`` is where their contexts are learnt, None for fixed prompts."""

    positive: Texts
    negative: Texts
    learner: nn.Module | None = None
    per_image: ClassVar[bool] = False

    def __call__(self, class_names: Sequence[str], images_BD: Tensor) -> Tensor:
        """Return raw embeddings [2, C, D] float32, the positive texts first.

        UserError if a bank has no text of an object.
        """
        return torch.stack([texts(class_names, images_BD) for texts in (self.positive, self.negative)])


def fixed_pair_texts(cache: EmbeddingCache, text: str, negative_text: str, device: torch.device) -> PairTexts:
    """Return the texts of two banks of a cache; UserError where it has no such bank."""
    positive, negative = (FixedTexts(cache.text_bank(name), device) for name in (text, negative_text))
    return PairTexts(positive=positive, negative=negative)


def open_pair_texts(cache: EmbeddingCache, config: RunConfig, device: torch.device) -> PairTexts:
    """Return the texts that a config asks for.

    Dual CoOp (arXiv 2206.09541) learns a context for positive and another for negative texts, before ``NAME``
    or ``NAME . DESCRIPTION``, and for a negative description ``NAME . DESCRIPTION . NAME``. UserError if the
    cache has no such banks, or keeps no text tower where prompts are to be learnt.
    """
    names = (config.text, config.robotics.negative_text)
    if config.prompts.learner == "none":
        return fixed_pair_texts(cache, *names, device)
    tower = open_tower(cache, device)
    torch.manual_seed(config.train.seed)
    learners = nn.ModuleList(PromptLearner(config.prompts.n_ctx, tower.width) for _ in names).to(device)
    positive_words = _words(cache, names[0], "{name} . {description}")
    negative_words = _words(cache, names[1], "{name} . {description} . {name}")
    return PairTexts(
        positive=LearntTexts(tower, learners[0], positive_words),  # type: ignore[arg-type]
        negative=LearntTexts(tower, learners[1], negative_words),  # type: ignore[arg-type]
        learner=learners,
    )


def _words(cache: EmbeddingCache, name: str, described: str) -> dict[str, str]:
    """Return what follows the learnt context for every object of a bank: its name, or ``described``."""
    bank, templates = cache.text_bank(name), cache.listed_bank(name).templates
    words = {}
    for text, index in zip(bank.texts, bank.class_index, strict=True):
        folder = bank.class_folders[index]
        with_description = name.endswith(DESCRIBED)
        words_of = object_name(folder)
        prompt = prompt_of(templates[0], words_of, described=with_description) if templates else ""
        if not prompt or not text.startswith(prompt):
            raise UserError(
                f"no prompt can be learnt for the bank {name!r}: it was not made of one prompt an object",
                fix="use the banks labels or descriptions and their negative ones, each of one --template.",
            )
        description = text.removeprefix(prompt).strip().rstrip(".")
        form = described if description else "{name}"
        words[folder] = form.format(name=words_of, description=description)
    return words
