"""Weights of open_clip's models, fetched to where open_clip looks for them: it is silent for gigabytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache.runtime.downloads import hub_file, url_file

WHOLE, SAFE = "open_clip_pytorch_model.bin", "open_clip_model.safetensors"


def fetch_pretrained(config: Mapping[str, Any]) -> None:
    """Fetch the weights of a tag, as ``open_clip.get_pretrained_cfg`` describes it.

    Raises what the hub's client does, or an OSError.
    """
    repository, _, name = str(config.get("hf_hub") or "").rpartition("/")
    url = str(config.get("url") or "")
    if config.get("file"):
        return
    if repository:  # which open_clip prefers
        fetch_repository(repository, name or WHOLE)
    elif url:
        folder = Path("~/.cache/clip").expanduser()
        url_file(url, folder / Path(url).name, begins=_known_digits(url))


def fetch_repository(repository: str, name: str = WHOLE) -> Path:
    """Return the weights of a repository of the hub, as safetensors where it has them.

    Raises what the hub's client does, where the repository cannot be reached or has no weights.
    """
    safe = SAFE if name == WHOLE else str(Path(name).with_suffix(".safetensors"))
    return hub_file(repository, safe, name)


def _known_digits(url: str) -> str:
    """Return the first digits of the SHA-256 of what is at an address, where open_clip has them in it."""
    path = Path(url)
    if "openaipublic" in url:
        return path.parent.name
    return path.stem.rpartition("-")[2] if "mlfoundations" in url else ""
