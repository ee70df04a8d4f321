"""README and docs speak of commands, options, settings and files that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from helpers.doc_pages import NEEDS, ROOT, RUN, SHOWN, blocks, commands, name_of, pages

import cli
from distill.config import RunConfig
from distill.settings import RECIPES, names_in, with_settings

EVERY_PAGE = pytest.mark.parametrize("page", pages(), ids=name_of)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


@EVERY_PAGE
def test_every_block_is_run_or_shown_or_marked(page):
    for block in blocks(page):
        where = f"{name_of(page)}, line {block.line}"
        assert block.language in (*RUN, *SHOWN), f"{where}: ```{block.language} is neither run nor shown"
        assert all(one in NEEDS for one in block.needs.split(" and ") if one), f"{where}: needs {block.needs}"


def parsed(words: list[str]) -> None:
    """Read a command's words as click does, without running it; its callbacks and files are left alone."""
    group, context = cli.main, click.Context(cli.main, info_name="distill")
    words = [word for word in words if word != "--debug"]
    while isinstance(group, click.Group):
        if not words or words[0] in ("--help", "-h", "--version"):
            return
        name, *words = words
        found = group.get_command(context, name)
        assert found is not None, f"no command {name}"
        group, context = found, click.Context(found, parent=context, info_name=name)
    parser = group.make_parser(context)
    parser.ignore_unknown_options = False
    values, _, _ = parser.parse_args(args=list(words))
    for line in values.get("set") or values.get("settings") or ():
        if "$" not in line and not line.startswith("recipe="):
            known_setting(line)


def known_setting(line: str) -> None:
    """Refuse a line KEY=VALUE whose key is no setting."""
    section, _, name = line.partition("=")[0].rpartition(".")
    config = getattr(RunConfig(), section) if section else RunConfig()
    assert hasattr(config, name), f"{line}: no such setting"


@EVERY_PAGE
def test_every_command_has_the_options_that_are_written(page):
    for block in blocks(page):
        if block.language == "bash":
            for words in commands(block.text):
                try:
                    parsed(words)
                except (click.ClickException, AssertionError) as error:
                    pytest.fail(f"{name_of(page)}, line {block.line}: distill {' '.join(words)}: {error}")


def test_commands_that_the_benchmarks_were_made_with_are_read():
    page = (ROOT / "scripts" / "BENCHMARKS.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    distill .*", page, re.MULTILINE)
    assert len(lines) > 5
    for command in " && ".join(lines).replace("[=trained]", "=trained").split("&&"):
        parsed(shlex.split(command)[1:])


@EVERY_PAGE
def test_every_option_and_setting_in_the_words_of_a_page_is_there(page):
    known = {option for one in every_command() for param in one.params for option in param.opts}
    known |= {"--help", "--debug", "--version", *OTHERS}
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    sections = "|".join(name for name in RunConfig.__dataclass_fields__ if name not in ("text", "teachers"))
    for code in re.findall(r"`([^`\n]+)`", prose):
        if not FOREIGN.search(code) and not name_of(page).startswith(OF_OTHERS):
            missing = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", code)) - known
            assert not missing, f"{name_of(page)}: `{code}`"
        for setting in re.findall(rf"(?<![\w./-])(?:{sections})\.(?!json|png|py\b)[a-z_]+(?![\w./(])", code):
            known_setting(setting)


# Of our scripts, of pip, docker, pytest, torchrun.
OTHERS = ("--all", "--faults", "--write", "--keep", "--multi")
# Pages that speak of other programs' options too.
OF_OTHERS = ("docs/coming-from/", "docs/how-to/containers.md")
# Code of a page about another program's options.
FOREIGN = re.compile(
    r"\b(pip|docker|podman|pytest|torchrun|npm|git|curl|open_clip|wandb|ray start|clip-retrieval)\b"
)


def every_command(group: click.Group = cli.main):
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from every_command(found)
        else:
            yield found


@EVERY_PAGE
def test_every_link_to_a_file_leads_to_one(page):
    made = {
        "reference/commands.md",
        "reference/settings.md",
        "reference/recipes.md",
        "reference/api.md",
        "reference/files.md",
    }
    for target in LINK.findall(re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)):
        if "://" in target or target.startswith("mailto:"):
            continue
        place = (page.parent / target).resolve()
        of_the_site = (
            place.is_relative_to(ROOT / "docs") and place.relative_to(ROOT / "docs").as_posix() in made
        )
        assert place.exists() or of_the_site, f"{name_of(page)}: {target}"


@EVERY_PAGE
def test_a_recipe_that_is_named_ships(page):
    for block in blocks(page):
        for name in re.findall(r"--recipe ([\w-]+)(?![\w./-])", block.text):
            assert name in names_in(RECIPES) or name.isupper(), f"{name_of(page)}, line {block.line}: {name}"


def test_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 125


def test_settings_of_a_page_that_is_wrong_are_refused():
    with pytest.raises(AssertionError, match="no such setting"):
        parsed(["train", "cache", "--set", "loss.nothing=1"])
    with pytest.raises(click.ClickException):
        parsed(["train", "cache", "--nothing"])
    assert with_settings(RunConfig(), ["loss.mse=1"]).loss.mse == 1


def test_a_marked_block_is_known(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- needs: a GPU -->\n```bash\ndistill doctor\n```\n\n<!-- set-up:\nhave photos photos\n-->\n"
    )
    first, second = blocks(page)
    assert (first.needs, first.text, second.text, second.hidden) == (
        "a GPU",
        "distill doctor",
        "have photos photos",
        True,
    )
