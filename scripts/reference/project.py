"""Files of the repository that are pages of the site too."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# By where it is in the repository, where it is in the site.
PLACES = {
    "scripts/BENCHMARKS.md": "measured/all.md",
    "CHANGELOG.md": "project/changes.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "README.md": "index.md",
}
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")


def files() -> dict[str, Path]:
    """Return by its place in the site every file that is added to it: those pages, and their pictures."""
    pages = {place: ROOT / name for name, place in PLACES.items() if place != "index.md"}
    pictures = (ROOT / "scripts" / "pictures").glob("*.png")
    return pages | {f"measured/pictures/{path.name}": path for path in pictures}


def linked(markdown: str, uri: str) -> str:
    """Return a page's Markdown, its links to such files leading to their places in the site."""
    origin = {place: name for name, place in PLACES.items() if place != "index.md"}.get(uri, f"docs/{uri}")

    def place(found: re.Match[str]) -> str:
        if "://" in found[2] or found[2].startswith("mailto:"):
            return found[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), found[2]))
        where = PLACES.get(target)
        if where is None and target.startswith("scripts/pictures/"):
            where = target.replace("scripts/", "measured/", 1)
        if where is None and origin != f"docs/{uri}" and target.startswith("docs/"):
            where = target.removeprefix("docs/")
        if where is None:
            return found[0]
        return found[1] + posixpath.relpath(where, posixpath.dirname(uri) or ".") + found[3]

    return LINK.sub(place, markdown)
