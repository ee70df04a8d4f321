"""Which columns a stage-1 run adds to the rows of its images, as its options say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from cache.build.captions import CaptionRows
from cache.build.columns import Column, ColumnsJob, MakeColumns, TeacherSettings, Tools, add_columns
from cache.build.crop_views import CropViews
from cache.build.neighbours import Neighbours
from cache.build.options import Build
from cache.build.pixels import Pixels
from cache.build.projection import with_projection
from cache.build.support_views import SupportViews
from cache.build.versions import made_with
from cache.runtime.errors import UserError
from cache.runtime.json_values import value_of
from cache.sources.rand_augment import MAGNITUDE, NUM_OPS
from cache.sources.splits import MAIN_TEACHER
from cache.store.crop_views import COLUMN, RANDAUGMENT, CropViewsSettings
from cache.store.manifest import Manifest
from cache.store.neighbours import kept_of
from cache.store.pixels import PixelsSettings
from cache.store.projections import PCA128_INT8
from cache.store.stored_neighbours import NeighboursSettings
from cache.store.support_views import SupportViewsSettings


def job_of(build: Build, manifest: Manifest, columns: Sequence[Column]) -> ColumnsJob:
    """Return what adds columns to a run's cache, in each of its processes."""
    options, teacher = build.options, build.teacher
    batch_size = options.batch_size or 1
    return ColumnsJob(
        out=build.out,
        sources=build.folder.splits,
        columns=columns,
        tools=Tools(
            teacher=teacher,
            dtype=manifest.spec.dtype,
            batch_size=batch_size,
            workers=options.workers or 0,
            progress=build.progress,
            made_with=made_with(batch_size, teacher.device),
        ),
        ranks=build.ranks,
    )


def add_asked_columns(
    build: Build, manifest: Manifest, make: MakeColumns, *, teacher: str = MAIN_TEACHER
) -> tuple[Manifest, dict[str, int]]:
    """Add to a teacher's rows, which are there, what the options ask for beside them; every rank calls it.

    Returns the manifest that names it, and the rows of each column. UserError as
    :func:`cache.build.columns.add_columns`.
    """
    if _projects(build, manifest, teacher):
        manifest = build.ranks.from_first(partial(with_projection, build.out, manifest, teacher=teacher))
    columns = columns_of(build, manifest, teacher=teacher)
    return add_columns(job_of(build, manifest, columns), manifest, make) if columns else (manifest, {})


def columns_of(build: Build, manifest: Manifest, *, teacher: str = MAIN_TEACHER) -> list[Column]:
    """Return the columns that a run is asked for, in the order in which they are made.

    What an earlier run added and this one is not asked for stays as it is.
    """
    options = build.options
    fingerprint = _fingerprint(build, manifest)
    columns: list[Column] = []
    if build.captions:
        of_captions = TeacherSettings(teacher=fingerprint)
        columns.append(CaptionRows(of=of_captions, captions=build.captions, teacher=teacher))
    photos = not manifest.several_labels
    if photos and options.support_views > 1:
        support = SupportViewsSettings(
            views=options.support_views, operations=NUM_OPS, magnitude=MAGNITUDE, teacher=fingerprint
        )
        columns.append(SupportViews(of=support, shots=options.support_shots, teacher=teacher))
    if photos and (views := views_of(build, manifest, teacher=teacher)):
        files = manifest.of_teacher(teacher).projection
        by = files[0] if files and _projects(build, manifest, teacher) else None
        views = replace(views, projection=by.sha256 if by else "")
        columns.append(CropViews(of=views, teacher=teacher, projection=by))
    if photos and options.pixels and teacher == MAIN_TEACHER:
        columns.append(Pixels(of=PixelsSettings(side=options.pixels, encoding=options.pixels_format)))
    most = max(map(len, manifest.splits.values()), default=0)
    k = kept_of(most, options.neighbours)
    listed, nearest = manifest.of_teacher(teacher).banks, NeighboursSettings(k=k)
    columns += [
        Neighbours(
            of=nearest,
            bank=bank.name,
            listed=listed[bank.name],
            class_names=manifest.splits,
            teacher=teacher,
        )
        for bank in build.banks
        if k and all(bank.classes) and bank.name in listed
    ]
    return columns


def views_of(build: Build, manifest: Manifest, *, teacher: str) -> CropViewsSettings | None:
    """Return the views that a run is asked for; of an added teacher those that the cache has, if it has some.

    UserError where that is asked for others: a batch of training shows the same views to all teachers.
    """
    options, fingerprint = build.options, _fingerprint(build, manifest)
    asked = None
    if options.views:
        num_ops, magnitude = (NUM_OPS, MAGNITUDE) if options.view_policy == RANDAUGMENT else (0, 0)
        asked = CropViewsSettings(
            views=options.views,
            scale=options.views_scale,
            operations=num_ops,
            magnitude=magnitude,
            teacher=fingerprint,
        )
    listed = manifest.columns.get(COLUMN) if teacher != MAIN_TEACHER else None
    if listed is None:
        return asked
    own = value_of(CropViewsSettings, {**listed.settings, "teacher": fingerprint}, name=COLUMN)
    if asked is not None and asked.drawn != own.drawn:
        raise UserError(
            f"the views of {build.out} are {own.words}, "
            f"and by the teacher {teacher} they are to be {asked.words}",
            fix=f"leave --views out, which makes the same, or make the cache's anew first: {asked.command} "
            "without --teacher.",
        )
    return asked or replace(own, projection="")


def _projects(build: Build, manifest: Manifest, teacher: str) -> bool:
    """Say whether the rows of views are projected: of an added teacher without a word as the cache's are."""
    if manifest.several_labels or teacher == MAIN_TEACHER or build.options.views:
        return bool(build.options.views) and build.options.store == PCA128_INT8
    listed = manifest.columns.get(COLUMN)
    return listed is not None and bool(listed.settings.get("projection"))


def _fingerprint(build: Build, manifest: Manifest) -> str:
    # Of an added teacher too: its rows are kept in the cache's dtype.
    return replace(manifest.spec, teacher=build.teacher.spec).fingerprint()
