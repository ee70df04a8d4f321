"""Which classes of train are set aside to choose on: by the hash of their name, the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cache.sources.key_hashes import hashes_of
from distill.config_fields import require
from distill.data.id_val import shares_of

# Among one class any answer is right.
LEAST = 2


def classes_aside(class_names: Sequence[str], share: float) -> tuple[str, ...]:
    """Return the classes whose names' hashes fall into a share of 1, in their order; two at least.

    UserError where no two would be left to train on.
    """
    if not share:
        return ()
    require(
        len(class_names) >= 2 * LEAST,
        f"data.class_val is {share:g}, and {len(class_names)} classes are too few to set two aside",
        "set data.class_val=0, or choose on images that are set aside: data.id_val=0.1.",
    )
    drawn = shares_of(hashes_of(class_names))
    count = min(max(LEAST, int((drawn < share).sum())), len(class_names) - LEAST)
    return tuple(class_names[i] for i in np.sort(np.argsort(drawn, kind="stable")[:count]).tolist())
