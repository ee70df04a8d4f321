"""The words that a model can name without being given any: whether there is time for them."""

from __future__ import annotations

from pathlib import Path

from cache import EmbeddingCache
from cache.runtime.progress import Progress
from distill.adapt.options import AdaptOptions, in_words
from distill.deploy.vocabulary_rows import SHIPPED, SHIPPED_WORDS, VocabularySource, read_words

# Their rows, so that the next export of the same words embeds none.
KEPT = "vocabulary.npz"
# Of what is left of a budget.
MOST_OF_BUDGET = 0.25


def words_for(
    options: AdaptOptions, cache: Path, *, pace: float, left: float, progress: Progress
) -> VocabularySource | None:
    """Return the words that a model is to have, None where nothing embeds them or that takes too long.

    ``pace`` is the seconds that the teacher takes for a text, ``left`` what is left of the budget.
    """
    kept = options.work / KEPT
    if options.cache is not None:
        if not EmbeddingCache.open(cache).text_tower:
            progress.note(
                f"the cache keeps no text tower, so that the model names what it is given alone"
                f"{_later(options, 'NAME')}"
            )
            return None
        return VocabularySource(words=Path(SHIPPED), device=options.device, kept=kept)
    seconds = pace * len(read_words(SHIPPED_WORDS, progress=progress))
    if options.budget is not None and not kept.is_file() and seconds > MOST_OF_BUDGET * left:
        progress.note(
            f"the words that need no names take {in_words(seconds)}, too long for the "
            f"budget{_later(options, options.model)}"
        )
        return None
    return VocabularySource(
        words=Path(SHIPPED),
        teacher_model=options.model,
        pretrained=options.pretrained,
        device=options.device,
        kept=kept,
    )


def _later(options: AdaptOptions, teacher: str) -> str:
    return (
        f"; 'distill export {options.work}/RUN --out MODEL --vocabulary {SHIPPED} --teacher-model {teacher}' "
        "writes a model with them"
    )
