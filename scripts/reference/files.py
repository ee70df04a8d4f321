"""The page of files: what lies in a cache and in a run's folder."""

from __future__ import annotations

INTRODUCTION = """# Files

"""


def page() -> str:
    """Return the page's Markdown."""
    return INTRODUCTION
