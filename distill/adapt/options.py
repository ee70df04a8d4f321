"""What ``distill adapt`` can be told, and where it puts what it makes."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from cache.runtime.errors import WrongOption

WORK = "work"
_UNITS = {"h": 3600, "m": 60, "s": 1}


@dataclass(frozen=True, kw_only=True)
class AdaptOptions:
    """What is asked for: ``sources`` and ``names``, or a ``cache`` that there is already.

    Of a cache ``sources`` are where its photos are now, none: where they were.
    ``model`` and ``pretrained`` are the teacher's; ``arch`` and ``start`` the student's, ``code`` the file of
    one of one's own; ``budget`` is in seconds, None: the whole recipe.
    """

    out: Path
    sources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    cache: Path | None = None
    model: str = ""
    pretrained: str | None = None
    arch: str | None = None
    start: str | None = None
    code: Path | None = None
    seed: int = 0
    device: str = "auto"
    budget: float | None = None

    def __post_init__(self) -> None:
        if self.cache is None and not (self.sources and self.names):
            missing = (
                "photos: name a folder or a list"
                if not self.sources
                else "--names: a list, or a file of them"
            )
            raise WrongOption(f"there are no {missing}", fix="give both, or a finished --cache.")
        if self.cache is not None and self.names:
            raise WrongOption("--cache has its names already", fix="leave --names out, or --cache.")
        for source in map(Path, self.sources):
            if self.out.resolve().is_relative_to(source.resolve()) and source.is_dir():
                raise WrongOption(
                    f"--out {self.out} lies in {source}, all pictures of which are learnt from",
                    fix="choose a folder beside it.",
                )

    @property
    def work(self) -> Path:
        """Where everything lies that is none of the model: cache, runs, report."""
        return self.out / WORK

    @property
    def data_name(self) -> str:
        """What people call the photos: the last part of each source's path; '' of a cache's own."""
        paths = (source.partition("=")[2] or source for source in self.sources)
        return ", ".join(dict.fromkeys(Path(path).resolve().name for path in paths))

    def anywhere(self) -> AdaptOptions:
        """Return it with the paths of what is read as they are found from any working folder."""
        named = {"cache": self.cache, "code": self.code}
        paths = {name: path.resolve() if path else None for name, path in named.items()}
        start = str(Path(self.start).resolve()) if self.start and Path(self.start).is_file() else self.start
        return replace(self, start=start, **paths)  # type: ignore[arg-type]


def seconds_of(text: str) -> float:
    """Read a time such as ``10m``, ``90s`` or ``1h30m``; ValueError for another text."""
    parts = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text)
    if not text or parts is None:
        raise ValueError(f"{text!r:.40} is no time: write it like 10m, 90s or 1h30m")
    seconds = sum(float(one or 0) * unit for one, unit in zip(parts.groups(), _UNITS.values(), strict=True))
    if not 0 < seconds < 1e9:
        raise ValueError(f"{text!r:.40} is no time to work in: write it like 10m, 90s or 1h30m")
    return seconds


def in_words(seconds: float) -> str:
    """Return a time in the unit that people would say it in."""
    if seconds < 120:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
