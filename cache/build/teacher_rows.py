"""Another teacher's rows of the same images: ``NAME.image_embedding``, a column like any other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cache.build.columns import Column, GroupRows, Made, TeacherSettings, Tools
from cache.build.embed_views import Decoded, decoded, filled, rows_named
from cache.runtime.errors import CacheMismatch, some_of
from cache.runtime.loader_workers import joined
from cache.runtime.transfer import one_behind
from cache.sources.samples import Sample
from cache.store.journal_lines import IMAGES
from cache.store.row_group import UNKNOWN
from cache.teacher.sanity import SameForAll, check_finite, stored


@dataclass(frozen=True, kw_only=True)
class TeacherRows(Column):
    """What a ``teacher`` says of every image that has a row.

    A file holds ``embedding`` [n, D], raw, in the cache's dtype.
    """

    BASE = IMAGES
    of: TeacherSettings

    def rows(self, group: GroupRows, tools: Tools) -> Made:
        """Embed a group's images.

        Raises
        ------
        CacheMismatch
            If an image is not what its row was made from.
        UserError
            If one cannot be read any more, or the teacher cannot have meant what it says.
        """
        teacher = tools.teacher
        assert teacher is not None
        samples, same = group.samples, SameForAll()
        rows = np.empty((len(group), teacher.embed_dim), dtype=tools.dtype)

        begun = (
            (here, same.differ(pixels), teacher.start_images(filled(pixels, tools.batch_size)))
            for here, pixels in _unchanged(group, tools, teacher.in_workers)
        )
        for here, differ, wait in one_behind(begun):
            batch = wait()[: here.stop - here.start]
            where = [sample.where for sample in samples[here]]
            check_finite(batch, where)
            same.look(batch, differ, where)
            rows[here] = stored(batch.numpy(), tools.dtype, rows_named("", samples[here]))
            tools.progress.advance(len(batch))
        same.end()
        return {"embedding": group.spread(rows)}, {}


@dataclass(frozen=True)
class _WithContent:
    """Preprocesses an image, and says what its file holds."""

    samples: Sequence[Sample]
    transform: Callable[[Any], Tensor]

    def __call__(self, index: int, image: Image.Image) -> tuple[str, Tensor]:
        return self.samples[index].identity()[0], self.transform(image)


def _together(items: list[tuple[str, Tensor] | str]) -> tuple[list[str], tuple[list[str], Tensor | None]]:
    reasons, pixels = joined([item if isinstance(item, str) else item[1] for item in items])
    return reasons, ([item[0] for item in items if not isinstance(item, str)], pixels)


def _unchanged(
    group: GroupRows, tools: Tools, transform: Callable[[Any], Tensor]
) -> Iterator[tuple[slice, Tensor]]:
    """Yield which images, and these [B, 3, H, W], each the one that its row was made from."""
    items = Decoded(group.samples, _WithContent(group.samples, transform))
    for here, (content, pixels) in decoded(items, group.samples, tools.workers, tools.batch_size, _together):
        _refuse_changed(group, group.keys.content[here], content, group.keys.keys[here])
        yield here, pixels


def _refuse_changed(
    group: GroupRows, before: NDArray[np.uint8], content: Sequence[str], keys: Sequence[str]
) -> None:
    changed = [
        key
        for key, one, now in zip(keys, before, content, strict=True)
        if one.tobytes() not in (UNKNOWN, bytes.fromhex(now))
    ]
    if changed:
        raise CacheMismatch(
            f"{len(changed)} images of {group.group.split} are not those that the rows of {group.cache} were "
            f"made from ({some_of(changed)})",
            fix="bring the images back, or bring the cache up to date first: the same cache-features command "
            "without --teacher.",
        )
