"""``distill report``: one HTML file that needs nothing else; the main table as Markdown and CSV beside it."""

from __future__ import annotations

import base64
import glob
import hashlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from cache.runtime.atomic_files import remove_temporaries, replacing
from cache.runtime.errors import UserError
from cache.runtime.locks import only_writer_of_file
from cache.runtime.progress import Progress, Silent
from distill.data.pool import pool_words
from distill.headline import NOTHING_TO_JUDGE
from distill.report import calibration, charts, costs, curves, effects, pictures, tables
from distill.report.answer import answers
from distill.report.collect import Run, collect
from distill.report.confusion import confusion_matrices
from distill.report.difference_tables import differences_tables
from distill.report.differences import drawn_first
from distill.report.few_shot import few_shot_charts, few_shot_table
from distill.report.groups import shortened_paths
from distill.report.statistics import LEVEL
from distill.report.tasks import Part, parts_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a report says first (one text a kind of run), which runs are not in it and why, and its files."""

    answers: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    files: tuple[Path, ...]


def report(runs: Path, out: Path, *, baseline: str | None = None, progress: Progress | None = None) -> Report:
    """Write a report of a run, or of a folder of runs, to ``out``.

    Beside the HTML file are the main tables with the ending .md and one line a run with the ending .csv. The
    same run folders give the same bytes. ``baseline`` names the run or setting that the others are compared
    with, without one that of the first run.

    Raises
    ------
    UserError
        If there is no run that can be read, none of that name, or ``out`` is not named .html.
    """
    if out.suffix not in (".html", ".htm"):
        raise UserError(f"--out is {out.name!r}", fix="name an HTML file: --out report.html.")
    progress = progress or Silent()
    collected = collect(runs, progress=progress)
    progress.start(None, "writing the page", "")
    parts = parts_of(collected.finished, baseline)
    environment = _environment()
    style, script = (_source(environment, name) for name in ("style.css", "script.js"))
    context = {
        "collected": collected,
        "parts": parts,
        "level": LEVEL,
        "style": style,
        "script": script,
        "style_hash": _hash(style),
        "script_hash": _hash(script),
    }
    texts = {
        out: environment.get_template("page.html").render(context),
        out.with_suffix(".md"): environment.get_template("tables.md").render(context),
        out.with_suffix(".csv"): tables.as_csv(collected.finished),
    }
    with only_writer_of_file(out):
        for path, text in texts.items():
            remove_temporaries(path.parent, of=f"{glob.escape(path.name)}.*")
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8", errors="replace", newline="\n")
    firsts = (told[0] for part in parts if (told := answers(part)))
    return Report(
        answers=tuple(f"{one.lead} {one.why}".strip() for one in firsts),
        left_out=collected.left_out,
        files=tuple(texts),
    )


def _environment() -> Environment:
    """Return the templates, which take what they show from the functions of these modules."""
    environment = Environment(
        loader=PackageLoader("distill.report"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"markdown": _plain, "command": _command, "breakable": breakable}
    environment.globals |= {
        "tables": tables, "curves": curves, "pictures": pictures, "frame": charts, "costs": costs,
        "calibration": calibration, "effects": effects, "answers": answers, "drawn_first": drawn_first,
        "confusion_matrices": confusion_matrices, "differences_tables": differences_tables,
        "few_shot_table": few_shot_table,
        "few_shot_charts": few_shot_charts, "facts": facts, "partly_judged": partly_judged,
        "sections": sections,
    }  # fmt: skip
    environment.globals["nothing_to_judge"] = NOTHING_TO_JUDGE
    return environment


def sections(part: Part) -> dict[str, str]:
    """Return the sections of a part, and how each is called in the page's navigation."""
    called = {
        "results": "Results",
        "grid": "Grid" if effects.factors(part) else "",
        "curves": "Curves",
        "calibration": "Probabilities" if part.task.confuses else "",
        "classes": f"{part.task.members}es".replace("objectes", "objects").capitalize(),
        "confused": "Confused" if part.task.confuses else "",
        "space": "Space",
        "cost": "Cost",
    }
    return {name: text for name, text in called.items() if text}


def breakable(text: str) -> Markup:
    """Return a text whose long names may be broken behind what joins their words, and nowhere in a word."""
    text = text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
    return Markup(re.sub(r"([_/,+@])(?=\w)", r"\1<wbr>", str(escape(text))))


def facts(part: Part) -> list[tuple[str, str]]:
    """Return what runs have in common, and how many of each there are where they have not."""
    read = {
        "teacher": lambda run: shortened_paths(
            ", ".join(_texts(run.table("teacher"), "model", "pretrained"))
        ),
        "student": lambda run: run.summary.get("student"),
        "start": tables.start_words,
        "classes": lambda run: _counts(run.table("classes")),
        part.task.unit: lambda run: _counts(run.table("images")),
        "pool": lambda run: pool_words(run.table("pool")),
        "epochs": lambda run: run.summary.get("epochs"),
        "numbers": lambda run: run.summary.get("headline"),
        "hardware": lambda run: _hardware(run.table("hardware")),
        "torch": lambda run: run.table("versions").get("torch"),
    }
    lines = []
    for name, of_run in read.items():
        values = list(dict.fromkeys(str(value) for run in part.runs if (value := of_run(run))))
        more = f" and {len(values) - 3} more" if len(values) > 3 else ""
        lines += [(name, " / ".join(values[:3]) + more)] if values else []
    return lines


def _texts(values: dict[str, Any], *names: str) -> list[str]:
    return [str(values[name]) for name in names if values.get(name)]


def _hardware(values: dict[str, Any]) -> str:
    cores = [f"{number} cores" for number in _texts(values, "cores")]
    return ", ".join([*_texts(values, "cpu"), *cores, *_texts(values, "gpu")])


def _counts(values: dict[str, Any]) -> str:
    return ", ".join(f"{n:,} {split}" for split, n in values.items() if isinstance(n, int))


def partly_judged(part: Part) -> list[str]:
    """Return where the teacher was judged on fewer than the students: the cache has no more."""
    lines = (
        f"{n:,} of {run.table('images').get(split, 0):,} {split} {part.task.unit}"
        for run in part.runs
        for split, n in run.table("teacher_images").items()
        if run.table("images") and n != run.table("images").get(split)
    )
    return list(dict.fromkeys(lines))


def _source(environment: Environment, name: str) -> str:
    """Return a template's text as it is: our own CSS and JavaScript, which hold nothing of a run."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _hash(text: str) -> str:
    """Return what the content security policy names an inline style or script by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _plain(text: str) -> str:
    """Return text that neither ends a Markdown cell nor is read as HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _command(run: Run) -> str:
    """Return the command that made a run, as a shell takes it."""
    words = run.summary.get("command")
    return shlex.join(map(str, words)) if isinstance(words, list) else ""
