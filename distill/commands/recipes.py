"""``distill recipes``: the settings that ship."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("name", required=False)
def recipes(name: str | None) -> None:
    """List the recipes that ship, or print one of them.

    'train --recipe' takes a name, or a file of one's own: print one into a file, and change that.

    \b
    Examples:
      distill recipes
      distill recipes small > mine.toml
    """
    from cache.runtime.atomic_files import read_text
    from distill.settings import RECIPES, names_in, toml_file

    if name is not None:
        click.echo(read_text(toml_file(name, RECIPES, what="recipe")), nl=False)
        return
    names = names_in(RECIPES)
    width = max(map(len, names))
    for one in names:
        click.echo(f"{one:<{width}}  {first_comment(RECIPES / f'{one}.toml')}")


def first_comment(path: Path) -> str:
    """Return what the first line of a recipe says of it, '' where that is no comment."""
    from cache.runtime.atomic_files import read_text

    line = read_text(path).partition("\n")[0]
    return line.removeprefix("#").strip() if line.startswith("#") else ""
