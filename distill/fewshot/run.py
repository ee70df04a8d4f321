"""``distill fewshot RUN``: a few images of every OOD class, by one of the methods; table and plot.

Of episodes, which show several objects each, a few of all; they are finetuned on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cache.runtime.atomic_files import remove_temporaries, write_json
from cache.runtime.errors import UserError
from cache.runtime.locks import only_writer
from cache.runtime.progress import Progress, Silent
from cache.store.tar_folder import TarFolder
from distill.checkpoint import check_made_from, read_checkpoint, weights_digest
from distill.config import FewShotConfig
from distill.data.folders import Data
from distill.data.support import QUERY, support_of
from distill.data.tar_stream import WITH_FOLDER
from distill.data.teacher_texts import add_means
from distill.data_identity import DataIdentity, refuse_other_data
from distill.fewshot.finetune import finetune_config, finetuned, scores_of
from distill.fewshot.plot import draw_shots
from distill.fewshot.project import ProjectJudge
from distill.fewshot.retrieval import Judge, Retrieval, search_weights
from distill.judge.evaluate import SplitResult
from distill.judge.model import weights_of
from distill.judge.open_run import open_trained
from distill.judge.trained_run import TrainedRun
from distill.record.run_files import FEWSHOT, FEWSHOT_PLOT, LAST
from distill.robotics.model import EpisodeModel
from distill.spread import as_columns

METHODS = ("finetune", "retrieval", "project")
# What a projection's targets have of the class's text.
TEXT_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class FewShotOptions:
    """What ``distill fewshot`` can be told.

    ``shots`` are the numbers of images of each OOD class, or of episodes; ``support_seeds`` draw the support,
    one after the other; none takes the first images, sorted by key. ``search`` names the ID split on which
    alpha and beta are chosen; ``text_share`` is the share of the class's text in what is projected to;
    ``settings`` change the finetuning's config.
    """

    shots: tuple[int, ...] = (5,)
    method: str = "finetune"
    support_seeds: tuple[int, ...] = ()
    retrieval: Retrieval = field(default_factory=Retrieval)
    search: str | None = None
    text_share: float = TEXT_SHARE
    settings: tuple[str, ...] = ()
    checkpoint: str = "last"
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.shots or min(self.shots) < 1:
            raise UserError(
                f"--shots is {list(self.shots)}", fix="give numbers of at least 1: --shots 1,2,4."
            )
        if self.method not in METHODS:
            raise UserError(f"--method is {self.method!r}", fix=f"choose from {', '.join(METHODS)}.")
        if min(self.support_seeds, default=0) < 0:
            raise UserError(f"--support-seed is {min(self.support_seeds)}", fix="give numbers of at least 0.")


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One support: what the student scores on the rest of the OOD images, before and with it, in percent.

    ``scores`` are those of the table's columns.
    """

    shots: int
    support_seed: int
    support_images: int
    query_images: int
    scores: dict[str, float | None]
    details: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values, its scores beside the rest."""
        value = asdict(self)
        return {**value.pop("scores"), **value}


def few_shot(
    source: Path,
    out: Path,
    options: FewShotOptions,
    *,
    data_dir: Data = None,
    cache_dir: Path | None = None,
    code: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Open a trained run as the options say, and :func:`teach` its student.

    UserError if the run, its data or its cache is missing, or the cache is of another teacher.
    """
    trained = open_trained(
        source,
        data_dir=data_dir,
        cache_dir=cache_dir,
        code=code,
        checkpoint=options.checkpoint,
        device=options.device,
    )
    return teach(trained, out, options, progress or Silent())


