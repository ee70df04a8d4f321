"""Whether a student can tell the classes that it is judged on, asked before any work is done."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from cache.runtime.errors import CacheMismatch, UserError, some_of
from distill.data.stream import EvalSplit
from distill.judge.model import Model


@torch.no_grad()
def with_texts(model: Model, splits: Iterable[EvalSplit]) -> list[EvalSplit]:
    """Return splits whose classes all have a text of every teacher that reads any.

    UserError where one has none; CacheMismatch where that is because the data had no such class when the
    cache was made.
    """
    of_cache = {name for names in model.cache.manifest.splits.values() for name in names}
    checked = [*splits]
    for split in checked:
        untrained = [name for name in split.class_names if name not in model.class_names]
        try:
            for head in (head for head in model.heads if head.has_texts and untrained):
                head.texts(untrained, torch.zeros(1, head.stop - head.start, device=model.device))
        except UserError as error:
            if not (new := [name for name in untrained if name not in of_cache]):
                raise
            raise CacheMismatch(
                f"{split.name} of {model.folder.path} has classes that were not there when the cache "
                f"{model.cache.path} was made: {some_of(new)}",
                fix="run its cache-features command again, which adds them, or take them out of the data.",
            ) from error
    return checked
