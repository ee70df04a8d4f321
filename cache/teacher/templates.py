"""Sets of templates that open_clip has, by name: what its zero-shot classifiers are made with."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cache.runtime.errors import WrongOption, nearest_names

# How open_clip names them: OPENAI_IMAGENET_TEMPLATES is openai_imagenet here.
SETS = ("openai_imagenet", "simple_imagenet")


def templates_of(given: Iterable[str]) -> tuple[str, ...]:
    """Return templates, each name of a set replaced by what is in it; WrongOption for what is neither."""
    return tuple(one for text in given for one in ([text] if "{" in text else _set(text)))


def _set(name: str) -> list[str]:
    if name not in SETS:
        raise WrongOption(
            f"--template {name!r:.80} has no single {{}} where the class name goes, and is no set",
            fix=f"{nearest_names(name, SETS)}write 'a photo of {{}}', or choose from {', '.join(SETS)}.",
        )
    # Here, because it takes seconds to import; torchvision before open_clip, which imports it itself.
    from cache.runtime.torchvision_compat import torchvision  # noqa: F401

    # isort: split
    from open_clip import zero_shot_metadata

    made: list[Callable[[str], str]] = getattr(zero_shot_metadata, f"{name.upper()}_TEMPLATES")
    return [fill("{}") for fill in made]
