"""The rows of one shard: what the teacher said of each image, beside the image's key."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRows:
    """n rows of one split. Row i of every field is one image.

    ``labels`` are [n], or [n, C] of 0 and 1 where an image can have several. ``image_embedding`` and
    ``caption_embedding`` are [n, D], raw (L-mse in its raw form needs their length), float16 or float32,
    arrays, or :class:`cache.store.mapped_arrays.CheckedRows` where the format allows to map them.
    ``more`` are further columns of such numbers, of any shape after n, by name. ``file_*`` tell a
    changed image from an unchanged one.
    """

    split: str
    keys: list[str]
    labels: NDArray[np.int64]
    image_embedding: Any
    file_sha256: list[str]
    file_bytes: NDArray[np.int64]
    file_mtime_ns: NDArray[np.int64]
    captions: list[str] | None = None
    caption_embedding: Any = None
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns = [getattr(self, f.name) for f in fields(self) if f.name not in ("split", "more")]
        sizes = {len(column) for column in (*columns, *self.more.values()) if column is not None}
        if len(sizes) > 1:
            raise ValueError(f"the columns of a shard differ in length: {sorted(sizes)}")

    def __len__(self) -> int:
        return len(self.keys)

    def loaded(self) -> ShardRows:
        """Return the rows with every column read into memory, and so checked."""
        captions = self.caption_embedding
        return replace(
            self,
            image_embedding=np.asarray(self.image_embedding),
            caption_embedding=None if captions is None else np.asarray(captions),
            more={name: np.asarray(column) for name, column in self.more.items()},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class WrongRows:
    """Which ``rows`` of a file are not what was written; ``names`` are the keys or texts of all, if read."""

    rows: list[int]
    names: list[str]
