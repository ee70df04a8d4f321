"""Units of a plan: the same batches whoever makes them, each row once."""

from __future__ import annotations

import pytest
from helpers.caches import rows_of

from cache.build.embed_images import Writer
from cache.build.embed_units import embed_units
from cache.build.from_folder import FeatureOptions, cache_features, text_banks
from cache.build.options import Build
from cache.build.pipeline import join_rows, unit_settings
from cache.build.plan import Plan, PlannedChunk
from cache.build.preparation import prepare
from cache.build.ray_executor import EmbedOnRay, embed_unit
from cache.build.unit_samples import UnitSamples, open_indexes
from cache.maintain.verify import verify_cache
from cache.runtime.progress import Silent
from cache.runtime.ray_pool import RayCluster
from cache.sources.data import open_data
from cache.store.journal import Journal
from cache.store.row_group import GROUP_ROWS

BATCH = 4


def rows_by_batch(units, chunks):
    """Which batches of which chunk units are, by the number of the batch, made of a plan's counts alone."""
    made = []
    for unit in units:
        first, every = unit.share
        for chunk in unit.chunks:
            batches = -(-chunks[chunk] // BATCH)
            made += [(chunk, number) for number in range(first, batches, every)]
    return made


@pytest.mark.parametrize("writers", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("sizes", [[39], [1], [7, 8, 9], [8192] * 5 + [3], [100] * 40, [70_000]])
def test_every_batch_is_in_one_unit_whatever_the_writers(writers, sizes):
    chunks = {f"chunk-{i}": rows for i, rows in enumerate(sizes)}
    plan = Plan(splits={"train": tuple(PlannedChunk(id=id, rows=rows) for id, rows in chunks.items())})
    units = plan.units(writers, batch_size=BATCH)
    made = rows_by_batch(units, chunks)
    assert sorted(made) == sorted(rows_by_batch(plan.units(1, batch_size=BATCH), chunks))
    assert len(set(made)) == len(made)
    assert sum(unit.rows for unit in units) == sum(sizes)
    assert max(unit.rows for unit in units) <= GROUP_ROWS + BATCH
    assert len({unit.name for unit in units}) == len(units)


def test_fifty_thousand_images_keep_eight_writers_busy():
    plan = Plan(splits={"train": tuple(PlannedChunk(id=str(i), rows=6250) for i in range(8))})
    units = plan.units(8, batch_size=256)
    loads = [sum(unit.rows for unit in units[rank::8]) for rank in range(8)]
    assert len(units) >= 32
    assert max(loads) < 1.2 * 50_000 / 8


@pytest.mark.parametrize(("tars", "units"), [(20, 20), (100, 100), (1000, 167)])
def test_a_kill_costs_one_tar_unless_there_are_very_many(tars, units):
    plan = Plan(splits={"train": tuple(PlannedChunk(id=str(i), rows=10_000) for i in range(tars))})
    assert len(plan.units(1, batch_size=256)) == units


@pytest.fixture
def build(teacher_dir, photos, tmp_path):
    """A run that was not begun."""
    options = FeatureOptions(model=f"local-dir:{teacher_dir}", device="cpu", workers=0, batch_size=BATCH)
    teacher, folder = options.load(), open_data([photos])
    return Build(
        folder=folder,
        out=tmp_path / "cache",
        teacher=teacher,
        spec=options.spec(teacher),
        options=options,
        banks=text_banks(folder, options),
    )


def test_a_chunk_is_cut_into_the_same_batches_by_all_shares(build):
    prepared = prepare(build)
    journal = Journal.load(build.out)
    indexes = open_indexes(journal, build.out, prepared.planned, ["train"])
    samples = UnitSamples(sources=build.folder.splits, indexes=indexes, batch_size=BATCH)

    def keys(writers):
        units = prepared.compared.plan.units(writers, batch_size=BATCH)
        batches = samples.batches([unit for unit in units if unit.split == "train"])
        return {tuple(sample.key for sample in batch.samples) for batch in batches}

    assert keys(1) == keys(2) == keys(5)
    assert sorted(key for batch in keys(1) for key in batch) == [
        sample.key for sample in build.folder.split("train").all()
    ]


def test_a_task_that_is_made_again_makes_what_the_lost_one_has_not_listed(build, photos, tmp_path):
    (photos / "train" / "apple" / "bad.jpg").write_bytes(b"no picture")
    prepared = prepare(build)
    settings = unit_settings(build, prepared)
    where = EmbedOnRay(cluster=RayCluster(), teacher=build.options, workers=0)
    units = prepared.compared.plan.units(1, batch_size=BATCH)
    for unit in units:
        embed_unit(where, settings, unit, build.folder.splits[unit.split])
    before = Journal.load(build.out)
    for unit in units:  # the first time was lost only after its group was listed
        embed_unit(where, settings, unit, build.folder.splits[unit.split])
    after = Journal.load(build.out)
    assert after.files == before.files
    assert after.skipped == before.skipped
    assert sum(map(after.rows, after.splits)) == 39


def test_rows_that_two_tasks_have_made_are_seen_once(build, tmp_path):
    prepared = prepare(build)
    settings = unit_settings(build, prepared)
    units = prepared.compared.plan.units(1, batch_size=BATCH)
    for name in ("one", "other"):
        writer = Writer(teacher=build.teacher, workers=0, name=name)
        embed_units(settings, writer, build.folder.splits, units, Silent(), journal=Journal.load(build.out))
    join_rows(build, prepared.planned)
    journal = Journal.load(build.out)
    assert sum(map(journal.rows, journal.splits)) == 39
    summary = cache_features(build.folder.path, build.out, build.options)
    assert (summary.rows, summary.new_rows) == (39, 0)
    cache_features(build.folder.path, tmp_path / "fresh", build.options)
    assert rows_of(build.out) == rows_of(tmp_path / "fresh")
    assert all(not check.problem for check in verify_cache(build.out))
