"""The names of the splits: in folders also those of the original code, everywhere else the field's.

``train`` holds the in-distribution (ID) classes, ``pool`` images without labels, ``id_test`` other images of
train's classes, ``ood_test`` the out-of-distribution (OOD) classes that are never trained on. A cache needs
train or a pool; whoever lacks another split leaves out what is told of it.
"""

from __future__ import annotations

from cache.runtime.errors import UserError, nearest_names

SPLITS = ("train", "pool", "id_test", "ood_test")
# Its images have no label: nothing is judged on them.
POOL = "pool"
LABELLED = tuple(name for name in SPLITS if name != POOL)
TESTS = ("id_test", "ood_test")
# What folders and lists may call them beside that: the original code's names, and the field's other ones.
SPLIT_ALIASES = {"val_on_train": "id_test", "val": "ood_test", "unlabelled": "pool", "unlabeled": "pool"}
# The teacher that a cache was built with; others are added beside it.
MAIN_TEACHER = "main"
# What we call the folders that we write.
FOLDERS = {"train": "train", "pool": "pool", "id_test": "val_on_train", "ood_test": "val"}


def split_name(name: str) -> str:
    """Return our name of a split given by any of its names; UserError if no split has that name."""
    if name in SPLITS:
        return name
    if name in SPLIT_ALIASES:
        return SPLIT_ALIASES[name]
    names = [*SPLITS, *SPLIT_ALIASES]
    raise UserError(
        f"{name!r} is not a split", fix=f"{nearest_names(name, names)}choose from {', '.join(SPLITS)}."
    )
