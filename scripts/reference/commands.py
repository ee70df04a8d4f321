"""The page of commands: every option of each, with what it takes and its default."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import click

import cli

INTRODUCTION = """# Commands

Made from the commands themselves: `distill COMMAND --help` says the same. `distill --debug COMMAND` shows the
traceback of an error. In the column *option*, a setting in brackets is what the option sets:
`--epochs 3` is `--set train.epochs=3` ([settings](settings.md)).
"""


def page() -> str:
    """Return the page's Markdown."""
    parts = [INTRODUCTION, "| command | |\n|---|---|"]
    every = list(commands())
    parts[-1] += "".join(
        f"\n| [`{name}`](#{anchor(name)}) | {_cell(_first_line(command))} |" for name, command in every
    )
    parts += [_command(name, command) for name, command in every]
    return "\n\n".join(parts) + "\n"


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command by all its words, ``cache info``, in the order of work."""

    def below(group: click.Group, context: click.Context, words: tuple[str, ...]) -> Iterator[Any]:
        for name in group.list_commands(context):
            found = group.get_command(context, name)
            if isinstance(found, click.Group):
                yield from below(found, click.Context(found, context, name), (*words, name))
            elif found is not None:
                yield " ".join((*words, name)), found

    yield from below(cli.main, click.Context(cli.main, info_name="distill"), ())


def anchor(name: str) -> str:
    """Return the anchor of a command's heading."""
    return "distill-" + name.replace(" ", "-")


def _first_line(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").partition("\n")[0]


def _command(name: str, command: click.Command) -> str:
    # A context of its own, in which an option tells its default.
    context = click.Context(command, info_name=f"distill {name}")
    context.show_default = True
    words, examples = _prose(inspect.cleandoc(command.help or ""))
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [
        f"## `distill {name}` {{ #{anchor(name)} }}",
        words,
        f"```text\ndistill {name} {usage}\n```",
        _table(command, context),
    ]
    if examples:
        parts.append("```bash\n" + "\n".join(examples) + "\n```")
    return "\n\n".join(part for part in parts if part)


def _prose(help: str) -> tuple[str, list[str]]:
    """Return what help says in words, and its examples."""
    blocks = [block for block in re.split(r"\n\s*\n", help.replace("\f", "\n\n")) if block.strip()]
    words, examples = [], []
    for block in blocks:
        lines = [line for line in block.splitlines() if line.strip() not in ("\b", "")]
        if lines and lines[0].strip() in ("Examples:", "Example:"):
            examples += [line.strip() for line in lines[1:]]
        elif "\b" in block:
            words.append("```text\n" + inspect.cleandoc("\n".join(lines)) + "\n```")
        else:
            words.append(_plain(" ".join(line.strip() for line in lines)))
    return "\n\n".join(words), examples


def _table(command: click.Command, context: click.Context) -> str:
    rows = ["| option | takes | default | |", "|---|---|---|---|"]
    for option in command.get_params(context):
        if isinstance(option, click.Option) and not option.hidden and "--help" not in option.opts:
            rows.append("| " + " | ".join(_row(option, context)) + " |")
    return "\n".join(rows) if len(rows) > 2 else ""


def _row(option: click.Option, context: click.Context) -> tuple[str, ...]:
    """Return an option's cells: names, what it takes, default, meaning."""
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    meaning, setting, told = _meaning(option.help or "")
    if setting:
        names += f"<br>[`{setting}`](settings.md#{setting.replace('.', '-')})"
    if option.multiple:
        meaning += " Repeatable." if "epeatable" not in meaning else ""
    takes = "" if option.is_flag else _takes(option, context)
    default = told or str(option.get_help_extra(context).get("default", ""))
    if option.required:
        default = "must be given"
    return names, takes, _cell(default), _cell(meaning)


def _takes(option: click.Option, context: click.Context) -> str:
    if isinstance(option.type, click.Choice) and option.metavar is None:
        return ", ".join(f"`{one}`" for one in option.type.choices)
    shown = option.make_metavar(context)
    bounds = option.get_help_extra(context).get("range", "")
    # What a machine may be asked for depends on the machine, or is far from what anyone means.
    bounds = re.sub(r"<=\d{7,}$|<=x<=\d{7,}$", "<=x" if bounds.count("<") > 1 else "", bounds)
    shown = f"{shown.removesuffix(' RANGE')} {bounds}".strip()
    return f"`{shown}`".replace("|", "\\|")


def _meaning(help: str) -> tuple[str, str, str]:
    """Return an option's help without the setting and the default that it states, and these two."""
    setting = default = ""
    if found := re.search(r"\s*\[([a-z_]+(?:\.[a-z_]+)?)\]\s*$", help):
        setting, help = found[1], help[: found.start()]
    if found := re.search(r"\s*\[default:? ([^\]]*)\]", help):
        default, help = found[1], help[: found.start()] + help[found.end() :]
    return help.strip(), setting, default


def _plain(text: str) -> str:
    """Return a text in which Markdown sees no markup of its own, and quoted commands as code."""
    text = re.sub(r"'((?:distill |--)[^']+|[a-z]+(?:-[a-z]+)* --[^']+)'", r"`\1`", text)
    return re.sub(r"(?<!`)([<>*_\[\]])(?![^`]*`(?:[^`]*`[^`]*`)*[^`]*$)", r"\\\1", text)


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")
