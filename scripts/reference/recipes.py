"""The page of recipes and sweeps: what ships, printed."""

from __future__ import annotations

from pathlib import Path

from cache.runtime.atomic_files import read_text
from distill.commands.recipes import first_comment
from distill.settings import RECIPES, names_in

INTRODUCTION = """# Recipes and sweeps

What ships, as it is. `train --recipe NAME` and `sweep NAME` take one by its name, or a file of your own:
`distill recipes small > mine.toml` prints one to begin with.
"""


def page() -> str:
    """Return the page's Markdown."""
    parts = [INTRODUCTION]
    for title, folder in (("Recipes", RECIPES), ("Sweeps", RECIPES / "sweeps")):
        parts.append(f"## {title}")
        for name in names_in(folder):
            parts.append(_file(folder / f"{name}.toml", title.lower().removesuffix("s")))
    return "\n\n".join(parts) + "\n"


def _file(path: Path, kind: str) -> str:
    first = first_comment(path)
    anchor = f"{kind}-{path.stem}"
    return f"### `{path.stem}` {{ #{anchor} }}\n\n{first}\n\n```toml\n{read_text(path).strip()}\n```"
