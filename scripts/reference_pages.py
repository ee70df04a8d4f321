"""The site's hook: pages that are made from the code, and links to files that lie outside docs/."""

from __future__ import annotations

from typing import Any

from mkdocs.structure.files import File, Files

from reference import commands, files, notebooks, project, python, recipes, settings

PAGES = {
    "reference/commands.md": commands.page,
    "reference/settings.md": settings.page,
    "reference/recipes.md": recipes.page,
    "reference/files.md": files.page,
    "reference/api.md": python.page,
    **notebooks.pages(),
}
# What explains comes first in the search, before what only has the word: tables, changes, how to contribute.
SEARCH_BOOST = {"tutorials/": 2, "how-to/": 2, "concepts/": 2, "help/": 2, "measured/": 0.3, "project/": 0.3}


def on_files(found: Files, config: Any) -> Files:
    """Add the pages that are in no folder."""
    for uri, page in PAGES.items():
        found.append(File.generated(config, uri, content=page()))
    for uri, path in project.files().items():
        found.append(File.generated(config, uri, abs_src_path=str(path)))
    return found


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links to files of the repository, which are right in the repository, be right in the site."""
    for folder, boost in SEARCH_BOOST.items():
        if page.file.src_uri.startswith(folder):
            page.meta["search"] = {"boost": boost}
    return project.linked(markdown, page.file.src_uri)


def on_page_content(html: str, **_: Any) -> str:
    """Show what docstrings mean as code as code alone."""
    return python.without_roles(html)
