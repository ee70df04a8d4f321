"""Objects for files of episodes: what ``distill predict`` calls with a model of episodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cache.runtime.errors import UserError
from cache.runtime.progress import Progress
from cache.sources.episode_keys import EpisodeKeys
from cache.sources.episodes import EpisodeRecord, unlabelled
from cache.sources.samples import UnreadableImage
from distill.deploy.episode_model import EpisodeModel, Objects
from distill.deploy.predict import EpisodePrediction, Label

ENDINGS = (".h5", ".hdf5")
Episode = tuple[EpisodeRecord, str]
"""An episode, and why its cameras cannot be read, else ''."""


def episodes_in(paths: Sequence[Path], keys: EpisodeKeys) -> list[Episode]:
    """Return the episodes of files, and of all HDF5 files in folders, by file and key.

    Raises
    ------
    UserError
        If a path does not exist, a folder has no such file, or a file is none.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} does not exist", fix="check the path.")
        inside = (
            sorted(file for file in path.glob("*") if file.suffix in ENDINGS) if path.is_dir() else [path]
        )
        if not inside:
            raise UserError(f"{path} has no files of episodes", fix=f"give {' or '.join(ENDINGS)} files.")
        files += inside
    return [episode for file in dict.fromkeys(files) for episode in unlabelled(file, keys)]


def predict_episodes(
    model: EpisodeModel,
    episodes: Sequence[Episode],
    objects: Objects,
    *,
    top: int = 5,
    threshold: float | None = None,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Iterator[EpisodePrediction]:
    """Yield the prediction of every episode in their order; an unreadable one says why and stops no other.

    ``threshold`` is the score from which an object is there, None the run's.
    """
    least = model.scoring.threshold if threshold is None else threshold
    if progress is not None:
        progress.start(len(episodes))
    for start in range(0, len(episodes), batch_size):
        chunk = episodes[start : start + batch_size]
        prepared, problems = {}, {}
        for number, (record, problem) in enumerate(chunk):
            try:
                if problem:
                    raise UnreadableImage(problem)
                prepared[number] = model.prepare(record.frames())
            except UnreadableImage as error:
                problems[number] = str(error)
        margins = iter(())
        if prepared:
            margins = iter(model.margins(model.embed(np.stack([*prepared.values()])), objects))
        for number, (record, _) in enumerate(chunk):
            where = f"{record.path}/{record.key}"
            if number in problems:
                yield EpisodePrediction(image=where, error=problems[number])
            else:
                yield _answered(model, where, next(margins), objects, top=top, least=least)
        if progress is not None:
            progress.advance(len(chunk))


def _answered(
    model: EpisodeModel, where: str, margins: np.ndarray, objects: Objects, *, top: int, least: float
) -> EpisodePrediction:
    scores, classes = model.scores(margins), objects.positive
    # By the margins: scores are clamped, and may be equal.
    order = np.argsort(-margins, kind="stable")
    there = tuple(classes.labels[i] for i in order if scores[i] >= least)
    return EpisodePrediction(
        image=where,
        labels=tuple(
            Label(
                label=classes.labels[i],
                class_name=classes.classes[i],
                score=float(scores[i]),
                similarity=float(margins[i]) * model.info.temperature,
            )
            for i in order[:top]
        ),
        none_of_these=not there,
        there=there,
    )
