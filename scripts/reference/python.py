"""The page of the Python interface, which mkdocstrings fills from docstrings."""

from __future__ import annotations

import re

import distill

INTRODUCTION = """# Python

Typed, and the same functions that the commands call: what an option is called there it is called here.
They are quiet (`progress=True` writes lines), and what is wrong is a `distill.UserError`: one line, with
what to do. [How they are used](../how-to/python.md). `import distill` imports no torch.
"""
# What is asked for beside the public names.
MORE = {
    "Losses": ("distill.losses", "distill.objective"),
    "Metrics": ("distill.metrics",),
}


def page() -> str:
    """Return the page's Markdown: functions first, then what they give."""
    names = [name for name in distill.__all__ if not name.startswith("_")]
    functions, classes = [n for n in names if n.islower()], [n for n in names if not n.islower()]
    parts = [INTRODUCTION]
    for title, group in (("Functions", functions), ("Classes", classes)):
        parts.append(f"## {title}")
        parts += [f"::: distill.{name}" for name in group]
    for title, modules in MORE.items():
        parts.append(f"## {title}")
        parts += [f"::: {name}" for name in modules]
    return "\n\n".join(parts) + "\n"


def without_roles(html: str) -> str:
    """Return a page's HTML without the names of Sphinx's roles, which docstrings have before code."""
    return re.sub(r":(?:mod|class|func|meth|data|attr|exc):<code>[~.]*(.*?)</code>", r"<code>\1</code>", html)
