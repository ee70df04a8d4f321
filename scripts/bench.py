"""Measure one thing, and write scripts/BENCHMARKS.md from what is kept of such measurements.

    python scripts/bench.py                                     the names
    python scripts/bench.py neighbours --texts 1000 10000       the table, and artifacts/neighbours.json
    python scripts/bench.py neighbours --keep Y                 and keep it as that of machine Y, --write
    python scripts/bench.py --write                             the page and its pictures anew

A benchmark is a module of scripts/benchmarks: its docstring is its section of the page, ``COLUMNS`` its
table (each column's format), ``OPTIONS`` what it takes (each default), ``measure`` what fills the table.
Its ways take turns, A B A B; a number is the median over the turns, and a ratio the median over the turns
of the ratio within a turn. What is kept stands beside it in NAME.json, with machine (machines.json), date,
command and versions.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from cache.runtime.atomic_files import replacing
from cache.runtime.errors import UserError

SCRIPTS = Path(__file__).parent
RESULTS, PAGE, PICTURES = SCRIPTS / "benchmarks", SCRIPTS / "BENCHMARKS.md", SCRIPTS / "pictures"
# In the order of the page.
NAMES = {
    **{
        name: f"benchmarks.{name}"
        for name in (
            "ablations",
            "several_teachers",
            "teacher_in_loop",
            "train_step",
            "step_options",
            "input",
        )
    },
    **{
        name: f"benchmarks.{name}"
        for name in ("gpu", "cache_features", "forward", "sources", "startup", "commands")
    },
    **{name: f"benchmarks.{name}" for name in ("cache", "growth")},
    **{name: f"benchmarks.{name}" for name in ("streaming",)},
    **{name: f"benchmarks.{name}" for name in ("neighbours", "views", "allocator", "episodes")},
    "load": "stress.load",
    "million": "stress.million",
    **{name: f"benchmarks.{name}" for name in ("adapted", "exported", "none", "web", "serve")},
}
# An innermost object of JSON: a row, versions.
INNERMOST = re.compile(r"\{[^{}]*\}")


def main(words: Sequence[str] | None = None) -> None:
    """Parse; what a person gave wrongly is told in one line, as ``distill`` does."""
    words = sys.argv[1:] if words is None else list(words)
    try:
        if words and words[0] in NAMES:
            measure(words[0], words[1:])
        else:
            _without_name(words)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.status)


def _without_name(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", choices=NAMES, help="What is measured; NAME --help tells more.")
    parser.add_argument("--write", action="store_true", help="Write BENCHMARKS.md and the pictures anew.")
    if parser.parse_args(words).write:
        write_page()
        return
    for name in NAMES:
        print(f"{name:18}{title_of(module_of(name))}")


def module_of(name: str) -> ModuleType:
    """Return a benchmark's module."""
    return importlib.import_module(NAMES[name])


def title_of(module: ModuleType) -> str:
    """Return the first line of a benchmark's docstring, without its full stop."""
    return (module.__doc__ or "").splitlines()[0].rstrip(".")


