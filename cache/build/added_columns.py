"""Which columns a stage-1 run adds to the rows of its images, as its options say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cache.build.captions import CaptionRows
from cache.build.columns import Column, ColumnsJob, Tools
from cache.build.crop_views import CropViews
from cache.build.neighbours import Neighbours
from cache.build.options import Build
from cache.build.pixels import Pixels
from cache.build.support_views import SupportViews
from cache.build.versions import made_with
from cache.sources.splits import MAIN_TEACHER
from cache.store.manifest import Manifest
from cache.store.neighbours import kept_of
from cache.store.pixels import PixelsSettings


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
    # Of an added teacher too: its rows are kept in the cache's dtype.
    fingerprint = replace(manifest.spec, teacher=build.teacher.spec).fingerprint()
    own = {"teacher": teacher, "fingerprint": fingerprint}
    columns: list[Column] = []
    if build.captions:
        columns.append(CaptionRows(captions=build.captions, **own))
    photos = not manifest.several_labels
    if photos and options.support_views > 1:
        columns.append(SupportViews(views=options.support_views, shots=options.support_shots, **own))
    if photos and options.views:
        columns.append(CropViews(views=options.views, scale=options.views_scale, **own))
    if photos and options.pixels and teacher == MAIN_TEACHER:
        columns.append(Pixels(of=PixelsSettings(side=options.pixels, encoding=options.pixels_format)))
    most = max(map(len, manifest.splits.values()), default=0)
    k = kept_of(most, options.neighbours)
    columns += [
        Neighbours.of(manifest, bank.name, k=k, teacher=teacher)
        for bank in build.banks
        if k and all(bank.classes) and bank.name in manifest.of_teacher(teacher).banks
    ]
    return columns
