"""The line between classes that are trained on and classes that are not: each class is on its own side."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

from cache.runtime.errors import UserError, nearest_names, quoted, shortened, some_of
from cache.sources.samples import DataFolder
from cache.sources.splits import FOLDERS


def check_apart(folder: DataFolder, *, fix: str, texts: Mapping[str, str] | None = None) -> None:
    """Make sure that no class of a folder's OOD test is one of its training.

    ``texts`` are the names of class folders, where they have others. Case, underscores, spaces and
    how accents are written make no other class.

    Raises
    ------
    UserError
        If one is on both sides; the message names some, and the ``fix`` for who means it.
    """
    texts = texts or {}
    trained, tested = (folder.classes.get(name, ()) for name in ("train", "ood_test"))
    by_folder = {folded(name) for name in trained}
    by_text = {folded(texts.get(name, name)): name for name in trained}
    shared = []
    for name in tested:
        text = texts.get(name, name)
        if folded(name) in by_folder or folded(name) in by_text:
            shared.append(name)
        elif folded(text) in by_folder or folded(text) in by_text:
            other = by_text.get(folded(text), text)
            shared.append(f"{name}, which has the same name as {other}: {shortened(text)}")
    if not shared:
        return
    others = [name for name in tested if name not in trained]
    if len(shared) < len(tested) < 2 * len(shared):  # more likely the ID test, with some folders misnamed
        fix = (
            f"as the ID test it has {len(others)} classes too many ({some_of([*map(quoted, others)])}): "
            f"{nearest_names(others[0], trained)}call them as train does; or, if both are meant, {fix}"
        )
    else:
        fix = f"take them out of one of the two, or, if that is meant, {fix}"
    raise UserError(
        f"{len(shared)} classes of {folder.path} are in train and in the OOD test as well "
        f"({some_of(shared)}), which would not be out-of-distribution",
        fix=fix,
    )


def check_trained(where: object, class_names: Mapping[str, Sequence[str]]) -> None:
    """Make sure that the classes of the ID test, of ``class_names`` of each split, are among train's.

    Raises
    ------
    UserError
        If one is not: the ID accuracy would count a class that is never trained. ``where`` is their folder.
    """
    trained = class_names.get("train", ())
    odd = [name for name in class_names.get("id_test", ()) if name not in trained]
    if trained and odd:
        raise UserError(
            f"{len(odd)} classes of {where} are in the ID test ({FOLDERS['id_test']}/) but not in train: "
            f"{some_of([*map(quoted, odd)])}",
            fix=f"{nearest_names(odd[0], trained)}the ID test has other images of train's classes: call "
            "them as train does, or take them out.",
        )


def folded(name: str) -> str:
    """Return a class's name without case, underscores and spaces, an accent in one form."""
    return " ".join(unicodedata.normalize("NFC", name).casefold().replace("_", " ").split())
