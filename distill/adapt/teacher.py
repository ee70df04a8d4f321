"""The teacher looks at every photo, once: the cache that all students are made from."""

from __future__ import annotations

from pathlib import Path

from cache import EmbeddingCache
from cache.build.from_folder import FeatureOptions, cache_features
from cache.runtime.amounts import in_bytes
from cache.runtime.errors import UserError
from distill.adapt.book import Book
from distill.adapt.costs import bytes_needed, check_room, teachers_pace
from distill.adapt.names import Names
from distill.adapt.options import in_words
from distill.adapt.photo_list import write_photo_list
from distill.adapt.photos import Photos
from distill.adapt.state import asked

# The text bank that classifies: the names in the teacher's template.
BANK = "labels"


def with_texts(cache: EmbeddingCache) -> EmbeddingCache:
    """Return a cache of photos that has texts of its names; UserError for another."""
    if cache.holds_episodes:
        raise UserError(f"{cache.path} is no cache of photos of one label each", fix="give one that is.")
    if BANK not in cache.bank_names:
        raise UserError(
            f"{cache.path} has no texts of names (no text bank {BANK!r}), by which a photo could be told",
            fix="make it of a teacher with a text tower, import it with --texts and --classes, or add "
            f"class means: distill cache add-texts {cache.path} --bank {BANK} --from-images.",
        )
    return cache


def cached(book: Book, photos: Photos, names: Names) -> tuple[Path, Path]:
    """Have the teacher look at all photos; return the cache and the list of them."""
    options = book.options
    counts = ", ".join(f"{split} {count:,}" for split, count in photos.counts.items())
    book.note(f"{len(photos.photos):,} photos ({counts}), {len(names.words):,} names")
    for line in photos.notes:
        book.note(line)
    cache = options.work / "cache"
    teacher = FeatureOptions(model=options.model, pretrained=options.pretrained, device=options.device)
    if not book.state.text_pace:
        _tell_costs(book, teacher, cache, len(photos.photos))
    place = write_photo_list(options.work, photos.photos, names)
    book.progress.start(0, "the teacher")
    done = cache_features([place], cache, teacher, progress=book.progress)
    if done.new_rows:
        book.note(f"the teacher looked at {done.new_rows:,} photos, {done.images_per_s:,.1f} a second")
    for line in done.doubts:
        book.note(f"look at {line}")
    return cache, place


def _tell_costs(book: Book, teacher: FeatureOptions, cache: Path, count: int) -> None:
    """Tell time and disk; what was asked is written down now that the teacher is known to be there."""
    seconds, text, embed_dim = teachers_pace(teacher, cache)
    needed, budget = bytes_needed(count, embed_dim), book.options.budget
    check_room(book.options.out, needed)
    book.keep(text_pace=text, options=asked(book.options))
    asked_for = f", {in_words(budget)} in all as asked" if budget else ""
    if budget is not None and seconds * count > budget:
        asked_for = f"; that alone is more than the {in_words(budget)} that were asked for"
    book.note(
        f"the teacher takes {in_words(seconds * count)} or so for {count:,} photos, then training begins"
        f"{asked_for}; about {in_bytes(needed)} on the disk"
    )
