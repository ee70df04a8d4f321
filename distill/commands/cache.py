"""``distill cache``: what is done with caches."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.runtime.amounts import in_bytes
from cache.runtime.errors import UserError, printable, some_of
from distill.commands.options import (
    EXISTING_FOLDER,
    FOLDER,
    WEIGHTS,
    json_option,
    option,
    rows_options,
    shared_classes_option,
)
from distill.commands.source_options import source_options, source_options_of
from distill.commands.tables import (
    loading,
    print_duplicates,
    print_json,
    print_left_out,
    print_zero_shot,
    working,
)

if TYPE_CHECKING:
    from cache.maintain.compact import Compaction
    from cache.maintain.listed_files import Check
    from cache.reader import EmbeddingCache
    from cache.sources.samples import DataFolder
    from cache.store.manifest import Manifest


@click.command()
@click.argument("cache", type=EXISTING_FOLDER)
@json_option("Print every check as JSON.")
def verify(cache: Path, as_json: bool) -> None:
    """Check CACHE, and name the damaged files.

    Every file's checksum, every key and every text bank is looked at; the exit status is 1 where one is
    damaged.

    Example: distill cache verify artifacts/photos
    """
    from cache.maintain.verify import verify_cache
    from cache.store.duplicates import duplicates_of
    from cache.store.journal import Journal

    with working("cache verify", "files") as progress:
        checks = verify_cache(cache, progress=progress)
    bad = [check for check in checks if check.problem]
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        for check in bad:
            click.echo(printable(f"{check.file}: {check.problem}"))
        click.echo(f"{len(checks) - len(bad)} of {len(checks)} files are sound.")
        if not bad:
            print_duplicates(duplicates_of(cache, Journal.load(cache)))
    if bad:
        raise _not_whole(cache, bad)


def _not_whole(cache: Path, bad: Sequence[Check]) -> UserError:
    """Return what to say of a cache of which not every file is as it should be."""
    from cache.maintain.verify import MISSING
    from cache.store.manifest import NAME, Manifest

    repair = f"run 'distill cache repair {cache}'."
    missing = [check.file for check in bad if check.problem == MISSING]
    damaged = [check.file for check in bad if check.problem != MISSING and check.file != NAME]
    if not missing and not damaged:  # what is there is sound
        command = Manifest.load(cache).command
        return UserError(
            f"{cache} is not finished: its build was stopped, or it is a copy of one that was going on",
            fix=f"run the same {f'distill {command}' if command else 'command'!r} again: it continues.",
        )
    files = "a file" if len(missing) == 1 else f"{len(missing):,} files"
    lacks = f"{cache} lacks {files} of those it lists ({some_of(missing)})"
    repair = f"if it is a copy that was cut short, copy it again; else {repair}"
    if not damaged:
        return UserError(lacks, fix=repair)
    files = "1 damaged file" if len(damaged) == 1 else f"{len(damaged):,} damaged files"
    has = f"{cache} has {files} ({some_of(damaged)})"
    return UserError(f"{has}; {lacks}" if missing else has, fix=repair)


@click.command()
@click.argument("cache", type=EXISTING_FOLDER)
@option("--compact", "Join small row groups too, and drop removed rows.", bool)
@json_option("Print what was done as JSON.")
def repair(cache: Path, compact: bool, as_json: bool) -> None:
    """Take every damaged file out of CACHE.

    What was taken out is redone by the command that made the cache; that command is printed, without its data
    and teacher, and the exit status is 1. Nothing is loaded that CACHE names. With --compact a sound cache's
    small row groups are joined; nothing should read it meanwhile.

    \b
    Examples:
      distill cache repair artifacts/photos
      distill cache repair artifacts/photos --compact
    """
    from cache.maintain.repair import repair_cache

    with working("cache repair", "files") as progress:
        done = repair_cache(cache, progress=progress)
    joined = _compacted(cache) if compact and not done.commands else None
    if as_json:
        result = {"removed": [asdict(check) for check in done.removed], "commands": done.commands}
        print_json({**result, **({"compacted": asdict(joined)} if joined else {})})
    else:
        for check in done.removed:
            click.echo(printable(f"taken out: {check.file} ({check.problem})"))
    if done.commands:
        files = "a file was" if len(done.removed) == 1 else f"{len(done.removed):,} files were"
        raise UserError(
            f"{cache} is not whole ({files} taken out)",
            fix="run the command again that made it, with all that it was given: "
            f"{'; then '.join(done.commands)}",
        )
    if joined and not as_json:
        click.echo(
            f"{joined.before:,} row groups are {joined.after:,} now, {in_bytes(joined.bytes)} are free."
        )
    if not as_json:
        click.echo(f"{cache} is sound.")


def _compacted(cache: Path) -> Compaction:
    from cache.maintain.compact import compact_cache

    with working("cache repair --compact", "rows") as progress:
        return compact_cache(cache, progress=progress)


@click.command("import")
@option("--out", "The cache folder to write.", FOLDER, required=True)
@option(
    "--images",
    "Image embeddings: .npy, .pt (clip_image_feats.pt), FILE.npz:NAME, or a folder of clip-retrieval's.",
    required=True,
)
@option("--keys", "SPLIT/CLASS/FILE or pool/KEY of each row, as --classes; else the original code's order.")
@option("--data", "The images, a SOURCE or SPLIT=SOURCE as for cache-features. Repeatable.", multiple=True)
@source_options
@option("--captions", "Caption embeddings in the same order (clip_caption_feats.pt).")
@option("--texts", "Class embeddings, one row a class: .npy, .pt or FILE.npz:NAME.")
@option("--classes", "The class folder of each row of --texts: a text file, .npy or FILE.npz:NAME.")
@option("--bank", "Name of that text bank.", default="labels")
@option(
    "--as split",
    "The split of rows that name none  [default: train; pool for clip-retrieval's without labels]",
    default="",
    show_default=False,
)
@option("--model", "The teacher's name.", default="imported")
@option("--pretrained TAG|FILE", f"{WEIGHTS[:-1]}, to embed DATA's class texts.")
@rows_options
@shared_classes_option
def import_(out: Path, **given: Any) -> None:
    """Make a cache from embeddings that are there already.

    \b
    Examples:
      distill cache import --out artifacts/cub --data CUB --images clip_image_feats.pt \\
          --captions clip_caption_feats.pt --texts class_embeddings.npy --classes classes.txt
      distill cache import --out artifacts/mine --images emb.npy --keys keys.txt --texts t.npy --classes c.txt
      distill cache import --out artifacts/web --images clip-retrieval-folder --data pool='shards/*.tar'
    """
    from cache.reader import EmbeddingCache
    from cache.sources.clip_retrieval import TEXTS, is_clip_retrieval
    from cache.store.left_out import accounts_of
    from cache.store.manifest import check_is_cache_or_empty

    check_is_cache_or_empty(out)
    with loading():
        from cache.build.judgements import Judgements
        from cache.build.text_banks import sources_of
        from cache.maintain.import_files import ImportOptions, import_files
    with working("cache import", "rows") as progress:
        options = ImportOptions(sources=source_options_of(given), **given)
        manifest = import_files(out, options, progress=progress)
    cache = EmbeddingCache.open(out)
    banks = ", ".join(manifest.banks) or "none"
    click.echo(f"{out}: {cache.rows:,} rows, embed_dim {manifest.embed_dim}, text banks: {banks}")
    images, captions = given["images"], given["captions"]
    of = captions or (os.path.join(images, TEXTS) if is_clip_retrieval(images) else "")
    captions = f"rows of {of}" if of else "kept from before"
    for name, source in sources_of(manifest, cache.journal, captions_from=captions).items():
        click.echo(printable(f"{name}: {source}"))
    judged = Judgements.of(cache, cache.bank_names, cache.bank_names)
    print_zero_shot(judged.zero_shot, judged.doubts)
    print_left_out(accounts_of(manifest, cache.journal))
    print_duplicates(judged.duplicates)


@click.command()
@click.argument("cache", type=EXISTING_FOLDER)
@option("--to format", "The format to write.", ["hdf5", "webdataset"], required=True)
@option("--out", "The new cache folder.", FOLDER, required=True)
@option("--data", "The images, for a WebDataset of the pictures too  [default: where CACHE has them from]")
def convert(cache: Path, format: str, out: Path, data: str | None) -> None:
    """Write CACHE in the other format, number for number.

    Run again, it follows what CACHE has become.

    Example: distill cache convert artifacts/photos --to webdataset --out artifacts/photos-tar --data photos
    """
    from cache.reader import EmbeddingCache

    opened = EmbeddingCache.open(cache)
    with loading():
        from cache.maintain.convert import convert_cache
    folder = _pictures_of(opened, data) if data or format == "webdataset" else None
    with working("cache convert", "rows") as progress:
        manifest = convert_cache(cache, out, format=format, folder=folder, progress=progress)
    click.echo(
        f"{out}: {EmbeddingCache.open(out).rows:,} rows as {format}{_without(manifest, folder is not None)}"
    )


def _pictures_of(cache: EmbeddingCache, data: str | None) -> DataFolder | None:
    """Return the images of a cache: in ``data``, else where they were; None where they are not any more."""
    from distill.data.folders import sources_of

    own = sources_of(cache)
    if data:
        return own.at([data]).open()
    return own.open() if own.given and not own.gone and not cache.holds_episodes else None


def _without(manifest: Manifest, pictures: bool) -> str:
    """Say what a conversion has not that its format could have, or its source had."""
    if pictures or (manifest.sources and not manifest.sources.gone and manifest.spec.format == "hdf5"):
        return ""
    if manifest.spec.format == "hdf5":
        return "; pictures of tars are left behind: 'train' needs --data once"
    return "; without --data its tars hold no pictures, and 'train' cannot stream them"
