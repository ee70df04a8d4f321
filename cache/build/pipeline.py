"""The stage-1 run: prepare, embed, add columns, finish. Kill it anywhere and run it again."""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from cache.build.added_columns import add_asked_columns
from cache.build.captions import notes_on_captions
from cache.build.chunk_identities import keep_chunks
from cache.build.columns import MakeColumns, make_here
from cache.build.embed_images import Seconds, UnitSettings, Writer
from cache.build.embed_units import embed_units
from cache.build.lost_files import remove_unlisted
from cache.build.options import Build
from cache.build.outdated_tars import note_on_tars
from cache.build.plan import Plan
from cache.build.preparation import Preparation, prepare, save_indexes
from cache.build.rebuild import writing_cache
from cache.build.stored_rows import StoredRows
from cache.build.summary import BuildSummary, Took, summarize
from cache.runtime.errors import UserError, some_of
from cache.sources.accounts import Account
from cache.sources.splits import MAIN_TEACHER
from cache.store.duplicates import check_pool
from cache.store.journal import Journal, consolidate, writer_of_rank
from cache.store.left_out import accounts_of
from cache.store.manifest import Manifest
from cache.store.spec import WEBDATASET
from cache.teacher.text_tower import save_text_tower

# Embeds what is planned into row groups that the journal lists, and returns where the time went.
Embed = Callable[[Build, UnitSettings, Plan], Seconds]


def embed_here(build: Build, settings: UnitSettings, plan: Plan) -> Seconds:
    """Embed this rank's share of a plan; each rank has a journal of its own."""
    ranks = build.ranks
    units = plan.units(ranks.world, batch_size=settings.batch_size)[ranks.rank :: ranks.world]
    build.progress.start(sum(unit.rows for unit in units), "embedding", build.unit)
    return embed_units(
        settings,
        Writer(teacher=build.teacher, workers=build.options.workers or 0, name=writer_of_rank(ranks.rank)),
        build.folder.splits,
        units,
        build.progress,
        journal=Journal.load(build.out),
    )


def build_cache(
    build: Build, embed: Embed = embed_here, make_columns: MakeColumns = make_here
) -> BuildSummary:
    """Bring a cache up to date with a data folder: what has no row yet is embedded, and nothing else.

    Every file is written beside its name and renamed, and only then listed in the journal; so a build that is
    killed loses at most the row group it was on, and the one that was being written.

    Raises
    ------
    UserError
        If the output cannot be written or belongs to another teacher.
    """
    began, ranks = time.perf_counter(), build.ranks
    writing = writing_cache(build.out, build.spec, rebuild=build.options.rebuild)
    with writing if ranks.is_first else nullcontext(build.out) as out:
        build = replace(build, out=ranks.from_first(lambda: out))
        prepared = ranks.from_first(partial(prepare, build))
        before = time.perf_counter()
        seconds = embed(build, unit_settings(build, prepared), prepared.compared.plan)
        ranks.wait()
        embedding = time.perf_counter() - before
        if ranks.is_first:
            join_rows(build, prepared.planned)
        ranks.wait()
        before = time.perf_counter()
        added = _add_columns(build, make_columns)
        columns = time.perf_counter() - before
        new_rows = ranks.from_first(partial(_finish, build, prepared))
        took = Took(embedding=embedding, columns=columns, total=time.perf_counter() - began, seconds=seconds)
        summary = summarize(build, prepared.compared.changes, new_rows=new_rows, added=added, took=took)
        ranks.wait()  # before a rebuilt cache gets another name
        return summary


def unit_settings(build: Build, prepared: Preparation) -> UnitSettings:
    """Return how a run's units are embedded."""
    texts = build.captions.texts if build.captions and build.spec.format == WEBDATASET else None
    return UnitSettings(
        captions=texts or None,
        cache=build.out,
        spec=prepared.manifest.spec,
        batch_size=build.options.batch_size or 1,
        strict=build.options.strict,
        planned=prepared.planned,
    )


def join_rows(build: Build, planned: Container[str]) -> None:
    """Join what all writers have listed, each key once; from then on every process sees the same rows.

    ``planned`` names the row groups that were there before.
    """
    out, journal = build.out, Journal.load(build.out)
    for split in {group.split for group in journal.all_groups if group.name not in planned}:
        stored = StoredRows(out, journal.groups(split))
        # A task that was taken for lost may have ended after all, and another have made its rows again.
        for line in [*stored.removing(stored.doubles)]:
            journal.add(line)
    consolidate(out, journal)
    if not any(map(journal.rows, journal.splits)):
        raise _without_images(build, journal)
    save_indexes(out, journal)


def _without_images(build: Build, journal: Journal) -> UserError:
    """Return the error of a cache without a row, which says why there is none."""
    left_out = {split: dict(source.account().left_out) for split, source in build.folder.splits.items()}
    accounts = accounts_of(replace(Manifest.load(build.out), left_out=left_out), journal).values()
    why = "; ".join(sum(accounts, Account()).in_words()) or "there is none"
    where = some_of(build.folder.given) or build.folder.path
    return UserError(f"no image of {where} could be read ({why})", fix="check that the files are images.")


def _add_columns(build: Build, make: MakeColumns) -> dict[str, int]:
    """Add to the rows what the options ask for beside them; return how many rows of each column."""
    manifest, before = Manifest.load(build.out), Journal.load(build.out)
    _, added = add_asked_columns(build, manifest, make)
    if build.captions and build.ranks.is_first:
        after, source = Journal.load(build.out), build.captions.source
        for note in notes_on_captions(before, after, source=source, cache=build.out):
            build.progress.note(note)
    return added


def _finish(build: Build, prepared: Preparation) -> int:
    """Keep what there is one of, and say that the cache is complete; return how many rows are new."""
    out, journal = build.out, Journal.load(build.out)
    manifest = with_text_tower(build, Manifest.load(out))
    consolidate(out, journal)
    remove_unlisted(out, manifest, journal)
    if "pool" in journal.splits and (not manifest.complete or prepared.compared.listed):
        check_pool(out, journal)
    for split, samples in prepared.compared.listed.items():
        if samples == journal.rows(split) + len(journal.skipped.get(split, {})):
            keep_chunks(out, split, prepared.compared.chunks[split], samples)
    left_out = {
        split: dict(source.account().left_out)
        if split in prepared.compared.listed or split not in manifest.left_out
        else manifest.left_out[split]
        for split, source in build.folder.splits.items()
    }
    finished = replace(manifest, rows=journal.rows_of_splits, left_out=left_out, complete=True)
    if build.sources is not None:
        finished = replace(finished, sources=build.sources)
    if finished != manifest:
        finished.save(out)
    if note := note_on_tars(out, manifest, journal):
        build.progress.note(note)
    return sum(group.live for group in journal.all_groups if group.name not in prepared.planned)


def with_text_tower(build: Build, manifest: Manifest, *, teacher: str = MAIN_TEACHER) -> Manifest:
    """Return the manifest with a teacher's text tower, where the options ask for it; it is saved."""
    tower = manifest.of_teacher(teacher).text_tower
    kept = bool(tower) and all(file.is_sound(build.out) for file in tower)
    if not build.options.keep_text_tower or kept:
        return manifest
    tower = save_text_tower(build.out, build.teacher.text_side().kept(), teacher=teacher)
    manifest = manifest.with_text_tower(tower, teacher=teacher)
    manifest.save(build.out)
    return manifest
