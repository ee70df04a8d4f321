"""The names of the splits: on disk as the original code has them, everywhere else as the field says.

``train`` holds the in-distribution (ID) classes, ``id_test`` other images of the same classes,
``ood_test`` the out-of-distribution (OOD) classes that are never trained on.
"""

from __future__ import annotations

from cache.runtime.errors import UserError, nearest_names

# The left-hand names are the original code's, on disk. They are accepted everywhere a split is read
# and printed nowhere else.
SPLIT_ALIASES = {"train": "train", "val_on_train": "id_test", "val": "ood_test"}
SPLITS = tuple(SPLIT_ALIASES.values())
# The teacher that a cache was built with; others are added beside it.
MAIN_TEACHER = "main"
FOLDERS = {name: folder for folder, name in SPLIT_ALIASES.items()}


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
