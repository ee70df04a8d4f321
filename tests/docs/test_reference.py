"""The reference that is made from the code says what there is."""

from __future__ import annotations

import re
import sys
from fnmatch import fnmatch

import pytest
from conftest import ROOT

sys.path.append(str(ROOT / "scripts"))

from distill.settings import RECIPES, names_in
from reference import commands, files, project, recipes, settings


@pytest.mark.parametrize(("section", "kind"), list(settings.sections()))
def test_every_setting_has_its_meaning(section, kind):
    without = [one.name for one in settings.own_fields(kind) if not settings.meaning(kind, section, one.name)]
    assert not without, f"the docstring of {kind.__name__} does not say what these are: {without}"


def test_every_option_of_every_command_is_on_the_page():
    page = commands.page()
    for name, command in commands.commands():
        part = page.partition(f"{{ #{commands.anchor(name)} }}")[2].partition("\n## ")[0]
        for param in command.params:
            assert param.param_type_name != "option" or f"`{param.opts[0]}`" in part, (name, param.opts)


def test_an_options_setting_leads_to_one_that_is_there():
    anchors = set(re.findall(r'id="([\w-]+)"', settings.page()))
    assert set(re.findall(r"\(settings\.md#([\w-]+)\)", commands.page())) <= anchors


def test_every_recipe_and_sweep_is_printed():
    page = recipes.page()
    for folder, kind in ((RECIPES, "recipe"), (RECIPES / "sweeps", "sweep")):
        assert all(f"{{ #{kind}-{name} }}" in page for name in names_in(folder))


def test_every_file_of_a_cache_and_of_a_run_is_on_the_page(trained):
    names = re.findall(r"`([^`\n]+)`", files.page())
    patterns = [re.sub(r"SPLIT-00000|WRITER|SPLIT|BANK|TEACHER|ID", "*", name) for name in names]
    # Locks, and what is made anew when it is missing.
    patterns += ["*.lock", "index/*", "text_tower/*", "features/*"]
    for folder in (trained / "cache", trained / "run"):
        made = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        unknown = [one for one in made if not any(fnmatch(one, pattern) for pattern in patterns)]
        assert made
        assert not unknown, unknown


def test_links_to_files_of_the_repository_lead_to_their_pages():
    assert (
        project.linked("[t](../../scripts/BENCHMARKS.md#views)", "how-to/x.md")
        == "[t](../measured/all.md#views)"
    )
    assert project.linked("[t](docs/benchmarks.md)", "project/changes.md") == "[t](../benchmarks.md)"
    assert project.linked("[t](https://example.org/scripts/BENCHMARKS.md)", "a.md").endswith("BENCHMARKS.md)")
