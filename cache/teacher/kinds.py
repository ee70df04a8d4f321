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
    """Return ``did you mean 'x' or 'y'? `` for models of open_clip and timm near a name; or nothing.

    A part of a name will do: ``dinov2``.
    """
    models = [*open_clip.list_models(), *(f"timm:{model}" for model in timm.list_models())]
    if near := nearest_names(name, models):
        return near
    having = [model for model in models if name.casefold() in model.casefold()]
    having.sort(key=len)  # the plainest first: names grow with what is special
    return f"did you mean {' or '.join(map(quoted, having[:MOST]))}? " if having else ""
