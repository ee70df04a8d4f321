"""``distill cache info``: what is in a cache, and where it came from."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.runtime.amounts import in_bytes
from cache.runtime.errors import printable
from distill.commands.options import EXISTING_FOLDER, json_option
from distill.commands.tables import number, print_json, print_left_out, table

if TYPE_CHECKING:
    from cache.maintain.info import CacheInfo
    from cache.store.manifest import Manifest
    from cache.store.spec import TeacherSpec


@click.command()
@click.argument("cache", type=EXISTING_FOLDER)
@json_option("Print it as JSON.")
def info(cache: Path, as_json: bool) -> None:
    """Say what is in CACHE.

    Its manifest and its journal are read, and no row.

    Example: distill cache info artifacts/photos
    """
    from cache.maintain.info import describe_cache

    there = describe_cache(cache)
    if as_json:
        plain = asdict(there)
        plain["left_out"] = {split: account.as_table() for split, account in there.left_out.items()}
        print_json({**plain.pop("manifest"), "fingerprint": there.manifest.spec.fingerprint(), **plain})
        return
    table(f"cache {cache}", ["", ""], _about(there.manifest, there.problem))
    _print_sources(there)
    names = ["split", "rows", "classes", "groups", "removed", "skipped", "own captions"]
    splits = [
        [s.split, *map(number, (s.rows, s.classes, s.groups, s.removed, s.skipped, s.own_captions))]
        for s in there.splits
    ]
    table("splits", names, splits)
    print_left_out(there.left_out)
    _print_columns(there)
    _print_banks(there)
    writers = ", ".join(w.writer for w in there.writers) or "none"
    made = [f"{count:,} groups by {words}" for words, count in there.made_with.items()]
    click.echo(printable(f"writers: {writers}; {'; '.join(made)}; {in_bytes(there.bytes)} in all"))


def _print_columns(there: CacheInfo) -> None:
    """Say what is kept of every image; what made it only where that is not the same of all."""
    names = ["column", "groups", "rows", "size", "teacher", "settings", "made with"]
    columns = [
        [
            *(c.column, f"{c.groups:,} of {c.of:,}", number(c.rows), in_bytes(c.bytes), c.teacher),
            *(_words(c.settings), "; ".join(c.made_with)),
        ]
        for c in there.columns
    ]
    kept = len(names) if len({row[-1] for row in columns}) > 1 else len(names) - 1
    table("columns", names[:kept], [row[:kept] for row in columns])


def _print_sources(there: CacheInfo) -> None:
    """Say where the images and the rows are from."""
    kept = there.manifest.sources
    for one in there.named_sources:
        gone = "" if one.there else " (not there any more)"
        click.echo(printable(f"images from: {one.source}{gone}"))
    if not there.named_sources:
        click.echo("images from: not known")
    if kept is not None and kept.options.rule is not None:
        click.echo(printable(f"split by: --split '{kept.options.rule}'"))
    if len(there.every_teacher) > 1:
        teachers = [
            [t.teacher, f"{t.model} ({t.pretrained})", str(t.embed_dim), t.precision, number(t.rows)]
            for t in there.every_teacher
        ]
        table("teachers", ["teacher", "model", "embed_dim", "computed in", "rows"], teachers)


def _print_banks(there: CacheInfo) -> None:
    for teacher, own in there.manifest.every_teacher.items():
        title = "text banks" if teacher == "main" else f"text banks of {teacher}"
        if not own.banks:
            click.echo(f"{title}: none")
            continue
        banks = [
            [
                *(name, f"{bank.texts:,}", in_bytes(bank.bytes), str(bank.truncated)),
                *(" | ".join(bank.templates), bank.source),
            ]
            for name, bank in own.banks.items()
        ]
        table(title, ["bank", "texts", "size", "truncated", "template", "source"], banks)


def _words(settings: dict[str, Any]) -> str:
    # Whose they are has a column of its own.
    return ", ".join(f"{name} {value!s:.24}" for name, value in settings.items() if name != "teacher")


def _about(manifest: Manifest, problem: str) -> list[list[str]]:
    from cache.runtime.own_code import own_code_in

    teacher = manifest.spec.teacher
    again = problem or f"run the same '{manifest.command}' again"
    return [
        ["fingerprint", manifest.spec.fingerprint()],
        ["complete", "yes" if manifest.complete else f"no: {again}"],
        ["teacher", f"{teacher.model} ({teacher.pretrained})"],
        *([["code", f"sha256 {teacher.architecture[:16]}..."]] if own_code_in(teacher.model) else []),
        ["weights", f"sha256 {teacher.weights_sha256[:16]}..."],
        ["preprocessing", _prepared(teacher)],
        ["computed in", teacher.precision],
        ["stored as", f"{manifest.spec.dtype}, {manifest.spec.format}"],
        ["embed_dim", str(manifest.embed_dim)],
        ["text tower", "kept" if manifest.text_tower else "not kept"],
    ]


def _prepared(teacher: TeacherSpec) -> str:
    if not teacher.image_size:
        return teacher.preprocessing
    height, width = teacher.image_size
    return f"{teacher.preprocessing}, {height if height == width else f'{height} x {width}'} px"
