"""How good a run is by what was set aside: which of two students is shipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distill.headline import headline


def score_of(summary: Mapping[str, Any]) -> tuple[tuple[float, ...], str]:
    """Return how good a run is on what was set aside, the larger the better, and in words.

    With labels its accuracy first, then the cosine with the teacher's rows; without any the cosine first: an
    answer as the teacher's may be right or wrong. () where nothing was set aside.
    """
    for split in ("id_val", "pool_val"):
        accuracy = headline(summary, split)
        if accuracy is not None:
            cosine = summary["space"].get(split, {}).get("cosine", 0.0)
            if split == "id_val":
                return (accuracy, cosine), f"right on {accuracy:.1f}% of what was set aside"
            answers = (
                f"cosine {cosine:.3f} with the teacher on what was set aside, its answer in {accuracy:.1f}%"
            )
            return (cosine, accuracy), answers
    return (), "of which nothing could be measured"
