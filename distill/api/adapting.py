"""``distill.adapt_photos``: from photos and a list of names to a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cache.reader import EmbeddingCache
from cache.runtime.errors import UserError
from distill.adapt.options import AdaptOptions, seconds_of
from distill.adapt.outcome import Outcome
from distill.adapt.run import adapt
from distill.api.given import Place, Watching, listed, maybe_cache, maybe_path, names_of, watched
from distill.api.traces import without_a_trace
from distill.api.words import told_in_python


@told_in_python()
@without_a_trace()
def adapt_photos(
    sources: Place | Sequence[Place],
    out: Place,
    *,
    names: Place | Sequence[str] = (),
    cache: EmbeddingCache | Place | None = None,
    budget: str | float | None = None,
    model: str = "ViT-L-14-quickgelu",
    pretrained: str | None = None,
    arch: str | None = None,
    start: Place | None = None,
    code: Place | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Watching = False,
) -> Outcome:
    """Make a small classifier from photos and a list of names: what ``distill adapt`` does.

    Called again it goes on where it was stopped.

    Parameters
    ----------
    sources
        A folder or a list (.csv: path,label), or several. Photos need no label.
    out
        The model's folder, for :func:`distill.load_model`; its ``work/`` keeps cache, runs and report.
    names
        The names to tell apart, or the file of them, one a line.
    cache
        A finished cache in place of names and teacher; ``sources`` are then where its photos moved, ``()``:
        where they were.
    budget
        How long it may take: seconds, or ``"10m"``; None: the whole recipe.
    model, pretrained
        The teacher, which reads texts, and its weights; as :func:`distill.cache_features` takes them.
    arch, start, code
        The student, its first weights (``pretrained``, ``scratch`` or a file), and the file of one's own.
    seed
        Decides the order and augmentation.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:N``, ``mps``.
    progress
        True writes lines to standard error; or an object with ``start``, ``advance`` and ``note``.

    Returns
    -------
    Outcome
        What the model gets by split, its size and latency, and where everything is.

    Raises
    ------
    UserError
        If anything that was given is wrong: told before the teacher, which is slow, is loaded.
    """
    seconds = _seconds(budget)
    options = AdaptOptions(
        out=Path(out),
        sources=tuple(map(str, listed(sources))),
        names=names_of(names),
        cache=maybe_cache(cache),
        model=model,
        pretrained=pretrained,
        arch=arch,
        start=str(start) if start is not None else None,
        code=maybe_path(code),
        seed=seed,
        device=device,
        budget=seconds,
    )
    with watched(progress, "adapting") as watching:
        return adapt(options, progress=watching)


def _seconds(budget: str | float | None) -> float | None:
    try:
        if isinstance(budget, str) or budget is None:
            return seconds_of(budget) if budget is not None else None
        if not budget > 0:
            raise ValueError(f"{budget!r:.80} is no time")
        return budget
    except ValueError as error:
        raise UserError(f"budget: {error}", fix="give seconds, or a text such as 10m.") from error
