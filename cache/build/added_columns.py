"""Which columns a stage-1 run adds to the rows of its images, as its options say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cache.build.captions import CaptionRows
from cache.build.columns import Column, ColumnsJob, TeacherSettings, Tools
from cache.build.crop_views import CropViews
from cache.build.neighbours import Neighbours
from cache.build.options import Build
from cache.build.pixels import Pixels
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
        columns.append(CropViews(of=views, teacher=teacher))
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
    if asked is not None and asked != own:
        raise UserError(
            f"the views of {build.out} are {own.words}, "
            f"and by the teacher {teacher} they are to be {asked.words}",
            fix=f"leave --views out, which makes the same, or make the cache's anew first: {asked.command} "
            "without --teacher.",
        )
    return own


def _fingerprint(build: Build, manifest: Manifest) -> str:
    # Of an added teacher too: its rows are kept in the cache's dtype.
    return replace(manifest.spec, teacher=build.teacher.spec).fingerprint()
