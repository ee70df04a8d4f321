"""A source of samples that are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Given:
    """Samples that there are already, of some classes."""

    classes: tuple[str, ...]
    given: tuple[Any, ...]
    multi_label: bool = False

    def __len__(self):
        return len(self.given)

    def all(self):
        return self.given
