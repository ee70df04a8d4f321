"""What should be looked at in a cache: duplicates, and how its teacher classifies: ``index/judged.json``.

Each row is read for it. Of the same rows, classes and texts it is the same, so that a run that changes
nothing reads none. The file may be removed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from cache.build.near_duplicates import near_duplicates
from cache.build.zero_shot import ZeroShot, doubts, zero_shot
from cache.reader import EmbeddingCache
from cache.runtime.atomic_files import digest, write_json
from cache.runtime.errors import some_of
from cache.runtime.json_values import value_of
from cache.store.duplicates import Duplicate, duplicates_of
from cache.store.key_index import FOLDER

NAME = "judged.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgements:
    """Images in two splits or classes, the teacher's accuracies, and lines on what is odd of them."""

    duplicates: tuple[Duplicate, ...] = ()
    zero_shot: tuple[ZeroShot, ...] = ()
    doubts: tuple[str, ...] = ()

    @classmethod
    def of(cls, cache: EmbeddingCache, banks: Sequence[str], apart: Sequence[str]) -> Self:
        """Judge a finished cache by some text banks, ``apart`` those that tell classes apart."""
        path = cache.path / FOLDER / cache.column_name(NAME)
        made_from = _made_from(cache, banks, apart)
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            if table["made_from"] == made_from:
                kept: Self = value_of(cls, table["judged"], name="it")
                return kept
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
        judged = tuple(zero_shot(cache, banks))
        made = cls(
            duplicates=tuple(duplicates_of(cache.path, cache.journal)),
            zero_shot=judged,
            doubts=(*doubts(cache, apart, judged), *_never_trained(cache), *near_duplicates(cache)),
        )
        write_json(path, {"made_from": made_from, "judged": asdict(made)})
        return made


def _never_trained(cache: EmbeddingCache) -> list[str]:
    """Say which classes of the ID test have no row to be trained on, as --split may leave few images."""
    if not {"train", "id_test"} <= {*cache.split_names} or np.ndim(cache.split("train").labels) != 1:
        return []
    names = cache.class_names("train")
    trained = {names[label] for label in np.unique(cache.split("train").labels).tolist() if label >= 0}
    tests = cache.split("id_test")
    tested = {tests.class_names[label] for label in np.unique(tests.labels).tolist() if label >= 0}
    odd = sorted(tested - trained)
    return [f"train: {len(odd):,} classes of the ID test have no image in it ({some_of(odd)})"] if odd else []


def _made_from(cache: EmbeddingCache, banks: Sequence[str], apart: Sequence[str]) -> str:
    names = cache.split_names
    rows: list[Any] = [[name, asdict(cache.split(name).digests), cache.class_names(name)] for name in names]
    texts = [[name, cache.listed_bank(name).sha256, name in apart] for name in banks]
    return digest([rows, texts, cache.fingerprint])
