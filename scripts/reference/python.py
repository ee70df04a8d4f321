"""The page of the Python interface, which mkdocstrings fills from docstrings."""

from __future__ import annotations

import importlib

INTRODUCTION = """# Python

Typed, and the same functions that the commands call.
"""
# What is asked for beside the public names.
MORE = {
    "The cache": ("cache.reader.EmbeddingCache",),
    "Losses": ("distill.losses", "distill.objective"),
    "Metrics": ("distill.metrics",),
}


def page() -> str:
    """Return the page's Markdown."""
    parts = [INTRODUCTION]
    if public := getattr(importlib.import_module("distill"), "__all__", []):
        parts.append("## `import distill`")
        parts += [f"::: distill.{name}" for name in public]
    for title, names in MORE.items():
        parts.append(f"## {title}")
        parts += [f"::: {name}" for name in names]
    return "\n\n".join(parts) + "\n"
