"""How teachers are named, and what was meant where none is called so."""

from __future__ import annotations

# Before open_clip and timm, which import torchvision themselves.
from cache.runtime.torchvision_compat import torchvision  # noqa: F401

# isort: split
import open_clip
import timm

from cache.runtime.errors import nearest_names, quoted

KINDS = "an open_clip name, timm:NAME, FILE.py:NAME, local-dir:FOLDER or hf-hub:ORG/REPO"
MOST = 3


def near_teachers(name: str) -> str:
    """Return ``did you mean 'x' or 'y'? `` for open_clip's models near a name, else timm's; or nothing.

    A part of a name will do: ``dinov2``.
    """
    of_timm = [f"timm:{model}" for model in timm.list_models()]
    for models in (open_clip.list_models(), of_timm):
        if near := nearest_names(name, models):
            return near
    part = name.casefold()
    having = [model for model in (*open_clip.list_models(), *of_timm) if part and part in model.casefold()]
    # The plainest first: names grow with what is special.
    having.sort(key=len)
    return f"did you mean {' or '.join(map(quoted, having[:MOST]))}? " if having else ""
