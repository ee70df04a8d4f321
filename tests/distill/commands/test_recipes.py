"""Recipes, listed and printed."""

from __future__ import annotations

from click.testing import CliRunner

import cli
from distill.settings import RECIPES, names_in


def test_recipes_are_listed_with_what_they_are_for_and_one_is_printed_as_its_file():
    listed = CliRunner().invoke(cli.main, ["recipes"]).stdout.splitlines()
    assert [line.split()[0] for line in listed] == names_in(RECIPES)
    assert all(len(line.split(maxsplit=1)[1]) > 20 and "distill train" not in line for line in listed)
    printed = CliRunner().invoke(cli.main, ["recipes", "small"]).stdout
    assert printed == (RECIPES / "small.toml").read_text()
    wrong = CliRunner().invoke(cli.main, ["recipes", "smal"])
    assert (wrong.exit_code, "did you mean 'small'" in wrong.output) == (1, True)
