"""Objects for files of episodes: what ``distill predict`` calls with a model of episodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import UserError
from cache.runtime.progress import Progress
from cache.runtime.system_errors import read_error
from cache.sources.decoding import UnreadableImage
from cache.sources.episode_keys import EpisodeKeys
from cache.sources.episodes import EpisodeSample, unlabelled
from distill.deploy.episode_model import EpisodeModel, EpisodePrediction, Objects, prepared_frames
from distill.deploy.predict import predicted

ENDINGS = (".h5", ".hdf5")
Episode = tuple[EpisodeSample, str]
"""An episode, and why its cameras cannot be read, else ''; a file that is none stands for its episodes."""
# Of other parts than the model's: predict is told no other.
LAYOUT = "the model takes episodes whose parts are called as its run's were: objects.keys in its model.json"


def episodes_in(paths: Sequence[Path], keys: EpisodeKeys) -> list[Episode]:
    """Return the episodes of files, and of all HDF5 files in folders, by file and key.

    A file that holds none is there once, with the reason. UserError if a path does not exist, or a folder has
    no such file.
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
    return [episode for file in dict.fromkeys(files) for episode in _episodes_of(file, keys)]


def _episodes_of(file: Path, keys: EpisodeKeys) -> Iterator[Episode]:
    try:
        for sample, problem in unlabelled(file, keys):
            yield sample, f"{problem}; {LAYOUT}" if problem else ""
    except UserError as error:
        cause = error.__cause__
        if cause is not None and (refused := read_error(file, cause)) is not None:
            raise refused from error  # other files will fail as well
        file_itself = EpisodeSample(key="", path=file, labels=(), keys=keys)
        yield file_itself, error.problem if cause else f"{error.problem}; {LAYOUT}"


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

    def prepare(episode: Episode) -> NDArray[np.float32]:
        sample, problem = episode
        if problem:
            raise UnreadableImage(problem)
        return prepared_frames(sample.frames(), model.info.preprocessing)

    return predicted(
        [(f"{episode[0].path}/{episode[0].key}".rstrip("/"), episode) for episode in episodes],
        prepare,
        lambda images: model.answer(model.embed(images), objects, top=top, threshold=least),
        of=EpisodePrediction,
        total=len(episodes),
        batch_size=batch_size,
        progress=progress,
    )
