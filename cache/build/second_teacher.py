"""Another teacher beside the first: its rows of the same images, and texts of its own.

Its rows are columns on the row groups that are there, its banks files beside the first teacher's: a row group
that comes later lacks them until the same command is run again.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from cache.build.added_columns import add_asked_columns, job_of, views_of
from cache.build.changes import Changes
from cache.build.columns import MakeColumns, TeacherSettings, add_columns, drop_files, make_here
from cache.build.distinct_texts import positions_note
from cache.build.options import Build
from cache.build.pipeline import with_text_tower
from cache.build.summary import BuildSummary, Took, summarize
from cache.build.teacher_rows import TeacherRows
from cache.build.text_banks import changed_texts, check_banks, write_banks
from cache.reader import EmbeddingCache
from cache.runtime.atomic_files import check_own_folders, remove_temporaries
from cache.runtime.errors import CacheMismatch, UserError
from cache.runtime.locks import only_writer
from cache.sources.names import is_plain_name
from cache.sources.splits import MEAN
from cache.store.column_lines import column_name
from cache.store.journal import Journal, consolidate
from cache.store.manifest import Manifest
from cache.store.manifest_lines import AddedTeacher
from cache.store.spec import TeacherSpec


def check_teacher_name(name: str) -> None:
    """Raise a UserError if a teacher cannot be called so: its columns and files begin with its name."""
    if not is_plain_name(name) or "." in name:
        raise UserError(
            f"--teacher {name!r} cannot name columns", fix="use letters, digits, '_' and '-', a letter first."
        )
    if name == MEAN:
        raise UserError(
            f"--teacher {MEAN} is how the mean of several heads is called",
            fix="choose another name.",
        )


def add_teacher(build: Build, name: str, make: MakeColumns = make_here) -> BuildSummary:
    """Add a teacher's rows of all images that have a row to a finished cache; run again, it continues.

    Every rank calls it. An image is looked at only where the teacher has no row of it yet.

    Raises
    ------
    CacheMismatch
        If an image is not what its row was made from, or the cache has another teacher of that name and the
        options do not say ``rebuild``.
    UserError
        If there is no finished cache, or an image cannot be read any more.
    """
    began, ranks, out = time.perf_counter(), build.ranks, build.out
    check_teacher_name(name)
    with only_writer(out) if ranks.is_first else nullcontext():
        prepared = ranks.from_first(lambda: _prepare(build, name))
        fingerprint = replace(prepared.spec, teacher=prepared.teachers[name].spec).fingerprint()
        rows = TeacherRows(of=TeacherSettings(teacher=fingerprint), teacher=name)
        ranks.wait()
        start = time.perf_counter()
        manifest, own = add_columns(job_of(build, prepared, [rows]), prepared, make)
        embedded = time.perf_counter()
        manifest, added = add_asked_columns(build, manifest, make, teacher=name)
        columns = time.perf_counter() - embedded
        if ranks.is_first:
            with_text_tower(build, manifest, teacher=name)
            consolidate(out, Journal.load(out))
        ranks.wait()
        took = Took(embedding=embedded - start, columns=columns, total=time.perf_counter() - began)
        new_rows = sum(own.values())
        return summarize(build, Changes(), new_rows=new_rows, added=added, took=took, teacher=name)


def _prepare(build: Build, name: str) -> Manifest:
    """Return the manifest with the teacher and its banks, saved."""
    out, spec = build.out, build.teacher.spec
    EmbeddingCache.open(out)  # which says what is wrong with one that is not finished
    check_banks(build.banks, build.folder, build.teacher, shared_classes=build.options.shared_classes)
    manifest = Manifest.load(out)
    views_of(build, manifest, teacher=name)  # which refuses others than the cache has
    check_own_folders(out)
    remove_temporaries(out, below=True)
    if build.spec.decoding != manifest.spec.decoding:
        here, there = manifest.spec, replace(manifest.spec, decoding=build.spec.decoding)
        raise CacheMismatch(
            f"the pictures of {out} were decoded otherwise ({'; '.join(here.differences(there))})",
            fix="give --no-exif and --max-pixels as the cache was made with, or leave them out as there.",
        )
    _check_is_another(manifest, name, spec, out)
    teacher = manifest.teachers.get(name)
    fresh = AddedTeacher(spec=spec, embed_dim=build.teacher.embed_dim)
    if teacher is not None and teacher.spec.identity() != spec.identity():
        if not build.options.rebuild:
            here, there = (replace(manifest.spec, teacher=one) for one in (teacher.spec, spec))
            raise CacheMismatch(
                f"{out} has another teacher called {name} ({'; '.join(here.differences(there))})",
                fix="choose another --teacher, or use --rebuild to replace it.",
            )
        manifest, teacher = _without(manifest, out, name), None
    manifest = replace(manifest, teachers={**manifest.teachers, name: teacher or fresh})
    manifest.save(out)
    note = build.progress.note
    if changed := changed_texts(manifest, out, build.banks, teacher=name):
        note(f"texts changed, and are embedded anew for {name}: {', '.join(changed)}")
    manifest = write_banks(manifest, out, build.teacher, build.banks, teacher=name, progress=build.progress)
    journal = Journal.load(out)
    consolidate(out, journal)
    for line in (*_without_row(build, journal), *(positions_note(b) for b in build.banks if b.lines)):
        note(line)
    return manifest


def _check_is_another(manifest: Manifest, name: str, spec: TeacherSpec, out: Path) -> None:
    """Raise a CacheMismatch if a cache has these very rows by another teacher's name."""
    for other, own in manifest.teacher_specs.items():
        if other != name and own.identity() == spec.identity():
            raise CacheMismatch(
                f"{out} has the rows of {spec.model} already: this is its teacher {other}",
                fix="give another --model or --pretrained, or leave --teacher out.",
            )


def _without(manifest: Manifest, out: Path, name: str) -> Manifest:
    """Return the manifest without a teacher and its columns, whose files are dropped."""
    prefix = column_name("", name)
    columns = {column: how for column, how in manifest.columns.items() if not column.startswith(prefix)}
    teachers = {other: teacher for other, teacher in manifest.teachers.items() if other != name}
    without = replace(manifest, columns=columns, teachers=teachers)
    without.save(out)
    drop_files(out, [line for line in Journal.load(out).files.values() if line.column.startswith(prefix)])
    gone = manifest.teachers[name]
    for file in (*gone.banks.values(), *gone.text_tower, *gone.projection):
        (out / file.file).unlink(missing_ok=True)
    return without


def _without_row(build: Build, journal: Journal) -> list[str]:
    """Say of how many images of the data the cache has no row, which the first teacher comes to first."""
    left = {
        split: len(source) - journal.rows(split) - len(journal.skipped.get(split, {}))
        for split, source in build.folder.splits.items()
    }
    return [
        f"{count:,} images of {split} in {build.folder.path} have no row in {build.out}: run the same "
        "command without --teacher first"
        for split, count in left.items()
        if count > 0
    ]
