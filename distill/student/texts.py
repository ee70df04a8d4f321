"""Class texts as a head takes them: of a bank, in whatever space its student is of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from cache.runtime.errors import UserError
from cache.store.text_banks import TextBank


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


class NoTexts:
    """Of a teacher that reads none."""

    per_image = False
    learner = None

    def __init__(self, where: str) -> None:
        """``where`` names the cache."""
        self._where = where

    def __call__(self, class_names: Sequence[str], images_BD: Tensor) -> Tensor:
        """Raise a UserError: there is none."""
        del class_names, images_BD
        raise UserError(
            f"{self._where} has no texts of this teacher, and this needs some",
            fix=f"add some and name them: distill cache add-texts {self._where} --bank means --from-images, "
            "then --text means.",
        )
