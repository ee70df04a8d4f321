"""The rows of one shard: what the teacher said of each image, beside the image's key."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRows:
    """n rows of one split. Row i of every field is one image.

    ``labels`` are [n], or [n, C] of 0 and 1 where an image can have several. ``image_embedding`` and
    ``caption_embedding`` are [n, D], raw (L-mse in its raw form needs their length), float16 or float32,
    memory-mapped where the format allows. ``more`` are further columns of such numbers, of any shape
    after n, by name. ``file_*`` tell a changed image from an unchanged one.
    """

    split: str
    keys: list[str]
    labels: NDArray[np.int64]
    image_embedding: NDArray[Any]
    file_sha256: list[str]
    file_bytes: NDArray[np.int64]
    file_mtime_ns: NDArray[np.int64]
    captions: list[str] | None = None
    caption_embedding: NDArray[Any] | None = None
    more: dict[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns = [getattr(self, f.name) for f in fields(self) if f.name not in ("split", "more")]
        sizes = {len(column) for column in (*columns, *self.more.values()) if column is not None}
        if len(sizes) > 1:
            raise ValueError(f"the columns of a shard differ in length: {sorted(sizes)}")

    def __len__(self) -> int:
        return len(self.keys)
