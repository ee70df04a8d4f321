"""What a folder is that was given in the place of one of another kind."""

from __future__ import annotations

from pathlib import Path

_KINDS = {"manifest.json": "a cache", "model.json": "an exported model", "config.toml": "a run"}


def is_instead(folder: Path) -> str:
    """Return `` (it is a run)`` of a folder of one of our kinds, in words; '' of any other."""
    return next((f" (it is {kind})" for file, kind in _KINDS.items() if (folder / file).is_file()), "")
