"""``distill.evaluate``: how good a run's student, or a cache's teacher, is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cache.reader import EmbeddingCache
from cache.runtime.errors import UserError
from cache.sources.splits import MAIN_TEACHER
from cache.store.manifest import is_cache
from distill.api.given import Place, existing_folder, listed, maybe_cache, maybe_path
from distill.api.traces import without_a_trace
from distill.api.training import TrainedStudent
from distill.api.words import told_in_python
from distill.data.folders import Data, given_of
from distill.headline import headline
from distill.judge.calibration import Calibration
from distill.judge.calibration_of_run import judge_run
from distill.judge.evaluate import Result, both_kinds, metrics_of
from distill.judge.teachers import judge_teachers


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well a student or a teacher does, by split.

    ``splits`` hold what is told of each: macro accuracy in percent among its own classes, ``among_all``
    classes, the loss, ``per_class``, and ``unreadable`` images with the reason. ``calibration`` is the
    student's, None of a teacher.
    """

    folder: Path
    splits: Mapping[str, Result] = field(repr=False)
    calibration: Calibration | None = field(default=None, repr=False)

    @property
    def accuracy(self) -> dict[str, float]:
        """By split what it is judged by: macro accuracy in percent, of a teacher without texts a cosine."""
        numbers = metrics_of(self.splits)
        told = {name: headline(numbers, name) for name in self.splits}
        return {name: value for name, value in told.items() if value is not None}

    @property
    def both(self) -> dict[str, float]:
        """What ID and OOD test images have together: ``all_harmonic_mean`` (percent), ``id_ood_auroc``."""
        return both_kinds(self.splits)

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in self.accuracy.items())
        return f"Evaluation({str(self.folder)!r}: {numbers})"


@told_in_python()
@without_a_trace()
def evaluate(
    run_or_cache: TrainedStudent | EmbeddingCache | Place,
    *,
    split: str | Sequence[str] = (),
    text: str | None = None,
    teacher: str | None = None,
    data: Data = None,
    cache: EmbeddingCache | Place | None = None,
    checkpoint: str = "last",
    code: Place | None = None,
    device: str = "auto",
    check: bool = False,
) -> Evaluation:
    """Judge a run's student on images, or a cache's teacher by its rows alone.

    Parameters
    ----------
    run_or_cache
        What :func:`distill.train_student` or :func:`distill.cache_features` returned, or its folder.
    split
        One or several of ``train``, ``id_val``, ``class_val``, ``id_test``, ``ood_test``; none: the
        tests, of a cache all that it has.
    text
        Another text bank that classifies; None: the run's own, ``labels`` for a teacher.
    teacher
        Of a cache with several which one; None: ``main``, or the one as which the cache was opened.
    data, cache
        Of a run: where its images and its cache are now; None: where they were.
    checkpoint
        Of a run: ``last``, ``best``, ``ema``, ``averaged``, ``mean_head``.
    code
        The Python file of a student of one's own, which is run.
    device
        Where a student computes: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, ``mps``.
    check
        Compare each file of the cache with its checksum when it is first read.

    Returns
    -------
    Evaluation
        ``.accuracy`` in percent by split; ``.splits["ood_test"].per_class`` of each class.

    Raises
    ------
    UserError
        If there is no such run, split or text bank, or the images are gone.

    Examples
    --------
    >>> distill.evaluate("runs/first").accuracy  # doctest: +SKIP
    {'id_test': 91.2, 'ood_test': 63.4}
    """
    folder = _folder_of(run_or_cache)
    splits = listed(split)
    if is_cache(folder):
        _refuse({"data": data, "cache": cache, "code": code}, folder, "a cache: it is of a run")
        name: str = teacher or getattr(run_or_cache, "teacher_name", None) or MAIN_TEACHER
        judged = judge_teachers(
            folder, name, splits=splits, text=text or "", check=check, note=lambda line: None
        )
        return Evaluation(folder=folder, splits=judged[name])
    _refuse({"teacher": teacher}, folder, "a run: it is of a cache")
    results, calibration = judge_run(
        folder,
        splits=splits,
        text=text,
        data_dir=given_of(data),
        cache_dir=maybe_cache(cache),
        checkpoint=checkpoint,
        code=maybe_path(code),
        device=device,
        check=check,
    )
    return Evaluation(folder=folder, splits=results, calibration=calibration)


def _refuse(given: Mapping[str, object], folder: Path, other: str) -> None:
    """Refuse arguments that would do nothing."""
    for name, value in given.items():
        if value is not None:
            raise UserError(f"{name} is given, and {folder} is {other}", fix="leave it out.")


def _folder_of(run_or_cache: TrainedStudent | EmbeddingCache | Place) -> Path:
    if isinstance(run_or_cache, TrainedStudent):
        return run_or_cache.folder
    if isinstance(run_or_cache, EmbeddingCache):
        return run_or_cache.path
    return existing_folder(run_or_cache, what="a run or a cache")
