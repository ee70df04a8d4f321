"""What several commands print: progress, tables, what a build did, how well splits are classified."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.runtime.amounts import in_bytes, rate_of
from cache.runtime.errors import printable
from cache.runtime.torchrun import speaks

if TYPE_CHECKING:
    from cache.build.summary import BuildSummary
    from cache.build.zero_shot import ZeroShot
    from cache.sources.accounts import Account
    from cache.store.duplicates import Duplicate


WORD = 24
# So many images that were skipped are told one by one, with what was wrong.
SKIPPED = 20


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table with a title; without column names it has no header."""
    from rich.console import Console
    from rich.table import Table

    lines = Table(show_header=any(columns))
    needed = 1
    for i, column in enumerate(columns):
        # A word is broken where it is longer than any of ours: a path.
        words = [word for text in (column, *(row[i] for row in rows)) for word in text.split()]
        widest = max([1, *(min(WORD, len(word)) for word in words)])
        needed += widest + 3
        lines.add_column(column, justify="left" if i == 0 else "right", overflow="fold", min_width=widest)
    for row in rows:
        lines.add_row(*(printable(text).replace("[", "\\[") for text in row))
    click.echo(printable(title))
    # A log has no width of its own: 80 columns would break numbers apart.
    width = Console().width if sys.stdout.isatty() else 140
    Console(width=max(width, needed)).print(lines)


def working(what: str, unit: str = "images") -> AbstractContextManager[Any]:
    """Return the progress of a long piece of work, which is closed at its end."""
    from cache.runtime.progress import progress_for

    return closing(progress_for(what, unit))


@contextmanager
def loading() -> Iterator[None]:
    """Say on a terminal that the command has begun, until what it imports is there; a log needs no such line.

    Torch and what stands on it take seconds to import.
    """
    if not sys.stderr.isatty() or not speaks():
        yield
        return
    line = f"{click.get_current_context().command_path}: loading ..."
    sys.stderr.write(line)
    sys.stderr.flush()
    try:
        yield
    finally:
        sys.stderr.write(f"\r{' ' * len(line)}\r")
        sys.stderr.flush()


def print_json(value: Any) -> None:
    """Print a value as JSON that a person can read."""
    click.echo(json.dumps(value, indent=2))


def warn(message: str) -> None:
    """Print a warning where it is seen beside the results, not among them; nothing for no message."""
    if message:
        click.secho(f"Warning: {printable(message)}.", err=True, fg="yellow", bold=True)


def percent(value: float) -> str:
    """Return a percentage with one decimal."""
    return f"{value:.1f}%"


def number(value: float | None) -> str:
    """Return a number as text, nothing for None."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def mean(row: Mapping[str, Any], name: str, *, cosine: bool = False) -> str:
    """Return a mean with its deviation, where there is one: of percent, or of a cosine."""
    if row[name] is None:
        return ""
    around = row[f"{name}_std"]
    text, digits = (f"{row[name]:.3f}", 3) if cosine else (percent(row[name]), 1)
    return text + (f" ± {around:.{digits}f}" if around is not None else "")


Columns = Mapping[str, tuple[str, Callable[[Any], str]]]
"""What is told of a split: a metric's ending, its heading, how it is written."""
_PHOTOS: Columns = {
    "accuracy": ("own classes", percent),
    "all_accuracy": ("all classes", percent),
    "top5_accuracy": ("top 5, own", percent),
    "all_top5_accuracy": ("top 5, all", percent),
    "chance": ("chance", percent),
    "images": ("images", number),
    "classes": ("classes", number),
}
# A second table, because one of all columns would not fit into a terminal of 80.
_CALIBRATION: Columns = {
    "ece": ("ECE, own", number),
    "all_ece": ("ECE, all", number),
    "loss": ("loss", number),
}
_SPACE: Columns = {
    "cosine": ("mean cosine", number),
    "images": ("images", number),
}
_EPISODES: Columns = {
    "accuracy": ("accuracy", percent),
    "precision": ("precision", percent),
    "recall": ("recall", percent),
    "average_precision": ("AP", percent),
}
GROUPS = {"all": "", "id_objects": " ID objects", "ood_objects": " OOD objects"}
"""Objects of episodes, as they are called beside a split."""


def accuracy_table(title: str, splits: Mapping[str, Mapping[str, Any]], both: Mapping[str, Any]) -> None:
    """Print numbers by split, among its own classes and all; below, what ID and OOD images have together.

    ``both`` may hold other numbers too; a column that no split has is left out.
    """
    from distill.report.tasks import head_label

    _metrics_table(title, splits, _PHOTOS)
    _metrics_table("calibration error (ECE) and loss", splits, _CALIBRATION)
    for name in (name for name in both if name.startswith("all") and name.endswith("_harmonic_mean")):
        head = name.removeprefix("all").removesuffix("_harmonic_mean")
        click.echo(
            f"{f'{head_label(head[1:])}: ' if head else ''}harmonic mean of ID and OOD among all classes "
            f"{percent(both[name])}; AUROC of ID against OOD images {both[f'id_ood{head}_auroc']:.3f}"
        )


def print_one_class(classes: Mapping[str, int], splits: Mapping[str, Mapping[str, Any]]) -> None:
    """Say which of some judged splits have one class, by the number of ``classes`` of each."""
    from distill.headline import one_class_notes

    alone = {name: "all_accuracy" in splits[name] for name, count in classes.items() if count == 1}
    for line in one_class_notes(alone):
        click.echo(f"note: {line}")