def parser_of(name: str) -> argparse.ArgumentParser:
    """Return what reads a benchmark's arguments; UserError where it is not measured by a command of this."""
    module = module_of(name)
    if not hasattr(module, "measure"):
        raise UserError(f"{name} has numbers alone", fix="its section of BENCHMARKS.md has the commands.")
    from benchmarks.turns import positive

    parser = argparse.ArgumentParser(
        prog=f"bench.py {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    rounds = getattr(module, "ROUNDS", 3)
    parser.add_argument("--rounds", type=positive, default=rounds, help=f"Turns; {rounds} unless given.")
    parser.add_argument("--json", type=Path, default=Path("artifacts") / f"{name}.json", metavar="FILE")
    parser.add_argument(
        "--keep", choices=machines(RESULTS), metavar="MACHINE", help="A name in machines.json."
    )
    parser.add_argument(
        "--one-process",
        action="store_true",
        help="Measure all ways in this process: starts sooner, but memory is not each way's own.",
    )
    add_options(parser, module.OPTIONS)
    return parser


def measure(name: str, words: Sequence[str]) -> None:
    """Measure one thing, print its table, write its JSON, and keep it where that is asked for."""
    from benchmarks.turns import about

    module = module_of(name)
    args = parser_of(name).parse_args(words)
    rows, details = module.measure(args)
    run = {
        "command": f"python scripts/bench.py {name} {shlex.join(_without_where(words))}".strip(),
        **about(),
    }
    write_json(args.json, {**run, "rows": rows, "details": details})
    print("\n".join(table_lines(module.COLUMNS, [{**run, "machine": args.keep or "here", "rows": rows}])))
    if args.keep:
        keep(name, {"machine": args.keep, **run, "rows": rows}, RESULTS)
        write_page()


def add_options(parser: argparse.ArgumentParser, options: Mapping[str, Any]) -> None:
    """Add options by their defaults: a value, several, a flag, a tuple of choices, or a type for none."""
    for name, default in options.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(default, bool):
            parser.add_argument(flag, action="store_true")
        elif isinstance(default, type):
            parser.add_argument(flag, type=default, required=True)
        elif isinstance(default, tuple):
            parser.add_argument(flag, choices=default, default=default[0])
        elif isinstance(default, list):
            parser.add_argument(flag, nargs="+", type=type(default[0]), default=default)
        else:
            parser.add_argument(
                flag, type=Path if isinstance(default, Path) else type(default), default=default
            )


def _without_where(words: Sequence[str]) -> list[str]:
    """Return a command's words without those that say where its result goes."""
    kept = iter(words)
    return [word for word in kept if not (word in ("--json", "--keep") and next(kept, ""))]


def write_json(path: Path, value: Any) -> None:
    """Write JSON, an innermost object in one line, so that a difference shows the rows that changed."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    # Texts hold no line feeds of their own: JSON escapes them.
    text = INNERMOST.sub(lambda one: re.sub(r"\s*\n\s*", " ", one[0]), text)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def machines(folder: Path) -> dict[str, str]:
    """Return what each machine is, by its name."""
    names: dict[str, str] = json.loads((folder / "machines.json").read_bytes())
    return names


def kept_of(name: str, folder: Path) -> dict[str, Any]:
    """Return what is kept of a benchmark: its runs, and the paragraphs that go below them."""
    path = folder / f"{name}.json"
    return {"runs": [], "notes": []} | (json.loads(path.read_bytes()) if path.is_file() else {})


def keep(name: str, run: Mapping[str, Any], folder: Path) -> None:
    """Keep a run, in the place of an earlier one of the same command on the same machine."""
    kept = kept_of(name, folder)
    same = [(one["machine"], one["command"]) == (run["machine"], run["command"]) for one in kept["runs"]]
    kept["runs"] = [one for one, gone in zip(kept["runs"], same, strict=True) if not gone] + [dict(run)]
    write_json(folder / f"{name}.json", kept)


def table_lines(columns: Mapping[str, str], runs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the table of some runs in Markdown; a column that no row fills is left out."""
    rows = [(f"{run['machine']}, {run['date']}", row) for run in runs for row in run["rows"]]
    unknown = {name for _, row in rows for name in row} - set(columns)
    assert not unknown, f"no columns for {unknown}"
    used = [name for name in columns if any(name in row for _, row in rows)]
    lines = [["measured on", *used], ["---"] * (1 + len(used))]
    lines += [[where, *(cell(row.get(name), columns[name]) for name in used)] for where, row in rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def cell(value: Any, form: str) -> str:
    """Return a value as a table has it: a text as it is, and nothing for None."""
    if value is None or isinstance(value, str):
        return value or ""
    return form.format(value)


def page(folder: Path) -> str:
    """Return BENCHMARKS.md as what is kept in a folder makes it."""
    head = importlib.import_module("benchmarks").__doc__ or ""
    places = [f"- **{name}**: {text}" for name, text in machines(folder).items()]
    sections = ["# Benchmarks\n\n" + head.strip(), "\n".join(places)]
    for name in NAMES:
        module, kept = module_of(name), kept_of(name, folder)
        sections += [f"## {title_of(module)}", *(module.__doc__ or "").partition("\n\n")[2:]]
        sections += [
            "\n".join(f"    {line}" for line in dict.fromkeys(run["command"] for run in kept["runs"]))
        ]
        if kept["runs"]:
            sections += ["\n".join(table_lines(module.COLUMNS, kept["runs"]))]
        sections += kept["notes"]
    return "\n\n".join(section.strip("\n") for section in sections) + "\n"


def write_page() -> None:
    """Write BENCHMARKS.md and its pictures."""
    from benchmarks.pictures import draw_all

    with replacing(PAGE) as temporary:
        temporary.write_text(page(RESULTS), encoding="utf-8")
    runs = {name: kept_of(name, RESULTS)["runs"] for name in NAMES}
    draw_all(runs, machines(RESULTS), PICTURES)


if __name__ == "__main__":
    main()
