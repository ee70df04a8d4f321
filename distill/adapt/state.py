"""What an adaptation has done so far: ``adapt.json``, by which the same command goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cache.runtime.atomic_files import digest, sha256_of, write_json
from cache.runtime.errors import some_of
from cache.runtime.json_values import value_of
from cache.store.manifest import NAME as MANIFEST
from distill.adapt.costs import Pace
from distill.adapt.options import AdaptOptions, in_words

NAME = "adapt.json"


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """Which run the model in the folder is of, made from ``inputs``, and how good that is; see ``Score``."""

    run: str
    inputs: str
    score: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class State:
    """What was asked for, and what is done of it.

    ``plan`` is what was decided when the work began (image size, epochs), for these ``inputs``, and ``runs``
    from which inputs each run was begun; ``seconds`` are what each stage took, all times together;
    ``text_pace`` what the teacher takes for a text, ``pace`` what training takes.
    """

    options: dict[str, Any] = field(default_factory=dict)
    inputs: str = ""
    plan: dict[str, float] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    shipped: Shipped | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    text_pace: float = 0.0
    pace: Pace | None = None

    @classmethod
    def load(cls, work: Path) -> State:
        """Read it; what is not there, or not whole, was not begun."""
        try:
            return value_of(cls, json.loads((work / NAME).read_text(encoding="utf-8")), name=NAME)
        except (OSError, ValueError):
            return cls()

    def save(self, work: Path) -> None:
        """Write it, whole or not at all."""
        write_json(work / NAME, asdict(self))

    def took(self, what: str, seconds: float) -> State:
        """Return it with what a stage took, added to what it took before it was stopped."""
        return replace(self, seconds={**self.seconds, what: self.seconds.get(what, 0.0) + seconds})


def asked(options: AdaptOptions) -> dict[str, Any]:
    """Return what is asked for as plain values, of files what they hold: what another result would be of."""
    found = options.anywhere()
    values = {name: value for name, value in asdict(found).items() if name not in ("out", "device")}
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
    plain |= {"sources": [*options.sources], "names": [*options.names]}
    for name in ("code", "start"):
        path = Path(plain[name] or "")
        if plain[name] and path.is_file():
            plain[name] = f"{path} ({sha256_of(path)[:12]})"
    return plain


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a line for each option that is another than it was; none where nothing was begun."""
    return [
        _change(name, before.get(name), value)
        for name, value in now.items()
        if before and before.get(name) != value
    ]


def _change(name: str, before: Any, now: Any) -> str:
    if before and now and isinstance(before, list) and isinstance(now, list):
        new, gone = ([one for one in a if one not in b] for a, b in ((now, before), (before, now)))
        told = [f"{word} {some_of(those)}" for word, those in (("adds", new), ("leaves out", gone)) if those]
        return f"--{name} {', and '.join(told) or 'has another order'}"
    return f"--{name} was {_shown(name, before)}, and is {_shown(name, now)}"


def inputs_of(options: Mapping[str, Any], cache: Path, photos: Path | None) -> str:
    """Return what names all that a run can depend on: what was asked for but the budget, cache and photos."""
    asked_for = {name: value for name, value in options.items() if name not in ("budget", "sources")}
    files = [cache / MANIFEST, *([photos] if photos is not None else [])]
    return digest([asked_for, *(sha256_of(file) for file in files)])


def _shown(name: str, value: Any) -> str:
    if value in (None, "", []):
        return "not given"
    if name == "budget":
        return in_words(value)
    return some_of(value) if isinstance(value, list) else str(value)
