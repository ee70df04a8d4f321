"""The names of the splits: on disk as the original code has them, everywhere else as the field says.

``train`` holds the in-distribution (ID) classes, ``pool`` images without labels, ``id_test`` other images of
train's classes, ``ood_test`` the out-of-distribution (OOD) classes that are never trained on. A cache needs
train or a pool; whoever lacks another split leaves out what is told of it.
"""

from __future__ import annotations

from cache.runtime.errors import UserError, nearest_names

# The left-hand names are those of folders on disk, where the original code has one its. They are accepted
# everywhere a split is read and printed nowhere else.
SPLIT_ALIASES = {
    "train": "train",
    "pool": "pool",
    "unlabelled": "pool",
    "val_on_train": "id_test",
    "val": "ood_test",
}
SPLITS = tuple(dict.fromkeys(SPLIT_ALIASES.values()))
# Its images have no label: nothing is judged on them.
POOL = "pool"
LABELLED = tuple(name for name in SPLITS if name != POOL)
TESTS = ("id_test", "ood_test")
# The teacher that a cache was built with; others are added beside it.
MAIN_TEACHER = "main"
FOLDERS = {name: next(folder for folder, of in SPLIT_ALIASES.items() if of == name) for name in SPLITS}


def split_name(name: str) -> str:
    """Return our name of a split given by either name; UserError if no split has that name."""
    if name in SPLITS:
        return name
    if name in SPLIT_ALIASES:
        return SPLIT_ALIASES[name]
    names = [*SPLITS, *SPLIT_ALIASES]
    raise UserError(
        f"{name!r} is not a split", fix=f"{nearest_names(name, names)}choose from {', '.join(SPLITS)}."
    )
