"""Text banks on disk, ``texts/BANK.h5``: every text, the class it belongs to, and its embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.runtime.atomic_files import sha256_of
from cache.runtime.errors import UserError, nearest_names, some_of
from cache.runtime.hdf5_safety import open_hdf5
from cache.runtime.locks import only_writer
from cache.sources.key_hashes import hashes_of
from cache.sources.splits import MAIN_TEACHER
from cache.store.hdf5_columns import BLOBS, Column, Forms, map_columns, texts, write_columns
from cache.store.manifest import Manifest
from cache.store.manifest_lines import ListedBank
from cache.store.read_errors import reading

_FORMS: Forms = {
    "text": BLOBS,
    "class_folder": BLOBS,
    "class_index": ("i", (1,)),
    "text_embedding": ("f", (2,)),
}


# Of texts that are made of images.
_MADE_OF = "made_of"


def _no_images() -> NDArray[np.uint64]:
    return np.empty(0, dtype=np.uint64)


def image_hashes(split: str, keys: Sequence[str], at: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return what names images of a split in :attr:`TextBank.made_of`: of the keys ``at`` some places."""
    return hashes_of(f"{split}/{keys[i]}" for i in at.tolist())


@dataclass(frozen=True, kw_only=True, slots=True)
class TextBank:
    """T texts and their raw embeddings [T, D] float32.

    ``class_index[i]`` is the position of text i's class in ``class_folders``, or -1 for a text of no
    class. ``made_of`` are hashes of the test images that went into them (:func:`image_hashes`), which are not
    judged with it. A class may have several texts (one a template, say).
    """

    name: str
    texts: list[str]
    class_folders: tuple[str, ...]
    class_index: NDArray[np.int32]
    embeddings: NDArray[np.float32]
    made_of: NDArray[np.uint64] = field(default_factory=_no_images)

    def class_texts(self, class_names: Sequence[str]) -> NDArray[np.float32]:
        """Return one raw row a class, [C, D] float32, in the order of ``class_names``.

        A class with one text gives that text's row; with several, the mean of their unit rows, as
        zero-shot classification with several templates does.

        Raises
        ------
        UserError
            If a class has no text here.
        """
        number = {name: i for i, name in enumerate(self.class_folders)}
        missing = [name for name in class_names if name not in number]
        if missing:
            what = (
                f"no text for {some_of(missing, 5)}" if self.class_folders else "no classes, only free texts"
            )
            hint = nearest_names(missing[0], self.class_folders) if self.class_folders else ""
            raise UserError(
                f"the text bank {self.name!r} has {what}",
                fix=f"{hint}choose a bank with a text for every class.",
            )
        by_class = np.argsort(self.class_index, kind="stable")
        starts = np.searchsorted(self.class_index[by_class], np.arange(len(number) + 1))
        places = [slice(starts[number[name]], starts[number[name] + 1]) for name in class_names]
        return np.stack([_one_row(self.embeddings[by_class[place]]) for place in places])


# Gives a bank, and what its line in the manifest says about it.
MakeBank = Callable[[], tuple[TextBank, dict[str, Any]]]


def _one_row(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    if len(rows) == 1:
        return rows[0]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)


def words_of_labels(bank: TextBank, templates: Sequence[str]) -> dict[str, str]:
    """Return what people call each class folder: the words in its first text, where a template made it.

    They are in the bank's order, which is that of the file that named the classes.
    """
    if not templates or templates[0].count("{}") != 1:
        return {}
    before, after = templates[0].split("{}")
    first: dict[int, str] = {}
    for text, i in zip(bank.texts, bank.class_index.tolist(), strict=True):
        first.setdefault(i, text)
    return {
        bank.class_folders[i]: text[len(before) : len(text) - len(after)]
        for i, text in first.items()
        if i >= 0 and text.startswith(before) and text.endswith(after)
    }