def space_table(title: str, splits: Mapping[str, Mapping[str, Any]]) -> None:
    """Print how near embeddings are to those of a teacher without texts, by split."""
    of_space = {name: metrics for name, metrics in splits.items() if "cosine" in metrics}
    _metrics_table(f"{title}: embeddings beside the teacher's, which has no texts", of_space, _SPACE)


def object_table(title: str, splits: Mapping[str, Mapping[str, Any]]) -> None:
    """Print how well objects of episodes are told, by split and group of objects."""
    _metrics_table(title, splits, _EPISODES)


def _metrics_table(title: str, splits: Mapping[str, Mapping[str, Any]], columns: Columns) -> None:
    used = {name: column for name, column in columns.items() if any(name in m for m in splits.values())}
    if not used:
        return
    rows = [
        [split, *(write(metrics[name]) if name in metrics else "" for name, (_, write) in used.items())]
        for split, metrics in splits.items()
        if any(name in metrics for name in used)
    ]
    table(title, ["split", *(heading for heading, _ in used.values())], rows)


def print_other_data(results: Mapping[str, Any]) -> None:
    """Say on stderr which of some splits are not those that the run was trained or judged with."""
    for name, result in results.items():
        if result.other_data:
            note = f"note: {name} is not what the run was trained or judged with: {result.other_data}"
            click.echo(printable(note), err=True)


def print_build(summary: BuildSummary, out: Path, *, as_json: bool, unit: str = "images") -> None:
    """Print what a build did; ``unit`` is what its rows are of."""
    seconds = {**asdict(summary.seconds), "all": summary.total_seconds}
    if as_json:
        print_json(
            {
                "cache": str(out),
                **{f.name: getattr(summary, f.name) for f in fields(summary) if f.name != "total_seconds"},
                "seconds": seconds,
                "zero_shot": [asdict(judged) for judged in summary.zero_shot],
                "skipped": {key: image.reason for key, image in summary.skipped.items()},
                "left_out": {split: account.as_table() for split, account in summary.left_out.items()},
                "duplicates": [[pair.one, pair.other] for pair in summary.duplicates],
            }
        )
        return
    whose = "" if summary.teacher == "main" else f" of the teacher {summary.teacher}"
    rows = {
        f"rows{whose}": f"{summary.rows:,} ({_changes(summary)})",
        **({"of splits": _of_splits(summary)} if len(summary.rows_of_splits) > 1 else {}),
        "size": in_bytes(summary.bytes),
        **_speed(summary, unit),
        "all": f"{summary.total_seconds:,.1f} s",
    }
    for name, count in summary.truncated.items():
        rows[f"truncated {name}"] = f"{count:,} longer than the teacher's context"
    rows |= summary.sources
    if summary.duplicates:
        rows["in two splits or classes"] = f"{len(summary.duplicates):,}"
    table(f"cache {out}", ["", ""], list(rows.items()))
    print_zero_shot(summary.zero_shot, summary.doubts)
    for key, image in islice(summary.skipped.items(), SKIPPED):
        click.echo(printable(f"skipped {key}: {image.reason}"))
    print_left_out(summary.left_out)
    print_duplicates(summary.duplicates)


def _speed(summary: BuildSummary, unit: str) -> dict[str, str]:
    """Return how fast rows were made, and what was added beside them; nothing of what was not."""
    called = {"decoding": "decoding (in workers)", "waiting": f"waiting for {unit}"}
    told = {}
    if summary.new_rows:
        told["rate"] = rate_of(summary.images_per_s, unit)
        parts = asdict(summary.seconds)
        # Of columns nobody measures where the time goes.
        told |= {
            called.get(name, name): f"{value:,.1f} s" for name, value in parts.items() if any(parts.values())
        }
    for name, count in summary.added_columns.items():
        told[f"added {name}"] = f"{count:,} rows"
    if added := sum(summary.added_columns.values()):
        seconds = summary.columns_seconds
        told["added in"] = f"{seconds:,.1f} s, {rate_of(added / max(seconds, 1e-9), 'rows')}"
    return told


def print_left_out(left_out: Mapping[str, Account]) -> None:
    """Print a line for each reason why something of a split has no row, with three names."""
    for split, account in left_out.items():
        for line in account.in_words():
            click.echo(printable(f"left out of {split}: {line}"))


def _of_splits(summary: BuildSummary) -> str:
    return ", ".join(f"{split} {rows:,}" for split, rows in summary.rows_of_splits.items())


def _changes(summary: BuildSummary) -> str:
    counts = {
        "new": summary.new_rows,
        "removed": summary.removed_rows,
        "replaced": summary.replaced_rows,
        "back again": summary.restored_rows,
    }
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count or what == "new")


def print_zero_shot(judged: Sequence[ZeroShot], doubts: Sequence[str]) -> None:
    """Print how well the teacher classifies by its texts, and what should be looked at."""
    rows = [
        [z.split, z.bank, percent(z.accuracy), percent(z.chance), number(z.images), _classes(z)]
        for z in judged
    ]
    if rows:
        columns = ["split", "texts", "macro accuracy", "chance", "images", "classes"]
        table("the teacher, zero-shot", columns, rows)
    for line in doubts:
        click.echo(printable(f"look at {line}"))


def _classes(judged: ZeroShot) -> str:
    among = f", among {judged.competing:,}" if judged.competing != judged.classes else ""
    return f"{judged.classes:,}{among}"


def print_duplicates(duplicates: Sequence[Duplicate]) -> None:
    """Name the images that are in two splits, or under two classes."""
    if duplicates:
        some = "; ".join(map(str, duplicates[:5]))
        more = f"; and {len(duplicates) - 5:,} more" if len(duplicates) > 5 else ""
        click.echo(printable(f"{len(duplicates):,} images are in two splits or classes: {some}{more}"))