def teach(
    trained: TrainedRun,
    out: Path,
    options: FewShotOptions,
    progress: Progress,
    *,
    judge: Judge | None = None,
) -> dict[str, Any]:
    """Judge a trained run with a few OOD images; write ``fewshot.json`` and a plot to ``out``.

    The support is ``shots`` images of each OOD class that have a teacher row, or so many episodes of all; the
    query is every other OOD image. Finetuned students are runs of their own below ``out``: run again, what
    is trained is used. ``draws`` has one :class:`Draw` for every number of shots and seed; ``table`` their
    mean and deviation. UserError if the run, its data and its cache do not fit, or are not those of its
    training; if a class has too few images; if ``out`` holds runs of other weights or data. A ``judge`` of
    the run may be given, which has seen its images already.
    """
    source, trained = trained.checkpoint.parent, replace(trained, progress=progress)
    check_method(trained, source, options)
    identity, start = same_data(trained, source), weights_digest(weights_of(trained.model))
    folders = {support: out / _called(support.shots, support.support_seed) for support in _supports(options)}
    for folder in folders.values():  # what does not fit shows before hours of training
        if (folder / LAST).is_file():  # its numbers would belong to no table with new ones
            check_made_from(read_checkpoint(folder / LAST), identity, start, where=folder)
    with only_writer(out):
        remove_temporaries(out)
        if judge is None:
            judge = ProjectJudge(trained, out, progress) if options.method == "project" else Judge(trained)
        draws = [_draw(judge, few, options, to, progress) for few, to in folders.items()]
        by_images = not isinstance(trained.model, EpisodeModel) and not trained.model.has_texts
        measure = "macro accuracy" if by_images else trained.model.measure
        table, among = _table(draws), _among(trained)
        results: dict[str, Any] = {
            "run": str(source),
            "method": options.method,
            "data": identity.to_json(),
            "start": start,
            "headline": f"{measure} in percent on the OOD {trained.model.unit} that are not support{among}",
            "table": table,
            "draws": [{**draw.to_json(), "data": identity.digest(), "start": start} for draw in draws],
        }
        write_json(out / FEWSHOT, results)
        draw_shots(out / FEWSHOT_PLOT, table, of=measure, title=f"{source.name}: {options.method}")
    return results


def check_method(trained: TrainedRun, source: Path, options: FewShotOptions) -> None:
    """Refuse what a run cannot be taught, or with which images; UserError."""
    method = options.method
    if trained.config.fewshot.shots:
        raise UserError(f"{source} is a few-shot run itself", fix="give the run that it started from.")
    if method != "finetune" and trained.cache.holds_episodes:
        raise UserError(f"{source} was trained on episodes", fix="use --method finetune.")
    if method != "retrieval" and trained.heads and not trained.heads[0].has_texts:
        raise UserError(
            f"--method {method} is judged by texts, and the teacher of {source} has none",
            fix="use --method retrieval, by images alone; or add class means: "
            f"{add_means(trained.heads[0].cache)}, and train again with --text means.",
        )
    if method != "finetune" and not trained.heads:
        raise UserError(f"{source} is a closed-set student", fix="use --method finetune.")
    if method == "retrieval" and len(trained.folder.classes.get("ood_test", ())) == 1:
        raise UserError(
            f"retrieval chooses among the OOD classes, and {trained.folder.path} has one alone",
            fix="use --method finetune, which is judged among all classes, or add OOD classes.",
        )
    if method == "finetune" and isinstance(trained.folder, TarFolder):
        raise UserError(
            f"finetuning needs images in any order, and {trained.cache.path} is a WebDataset, "
            "which is streamed",
            fix=WITH_FOLDER,
        )
    for support in _supports(options):
        _check_support(trained, support, options)


def _supports(options: FewShotOptions) -> list[FewShotConfig]:
    return [
        FewShotConfig(shots=shots, support_seed=seed)
        for shots in sorted(set(options.shots))
        for seed in options.support_seeds or (-1,)
    ]


def _among(trained: TrainedRun) -> str:
    """Return what is said of the accuracy of one OOD class, which among itself would be 100%."""
    alone = not trained.cache.holds_episodes and len(trained.folder.classes["ood_test"]) == 1
    return ", of one class, judged among all classes" if alone else ""


def _check_support(trained: TrainedRun, support: FewShotConfig, options: FewShotOptions) -> None:
    """Make sure that there are images enough, and to retrieve with that the cache has their views."""
    keys = _support(trained, support)
    if options.method == "retrieval":
        trained.heads[0].cache.support_views("ood_test", keys, views=options.retrieval.support_views)


