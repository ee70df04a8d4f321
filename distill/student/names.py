"""Names of students: torchvision's, timm's, those of the Hugging Face hub, and functions of one's own."""

from __future__ import annotations

from functools import cache
from types import ModuleType

from cache.runtime.errors import UserError, nearest_names
from cache.runtime.own_code import own_code_in

TORCHVISION, TIMM, HUB, OWN = "torchvision", "timm", "hf-hub", "own"
_VIT_MARKS = (
    *("vit", "deit", "beit", "eva", "swin", "cait", "xcit", "mixer", "former", "hiera", "pit_", "tnt_"),
    *("twins", "volo", "coat", "nest_", "mlp", "pvt", "aimv2"),
)


def resolve(arch: str) -> tuple[str, str]:
    """Return (library, name) of a student; UserError with near names when there is none.

    Of the hub the name is ``ORG/NAME``, of one's own code the function's.
    """
    if own := own_code_in(arch):
        return OWN, own[1]
    library, separator, name = arch.partition(":")
    if library == HUB and name:
        return HUB, name
    if not separator:
        library, name = next((lib for lib in _NAMES if arch in _NAMES[lib]()), ""), arch
    if library not in _NAMES or name not in _NAMES[library]():
        names = [other for lib in _NAMES for other in _NAMES[lib]()]
        raise UserError(
            f"no student is called {arch!r}",
            fix=f"{nearest_names(name, names)}give a torchvision or timm model name, hf-hub:ORG/NAME, or "
            "FILE.py:NAME of your own.",
        )
    return library, name


def torchvision_models() -> ModuleType:
    """Return torchvision's models."""
    from cache.runtime.torchvision_compat import torchvision  # here, because it takes a second

    models: ModuleType = torchvision.models
    return models


def timm_module() -> ModuleType:
    """Return timm."""
    # Before timm, which imports torchvision itself. Here, because both take a second.
    import cache.runtime.torchvision_compat  # noqa: F401  # isort: skip
    import timm

    module: ModuleType = timm
    return module


@cache
def torchvision_names() -> frozenset[str]:
    """Return the names of torchvision's classification models."""
    return frozenset(torchvision_models().list_models(module=torchvision_models()))


@cache
def timm_names() -> frozenset[str]:
    """Return the names of timm's models, with and without the tag of their weights."""
    return frozenset([*timm_module().list_models(), *timm_module().list_pretrained()])


_NAMES = {TORCHVISION: torchvision_names, TIMM: timm_names}


def family(arch: str) -> str:
    """Return ``vit`` for transformers and their kin, else ``cnn``."""
    name = resolve(arch)[1].lower()
    return "vit" if any(mark in name for mark in _VIT_MARKS) else "cnn"
