"""The names of the splits: in folders also those of the original code, everywhere else the field's.

``train`` holds the in-distribution (ID) classes, ``pool`` images without labels, ``id_test`` other images of
train's classes, ``ood_test`` the out-of-distribution (OOD) classes that are never trained on. A cache needs
train or a pool; whoever lacks another split leaves out what is told of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cache.runtime.errors import UserError, nearest_names

SPLITS = ("train", "pool", "id_test", "ood_test")
# Its images have no label: nothing is judged on them.
POOL = "pool"
LABELLED = tuple(name for name in SPLITS if name != POOL)
TESTS = ("id_test", "ood_test")
# What folders and lists may call them beside that: the original code's names, and the field's other ones.
SPLIT_ALIASES = {"val_on_train": "id_test", "val": "ood_test", "unlabelled": "pool", "unlabeled": "pool"}
# What is held out may be the ID or the OOD test: its classes decide.
HELD_OUT = "val"
# What the field calls it; of several folders the first of these is taken.
HELD_OUT_NAMES = (HELD_OUT, "valid", "validation", "dev", "test", "testing", "eval")
_FIELDS_NAMES = {"training": "train", "unsupervised": "pool", **dict.fromkeys(HELD_OUT_NAMES, HELD_OUT)}
# All names of splits.
NAMES = (*SPLITS, *SPLIT_ALIASES, *_FIELDS_NAMES)
# The teacher that a cache was built with; others are added beside it.
MAIN_TEACHER = "main"
# What the mean of several teachers' heads is called, SPLIT@mean: no teacher is called so.
MEAN = "mean"
# What we call the folders that we write.
FOLDERS = {"train": "train", "pool": "pool", "id_test": "val_on_train", "ood_test": "val"}


def split_name(name: str) -> str:
    """Return our name of a split given by any of its names; UserError if no split has that name."""
    if name in SPLITS:
        return name
    if name in SPLIT_ALIASES:
        return SPLIT_ALIASES[name]
    raise UserError(
        f"{name!r} is not a split",
        fix=f"{nearest_names(name, [*SPLITS, *SPLIT_ALIASES])}choose from {', '.join(SPLITS)}.",
    )


def split_called(name: str) -> str:
    """Return the split that is called so, in any case; :data:`HELD_OUT` of either test, '' for none."""
    name = name.lower()
    return _FIELDS_NAMES.get(name, "") or (name if name in SPLITS else SPLIT_ALIASES.get(name, ""))


def splits_called(names: Sequence[str]) -> list[str]:
    """Return the split that each folder or file of some is called as, as :func:`split_called`.

    A folder of anything may be called ``test`` or ``dev``: of those names but ``val`` one says something
    where another is train's.
    """
    called = [split_called(name) for name in names]
    if "train" in called:
        return called
    odd = {*HELD_OUT_NAMES} - {HELD_OUT}
    return ["" if name.lower() in odd else split for name, split in zip(names, called, strict=True)]


def held_out_first(names: Iterable[str]) -> list[str]:
    """Return names of what is held out, ``val`` first, as :data:`HELD_OUT_NAMES` has them."""
    return sorted(names, key=lambda name: HELD_OUT_NAMES.index(name.lower()))
