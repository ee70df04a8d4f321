"""``distill report``: one HTML file that needs nothing else; the main table as Markdown and CSV beside it."""

from __future__ import annotations

import base64
import glob
import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cache.runtime.atomic_files import remove_temporaries, replacing
from cache.runtime.errors import UserError
from cache.runtime.locks import only_writer_of_file
from distill.report.charts import mark, style_of
from distill.report.collect import Collected, Run, collect
from distill.report.curves import loss_charts, metric_charts, scatter_charts
from distill.report.groups import Group, groups_of, judged_splits, measure_of
from distill.report.pictures import confused_groups, space_map
from distill.report.statistics import LEVEL
from distill.report.tables import (
    as_csv,
    as_markdown,
    cost_table,
    main_table,
    per_class_tables,
    plain,
    quality_table,
    space_tables,
)

RULE = (
    "Mean ± standard deviation over the seeds. The best of a column is marked where every setting has at "
    "least two seeds and the best differs from every other setting by Welch's t-test (two-sided, "
    f"p < {LEVEL}); otherwise the spread allows no mark. A mark describes these runs: settings are chosen on "
    "images set aside from training (data.id_val), never on OOD images."
)
DATA_RULE = "Runs of other data, or judged on other images, are rows of their own:"
AMONG_ALL = (
    "Among all: the ID and the OOD classes compete, as when an exported model is used; elsewhere a split's "
    "images are judged among that split's own classes. ECE (15 bins, 0 to 1) is of the softmax at the run's "
    "own temperature; AUROC (0 to 1, 0.5 is chance) says how often an ID test image has a higher best cosine "
    "with an ID class text than an OOD test image has."
)
HOW = (
    "Run its 'distill train' command again with --resume: a trained run writes outputs.npz without training."
)


def report(runs: Path, out: Path) -> list[Path]:
    """Write a report of a run, or of a folder of runs, to ``out``; return the files written.

    Beside the HTML file are the main table with the ending .md and one line a run with the ending .csv. The
    same run folders give the same bytes.

    Raises
    ------
    UserError
        If there is no run, or ``out`` is not named .html.
    """
    if out.suffix not in (".html", ".htm"):
        raise UserError(f"--out is {out.name!r}", fix="name an HTML file: --out report.html.")
    found = collect(runs)
    measure, called = measure_of(found.finished)
    columns, groups = groups_of(found.finished)
    splits = judged_splits(found.finished, measure)
    main, quality = main_table(groups, columns, measure, splits=splits), quality_table(groups, splits)
    texts = {
        out: page(found, columns, groups),
        out.with_suffix(".md"): as_markdown(
            found.question,
            [main, *([quality] if quality else [])],
            _note(called, found.other_data) + (f" {AMONG_ALL}" if quality else ""),
        ),
        out.with_suffix(".csv"): as_csv(found.finished, measure),
    }
    with only_writer_of_file(out):
        for path, text in texts.items():
            remove_temporaries(path.parent, of=f"{glob.escape(path.name)}.*")
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8", errors="replace", newline="\n")
    return list(texts)


def _note(called: str, other_data: Sequence[str]) -> str:
    said = f"{called}. {RULE}"
    return f"{said}\n\n{DATA_RULE} {plain('; '.join(other_data))}." if other_data else said


def page(found: Collected, columns: Sequence[str], groups: Sequence[Group]) -> str:
    """Return the report as one HTML page."""
    measure, called = measure_of(found.finished)
    splits = judged_splits(found.finished, measure)
    losses = loss_charts(groups)
    accuracies = metric_charts(groups, measure, called)
    scatter = scatter_charts(groups, measure, called)
    confused = confused_groups(groups)
    charts = [*losses, *accuracies, *scatter]
    environment = Environment(
        loader=PackageLoader("distill.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    style, script = (_source(environment, name) for name in ("style.css", "script.js"))
    return environment.get_template("page.html").render(
        found=found,
        groups=groups,
        called=called,
        facts=facts(found.finished),
        rule=RULE,
        data_rule=DATA_RULE,
        among_all=AMONG_ALL,
        quality=quality_table(groups, splits),
        how=HOW,
        main=main_table(groups, columns, measure, splits=splits),
        losses=losses,
        accuracies=accuracies,
        scatter=scatter,
        per_class=per_class_tables(groups),
        confused=confused,
        space=space_tables(groups),
        cost=cost_table(groups),
        partly_judged=partly_judged(found.finished),
        without_outputs=[run for run in found.finished if run.note and not run.robotics],
        data={
            "charts": {chart.name: chart.data for chart in charts},
            "map": space_map(groups, confused),
        },
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        key=key,
        command=command,
    )


def _source(environment: Environment, name: str) -> Markup:
    """Return a template's text as it is: our own CSS and JavaScript, which hold nothing of a run."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _hash(text: str) -> str:
    """Return what the content security policy names an inline style or script by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def key(style: int | None) -> Markup:
    """Return a group's line and mark, as a small SVG for legends and tables."""
    shape = Markup(f'<path class="line" d="M1 8H27"/>{mark(14, 8, style)}')
    svg = Markup('<svg class="key" viewBox="0 0 28 16" aria-hidden="true"><g class="series {}">{}</g></svg>')
    return svg.format(style_of(style), shape)


def command(run: Run) -> str:
    """Return the command that made a run, as a shell takes it."""
    words = run.summary.get("command")
    return shlex.join(map(str, words)) if isinstance(words, list) else ""


def facts(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return what the runs have in common, and how many of each there are where they have not."""
    read = {
        "teacher": lambda s: _joined(s.get("teacher"), "model", "pretrained"),
        "student": lambda s: s.get("student"),
        "classes": lambda s: _counts(s.get("classes")),
        "images": lambda s: _counts(s.get("images")),
        "epochs": lambda s: s.get("epochs"),
        "numbers": lambda s: s.get("headline"),
        "hardware": lambda s: _joined(s.get("hardware"), "cpu", "cores", "gpu"),
        "torch": lambda s: _joined(s.get("versions"), "torch"),
    }
    found = []
    for name, of_run in read.items():
        values = dict.fromkeys(str(value) for run in runs if (value := of_run(run.summary)) not in (None, ""))
        if values:
            shown = list(values)[:3]
            more = f" and {len(values) - len(shown)} more" if len(values) > len(shown) else ""
            found.append((name, " / ".join(shown) + more))
    return found


def _joined(value: Any, *names: str) -> str:
    found = value if isinstance(value, dict) else {}
    parts = [(name, found[name]) for name in names if found.get(name)]
    return ", ".join(f"{part} cores" if name == "cores" else str(part) for name, part in parts)


def _counts(value: Any) -> str:
    if not isinstance(value, dict):
        return ""
    return ", ".join(f"{n:,} {split}" for split, n in value.items() if isinstance(n, int))


def partly_judged(runs: Sequence[Run]) -> list[str]:
    """Return where the teacher was judged on fewer images than the students: the cache has no more."""
    found: dict[str, None] = {}
    for run in runs:
        images, teacher = run.summary.get("images"), run.summary.get("teacher_images")
        if not isinstance(images, dict) or not isinstance(teacher, dict):
            continue
        for split, n in teacher.items():
            if n != images.get(split):
                found[f"{n:,} of {images.get(split, 0):,} {split} images"] = None
    return list(found)
