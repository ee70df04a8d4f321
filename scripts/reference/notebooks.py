"""The pages of notebooks: their cells, and what these gave when they were saved."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from reference.project import ROOT

NOTEBOOKS = ROOT / "docs" / "notebooks"


def page(path: Path) -> str:
    """Return the Markdown of a notebook; pictures are within it."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    parts = [part for cell in notebook["cells"] for part in _cell(cell)]
    parts.insert(1, f"[This page as a notebook]({path.name})")
    return "\n\n".join(parts) + "\n"


def pages() -> dict[str, Any]:
    """Return what makes the page of each notebook, by its place in the site."""
    return {f"notebooks/{path.stem}.md": partial(page, path) for path in sorted(NOTEBOOKS.glob("*.ipynb"))}


def _cell(cell: dict[str, Any]) -> list[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return [source]
    return [f"```python\n{source}\n```", *(text for one in cell["outputs"] for text in _output(one))]


def _output(output: dict[str, Any]) -> list[str]:
    data = output.get("data", {})
    if "image/png" in data:
        return [f"![](data:image/png;base64,{''.join(data['image/png']).strip()})"]
    text = "".join(output.get("text", data.get("text/plain", ""))).rstrip()
    return [f"```text\n{text}\n```"] if text else []
