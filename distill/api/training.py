"""``distill.train_student``: stage 2 from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache.reader import EmbeddingCache
from cache.runtime.errors import UserError
from distill.api.given import Place, Settings, Watching, cache_folder, maybe_path, setting_lines, watched
from distill.api.traces import without_a_trace
from distill.api.words import told_in_python
from distill.data.folders import Data, given_of
from distill.headline import headline, headline_splits
from distill.record.boards import Boards
from distill.record.run_files import check_out
from distill.train.chosen_run import ChosenRun, chosen_run
from distill.train.resumed_settings import cache_of


@dataclass(frozen=True, kw_only=True)
class TrainedStudent:
    """A trained student.

    ``folder`` is the run's, which :func:`distill.evaluate` and :func:`distill.export` take; ``summary`` what
    ``summary.json`` there says: every number, setting and time.
    """

    folder: Path
    summary: Mapping[str, Any] = field(repr=False)

    @property
    def accuracy(self) -> dict[str, float]:
        """By test split macro accuracy in percent; of a teacher without texts the mean cosine."""
        of_splits = {name: headline(self.summary, name) for name in headline_splits([self.summary])}
        return {name: value for name, value in of_splits.items() if value is not None}

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in self.accuracy.items())
        return f"TrainedStudent({str(self.folder)!r}: {numbers or 'nothing to judge it on'})"


@told_in_python()
@without_a_trace()
def train_student(
    cache: EmbeddingCache | Place | None,
    out: Place,
    *,
    recipe: str | None = None,
    settings: Settings = (),
    data: Data | None = None,
    code: Place | None = None,
    resume: bool = False,
    check: bool = False,
    wandb: str = "",
    mlflow: str = "",
    progress: Watching = False,
) -> TrainedStudent:
    """Train one student from a cache, without the teacher: stage 2.

    Parameters
    ----------
    cache
        What :func:`distill.cache_features` returned, or its folder; None with ``resume``: the run's own.
    out
        A new folder for the run.
    recipe
        A name that ``distill recipes`` lists, or a TOML file. None: ``head-first``, or ``pool`` where the
        cache has images without labels, or ``small`` with ``student.start`` ``scratch``.
    settings
        On top of the recipe, by name: ``{"train.epochs": 3, "student.arch": "resnet18"}``.
    data
        Where the images are now, as :func:`distill.cache_features` takes them; None: where they were.
    code
        The Python file of a student of one's own, which is run.
    resume
        Go on with the run in ``out`` where it was stopped, to the same numbers.
    check
        Compare each file of the cache with its checksum when it is first read.
    wandb, mlflow
        A project of Weights & Biases, an experiment of MLflow, to write to beside TensorBoard.
    progress
        True writes lines to standard error; or an object with ``start``, ``advance`` and ``note``.

    Returns
    -------
    TrainedStudent
        The run's folder and its numbers.

    Raises
    ------
    UserError
        If cache, images and settings do not fit, or ``out`` holds something else.
    distill.train.stopping.Stopped
        After an interrupt, with the state saved: ``resume=True`` goes on.

    Examples
    --------
    >>> student = distill.train_student("artifacts/photos", "runs/first")  # doctest: +SKIP
    >>> student.accuracy  # doctest: +SKIP
    {'id_test': 91.2, 'ood_test': 63.4}
    """
    folder, lines = Path(out), setting_lines(settings)
    boards = Boards(wandb=wandb, mlflow=mlflow)
    check_out(folder, resume_run=resume)
    chosen = chosen_run(
        _cache_of(cache, folder, resume=resume),
        folder,
        recipe=recipe,
        settings=lines,
        data_dir=given_of(data),
        code=maybe_path(code),
        resume_run=resume,
    )
    unit = "episodes" if EmbeddingCache.open(chosen.cache).holds_episodes else "images"
    with watched(progress, "training", unit) as watching:
        summary = chosen.trained(
            folder,
            data_dir=given_of(data),
            resume_run=resume,
            check=check,
            boards=boards,
            progress=watching,
            command=[*_command(chosen, folder, recipe, lines, resume=resume), *boards.options()],
        )
    return TrainedStudent(folder=folder, summary=summary)


def _cache_of(cache: EmbeddingCache | Place | None, out: Path, *, resume: bool) -> Path:
    found = cache_folder(cache) if cache is not None else cache_of(out) if resume else None
    if found is None:
        raise UserError("no cache is given", fix="give what distill.cache_features returned, or its folder.")
    return found


def _command(
    chosen: ChosenRun, out: Path, recipe: str | None, settings: Sequence[str], *, resume: bool
) -> list[str]:
    """Return the command that does the same, which the summary keeps."""
    said = ["distill", "train", str(chosen.cache), "--out", str(out)]
    said += ["--recipe", recipe] if recipe else []
    said += [word for line in settings for word in ("--set", line)]
    return [*said, *(["--resume"] if resume else [])]