def save_bank(cache: Path, bank: TextBank, *, teacher: str = MAIN_TEACHER, **about: Any) -> ListedBank:
    """Write one bank, whole or not at all, and return the manifest's line for it with more ``about`` it."""
    name = f"texts/{bank.name}.h5" if teacher == MAIN_TEACHER else f"texts/{teacher}.{bank.name}.h5"
    columns: dict[str, Column] = {
        "text": texts(bank.texts),
        "class_folder": texts(bank.class_folders),
        "class_index": bank.class_index,
        "text_embedding": bank.embeddings,
        **({_MADE_OF: bank.made_of} if len(bank.made_of) else {}),
    }
    write_columns(cache / name, columns)
    return ListedBank.of(cache, name, texts=len(bank.texts), **about)


def add_bank(
    cache: Path,
    name: str,
    make: MakeBank,
    *,
    made_from: str,
    replaces: bool = False,
    teacher: str = MAIN_TEACHER,
) -> ListedBank:
    """Add a bank to a cache, as its only writer, and return its line; one of the same texts stays as it is.

    ``made_from`` names its texts.

    Raises
    ------
    UserError
        If the cache has another bank of that name, and this one does not replace it.
    """
    with only_writer(cache):
        manifest = Manifest.load(cache)
        there = manifest.of_teacher(teacher).banks.get(name)
        if there is not None and there.made_from != made_from and not replaces:
            raise UserError(
                f"the cache {cache} has a text bank {name!r} of other texts already",
                fix="choose another --bank, or add --replace.",
            )
        manifest = keep_bank(cache, manifest, name, make, made_from=made_from, teacher=teacher)
        return manifest.of_teacher(teacher).banks[name]


def keep_bank(
    cache: Path,
    manifest: Manifest,
    name: str,
    make: MakeBank,
    *,
    made_from: str,
    teacher: str = MAIN_TEACHER,
) -> Manifest:
    """Return a manifest that lists a bank of these texts: as it is there and sound, or made and saved."""
    listed = manifest.of_teacher(teacher).banks.get(name)
    if listed is None or listed.made_from != made_from or not listed.is_sound(cache):
        bank, about = make()
        listed = save_bank(cache, bank, teacher=teacher, made_from=made_from, **about)
        manifest = manifest.with_bank(name, listed, teacher=teacher)
        manifest.save(cache)
    return manifest


def load_bank(path: Path, name: str, *, sha256: str) -> TextBank:
    """Read one bank, whose file has that checksum; UserError when it is missing or damaged."""
    with reading(path, what="the text bank"):
        if sha256_of(path) != sha256:
            raise ValueError("its checksum is not the manifest's")
        with open_hdf5(path) as file:
            more: Forms = {_MADE_OF: ("u", (1,))} if _MADE_OF in file else {}
        columns = map_columns(path, {**_FORMS, **more})
        bank = TextBank(
            name=name,
            texts=columns["text"].texts(),
            class_folders=tuple(columns["class_folder"].texts()),
            class_index=np.array(columns["class_index"]),
            embeddings=np.array(columns["text_embedding"]),
            made_of=np.array(columns.get(_MADE_OF, _no_images()), dtype=np.uint64),
        )
        if not len(bank.texts) == len(bank.class_index) == len(bank.embeddings):
            raise ValueError("its columns differ in length")
        if not (bank.class_index < len(bank.class_folders)).all():
            raise ValueError("it holds texts of no class")
    return bank


def make_bank(name: str, texts: Sequence[str], classes: Sequence[str], embeddings: NDArray[Any]) -> TextBank:
    """Return a bank whose text i belongs to the class folder ``classes[i]`` ('' for none)."""
    folders = tuple(dict.fromkeys(folder for folder in classes if folder))
    index = {folder: i for i, folder in enumerate(folders)}
    return TextBank(
        name=name,
        texts=list(texts),
        class_folders=folders,
        class_index=np.array([index.get(folder, -1) for folder in classes], dtype=np.int32),
        embeddings=np.asarray(embeddings, dtype=np.float32),
    )
