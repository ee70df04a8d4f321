"""How teachers are named, and what was meant where none is called so."""

from __future__ import annotations

import difflib
import sys
from importlib.util import find_spec
from pathlib import Path

from cache.runtime.errors import UserError, nearest_names, quoted

KINDS = "an open_clip name, timm:NAME, FILE.py:NAME, local-dir:FOLDER or hf-hub:ORG/REPO"
MOST = 3
# So near a name no other library's can be meant.
NEAR = 0.85


def open_clip_name(model: str) -> str:
    """Return open_clip's name of a model; UserError with near names where there is none."""
    name = model.replace("/", "-")
    if name not in open_clip_models():
        raise UserError(f"no teacher is called {model!r}", fix=f"{near_teachers(name)}give {KINDS}.")
    return name


def open_clip_models() -> list[str]:
    """Return the names of open_clip's models; where it is not imported yet, by the files that it has of them.

    To import it takes seconds.
    """
    if loaded := sys.modules.get("open_clip"):  # to which a program may have added some
        return list(loaded.list_models())
    spec = find_spec("open_clip")
    assert spec is not None
    assert spec.origin is not None
    return sorted(file.stem for file in (Path(spec.origin).parent / "model_configs").glob("*.json"))


def near_teachers(name: str) -> str:
    """Return ``did you mean 'x' or 'y'? `` for models of open_clip and timm near a name; or nothing.

    A part of a name will do: ``dinov2``.
    """
    models = open_clip_models()
    if difflib.get_close_matches(name, models, n=1, cutoff=NEAR):
        return nearest_names(name, models)
    from cache.runtime.torchvision_compat import torchvision  # noqa: F401  (before timm, which imports it)

    # isort: split
    import timm

    models += [f"timm:{model}" for model in timm.list_models()]
    if near := nearest_names(name, models):
        return near
    having = [model for model in models if name.casefold() in model.casefold()]
    having.sort(key=len)  # the plainest first: names grow with what is special
    return f"did you mean {' or '.join(map(quoted, having[:MOST]))}? " if having else ""