def _support(trained: TrainedRun, support: FewShotConfig) -> list[str]:
    return support_of(trained.cache, trained.folder, support)


def _called(shots: int, seed: int) -> str:
    return f"shots-{shots}{'' if seed < 0 else f'-seed-{seed}'}"


def same_data(trained: TrainedRun, source: Path) -> DataIdentity:
    """Return the identity of the data that a run is taught more with; CacheMismatch if it was another."""
    identity = trained.identities.of(trained.config)
    refuse_other_data(
        identity.differences(trained.identity),
        where=source,
        fix="give its own data and cache with --data and --cache, or train the run again.",
    )
    return identity


def _draw(
    judge: Judge, support: FewShotConfig, options: FewShotOptions, folder: Path, progress: Progress
) -> Draw:
    """Judge a student without a support and with it; a finetuned one is trained in ``folder``."""
    keys = _support(judge.trained, support)
    if options.method == "retrieval":
        found = _retrieved(judge, keys, support, options)
    elif options.method == "project":
        assert isinstance(judge, ProjectJudge)
        found = _projected(judge, keys, options)
    else:
        found = _finetuned(judge, keys, support, options, folder, progress)
    if options.method != "finetune":
        before, after = found.scores["before"], found.scores[QUERY]
        was = f"{before:.1f}% -> " if before is not None else "by images alone, "
        progress.note(f"{folder.name}: {was}{after:.1f}%")
    return Draw(
        shots=support.shots, support_seed=support.support_seed, support_images=len(keys), **asdict(found)
    )


@dataclass(frozen=True, kw_only=True)
class _Found:
    query_images: int
    scores: dict[str, float | None]
    details: dict[str, Any]


def _retrieved(judge: Judge, keys: list[str], support: FewShotConfig, options: FewShotOptions) -> _Found:
    before = judge.without(keys) if judge.trained.heads[0].has_texts else None
    retrieval = options.retrieval
    if options.search:
        retrieval = search_weights(judge, support, retrieval, split=options.search)
    after = judge.query(keys, retrieval)
    zero_shot = before.accuracy if isinstance(before, SplitResult) else None
    return _Found(
        query_images=after.images,
        scores={"before": zero_shot, QUERY: after.accuracy, "id_test": None},
        details={"alpha": retrieval.alpha, "beta": retrieval.beta, "searched_on": options.search},
    )


def _projected(judge: ProjectJudge, keys: list[str], options: FewShotOptions) -> _Found:
    before = judge.without(keys)
    assert isinstance(before, SplitResult)
    results, details = judge.projected(keys, text_share=options.text_share)
    told = {name: one.headline for name, one in results.items() if isinstance(one, SplitResult)}
    scores = {"before": before.headline, QUERY: told["ood_test"], "id_test": told.get("id_test")}
    return _Found(query_images=before.images, scores=scores, details=details)


def _finetuned(
    judge: Judge,
    keys: list[str],
    support: FewShotConfig,
    options: FewShotOptions,
    folder: Path,
    progress: Progress,
) -> _Found:
    before, trained = judge.without(keys), judge.trained
    config = finetune_config(
        trained.config,
        start=trained.checkpoint.resolve(),
        support=support,
        settings=options.settings,
        episodes=trained.cache.holds_episodes,
    )
    scores, by_group = scores_of(before, finetuned(trained, config, folder, progress))
    details = {"run": str(folder), "epochs": config.train.epochs, "lr": config.optim.lr, **by_group}
    return _Found(query_images=before.images, scores=scores, details=details)


def _table(draws: Sequence[Draw]) -> list[dict[str, Any]]:
    """Return a row for every number of shots: means over its draws, and the deviation of several."""
    rows = []
    for shots in sorted({draw.shots for draw in draws}):
        of_shots = [draw for draw in draws if draw.shots == shots]
        row: dict[str, Any] = {"shots": shots, "draws": len(of_shots)}
        for name in of_shots[0].scores:
            values = [value for draw in of_shots if (value := draw.scores[name]) is not None]
            row |= as_columns(name, values)
        rows.append(row)
    return rows
