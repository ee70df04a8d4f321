"""Class sets: what an image can be called, chosen at call time from the text banks of a shipped model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from cache.runtime.atomic_files import replacing
from cache.runtime.errors import UserError, WrongOption, nearest_names
from cache.sources.names import separated
from cache.store.checksums import append_checksum, matches_appended_checksum
from cache.store.npz_files import read_npz, values_of
from distill.deploy.info import undamaged

COLUMNS = ("labels", "classes", "texts")
# A vocabulary among text banks, of which none can have this name.
VOCABULARY = "the vocabulary"
SAFETENSORS = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class ClassSet:
    """C classes and their unit embeddings [C, D] float32.

    ``labels`` is what people read, ``classes`` the class folders that they were trained or judged under (''
    where there is none), ``texts`` what the teacher's text tower read.
    """

    labels: tuple[str, ...]
    classes: tuple[str, ...]
    texts: tuple[str, ...]
    embeddings: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, places: Sequence[int]) -> ClassSet:
        """Return some of the classes, in that order."""
        names = {name: tuple(getattr(self, name)[i] for i in places) for name in COLUMNS}
        return ClassSet(embeddings=self.embeddings[list(places)], **names)

    def find(self, label: str) -> int | None:
        """Return the place of a label, class folder or text, whatever its case; None where it is not here."""
        return self._places.get(folded(label))

    @cached_property
    def _places(self) -> dict[str, int]:
        places: dict[str, int] = {}
        for column in COLUMNS:
            for i, name in enumerate(getattr(self, column)):
                places.setdefault(folded(name), i)
        places.pop("", None)  # the class of a text that has none
        return places

    def save(self, path: Path) -> None:
        """Write it as plain arrays that numpy reads without pickle, with a checksum; whole or not at all.

        Beside them, for programs elsewhere, in safetensors: ``embeddings``, and the names as JSON in the
        metadata.
        """
        arrays = {name: np.array(getattr(self, name), dtype=np.str_) for name in COLUMNS}
        with replacing(path) as temporary:
            with open(temporary, "wb") as file:
                np.savez(file, embeddings=self.embeddings, **arrays)  # type: ignore[arg-type]
            append_checksum(temporary)
        names = {name: json.dumps(getattr(self, name), ensure_ascii=False) for name in COLUMNS}
        with replacing(path.with_suffix(SAFETENSORS)) as temporary:
            temporary.write_bytes(save({"embeddings": self.embeddings}, metadata=names))

    @classmethod
    def load(cls, path: Path, *, embed_dim: int) -> ClassSet:
        """Read what :meth:`save` wrote; UserError when it is damaged or of another embed_dim."""
        with undamaged(path, what="the text bank "):
            if not matches_appended_checksum(path):
                raise ValueError("it differs from its checksum")
            file = read_npz(path)
            names = {name: tuple(values_of(file[name], "U")) for name in COLUMNS}
            embeddings = file["embeddings"]
            if embeddings.dtype != np.float32 or embeddings.shape != (len(names["labels"]), embed_dim):
                raise ValueError(f"embeddings are {embeddings.dtype} {embeddings.shape}")
            if len({len(column) for column in names.values()}) > 1:
                raise ValueError("its columns differ in length")
            return cls(embeddings=embeddings, **names)


def join(sets: Iterable[ClassSet]) -> ClassSet:
    """Return several class sets as one."""
    every = list(sets)
    names = {name: tuple(chain(*(getattr(one, name) for one in every))) for name in COLUMNS}
    return ClassSet(embeddings=np.concatenate([one.embeddings for one in every]), **names)


def names_in(values: Iterable[str], banks: Mapping[str, ClassSet]) -> tuple[str, ...]:
    """Return the names in values.

    A value that some bank knows is one name, whatever commas it has. Any other is several, apart by commas;
    a part in double quotes keeps its own: ``"bell pepper, red",plum``.

    Raises
    ------
    WrongOption
        If there is none.
    """
    names: list[str] = []
    for value in values:
        if any(bank.find(value) is not None for bank in banks.values()):
            names.append(value)
            continue
        names += separated(value)
    if not names:
        raise WrongOption("names is empty", fix="give at least one, as a,b,c.")
    return tuple(names)


def pick(banks: Mapping[str, ClassSet], names: Sequence[str]) -> ClassSet:
    """Return the class set of some names, each from the first bank that has it.

    UserError if one is there twice, or no bank has one; the message names near ones.
    """
    chosen: list[ClassSet] = []
    for name in names:
        places = ((bank, bank.find(name)) for bank in banks.values())
        bank, place = next(((bank, place) for bank, place in places if place is not None), (None, -1))
        if bank is None:
            raise UserError(
                f"{'nothing here' if VOCABULARY in banks else 'no text bank'} has the name {name!r:.200}",
                fix=f"{_near(name, banks)}'distill texts MODEL' lists them, and "
                "'distill texts MODEL --add' embeds new ones.",
            )
        chosen.append(bank.rows([place]))
    together = join(chosen)
    twice = next((label for label, count in Counter(together.labels).items() if count > 1), None)
    if twice is not None:
        raise WrongOption(f"the name {twice!r} is there twice", fix="give each name once.")
    return together


def _near(name: str, banks: Mapping[str, ClassSet]) -> str:
    """Return what names are near; of a vocabulary such as begin alike, or a typo would cost 0.4 s."""
    first = folded(name)[:1]
    near = dict.fromkeys(
        label
        for bank, one in banks.items()
        for label in one.labels
        if bank != VOCABULARY or folded(label).startswith(first)
    )
    return nearest_names(name, near)


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return rows of length 1, float32; a row of zeros stays one."""
    rows = np.asarray(rows, dtype=np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(lengths, 1e-12)


def folded(name: str) -> str:
    """Return a name as names are compared: without case, an underscore being a space."""
    return " ".join(name.replace("_", " ").split()).casefold()
