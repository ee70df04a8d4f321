"""Small sweeps: where they lie, and the command that runs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from conftest import make_cache, make_photos

if TYPE_CHECKING:
    from distill.sweep.plan import Sweep
    from distill.sweep.run import Place


@pytest.fixture(scope="session")
def place_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Place]:
    """A function that gives a place with a cache, photos and an ``out`` of its own."""
    from distill.sweep.run import Place

    root = tmp_path_factory.mktemp("sweep")
    cached = make_cache(root / "cache", make_photos(root / "photos"))
    made = iter(range(1000))
    return lambda: Place(cache=cached.path, data=root / "photos", out=root / f"runs-{next(made)}")


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., str]:
    """A function that writes a sweep file."""

    def write(text: str, name: str = "mine.toml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def names(sweep: Sweep) -> list[str]:
    return [planned.name for planned in sweep.runs]


def invoke(path: str, place: Place, *more: str) -> Result:
    import cli

    where = ["--cache", str(place.cache), "--data", str(place.data), "--out", str(place.out)]
    return CliRunner().invoke(cli.main, ["sweep", path, *where, *more])
