"""The words that a model can name without being given any: whether there is time for them."""

from __future__ import annotations

import time
from pathlib import Path

from cache import EmbeddingCache
from distill.adapt.book import Book
from distill.adapt.options import AdaptOptions, in_words
from distill.deploy.vocabulary_rows import (
    SHIPPED,
    SHIPPED_WORDS,
    VocabularySource,
    encoder_of,
    read_words,
)

# Their rows, so that the next export of the same words embeds none.
KEPT = "vocabulary.npz"
# Of what is left of a budget.
MOST_OF_BUDGET = 0.25
# Seconds that a better model may wait for its words: else it is there without them first.
QUICK = 60.0
PROBED = 64


def words_for(book: Book, cache: Path, *, left: float) -> VocabularySource | None:
    """Return the words that a model is to have, None where nothing embeds them or that takes too long.

    ``left`` is what is left of the budget for them, when the model with them has been written.
    """
    options, kept = book.options, book.options.work / KEPT
    if options.cache is not None and not EmbeddingCache.open(cache).text_tower:
        book.note(
            f"the cache keeps no text tower, so that the model names what it is given alone"
            f"{_later(options, 'NAME')}"
        )
        return None
    source = VocabularySource(words=Path(SHIPPED), device=options.device, kept=kept)
    if options.cache is None:
        source = VocabularySource(
            words=Path(SHIPPED),
            teacher_model=options.model,
            pretrained=options.pretrained,
            device=options.device,
            kept=kept,
        )
    if options.budget is not None and not kept.is_file():
        if not book.state.text_pace:
            book.keep(text_pace=_pace(cache, source))
        seconds = book.state.text_pace * len(read_words(SHIPPED_WORDS, progress=book.progress))
        if seconds > MOST_OF_BUDGET * left:
            book.note(
                f"the words that need no names take {in_words(seconds)}, too long for the "
                f"budget{_later(options, options.model)}"
            )
            return None
    return source


def are_quick(book: Book) -> bool:
    """Say whether a model can wait for the words that it is to have."""
    kept, pace = book.options.work / KEPT, book.state.text_pace
    return kept.is_file() or 0 < pace * len(read_words(SHIPPED_WORDS, progress=book.progress)) <= QUICK


def _pace(cache: Path, source: VocabularySource) -> float:
    """Return the seconds that the text tower which a cache keeps takes for a text, by a few."""
    tower = encoder_of(EmbeddingCache.open(cache), source)
    texts = [f"a photo of {number}" for number in range(PROBED)]
    tower.embed_texts(texts[:4])
    began = time.perf_counter()
    tower.embed_texts(texts)
    return (time.perf_counter() - began) / len(texts)


def _later(options: AdaptOptions, teacher: str) -> str:
    given = f" --teacher-model {teacher}" if options.cache is None or teacher == "NAME" else ""
    return (
        f"; 'distill export {options.work}/RUN --out MODEL --vocabulary {SHIPPED}{given}' "
        "writes a model with them"
    )
