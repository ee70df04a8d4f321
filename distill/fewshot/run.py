"""``distill fewshot RUN``: a few images of every OOD class, by finetuning or retrieval; table and plot."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from cache.runtime.atomic_files import remove_temporaries, write_json
from cache.runtime.errors import UserError
from cache.runtime.locks import only_writer
from cache.runtime.progress import Progress, Silent
from distill.checkpoint import check_made_from, read_checkpoint, weights_digest
from distill.config import FewShotConfig, RunConfig
from distill.data.identity_reader import IdentityReader
from distill.data.support import QUERY, support_of
from distill.data_identity import DataIdentity, refuse_other_data
from distill.fewshot.retrieval import Judge, Retrieval, search_weights
from distill.judge.trained_run import CHECKPOINTS, checkpoint_file, open_trained
from distill.record.drawing import drawing
from distill.settings import from_toml, with_part, with_settings
from distill.spread import as_columns
from distill.train.images import CONFIG, LAST, SUMMARY, run

METHODS = ("finetune", "retrieval")
# The paper's: 20 epochs of OneCycle from the trained weights, by the student's optimiser.
EPOCHS, SCHEDULE = 20, "onecycle"
LEARNING_RATES = {"sgd": 1e-3, "adamw": 2e-4}
RESULTS, PLOT = "fewshot.json", "fewshot.png"


@dataclass(frozen=True, kw_only=True)
class FewShotOptions:
    """What ``distill fewshot`` can be told.

    ``support_seeds`` draw the support, one after the other; none takes the first images, sorted by key.
    ``search`` names the ID split on which alpha and beta are chosen; ``views`` is how many of the cached
    views of a support image count (None: all), each on its own or averaged. ``settings`` change the
    finetuning's config.
    """

    shots: tuple[int, ...] = (5,)
    method: str = "finetune"
    support_seeds: tuple[int, ...] = ()
    retrieval: Retrieval = field(default_factory=Retrieval)
    search: str | None = None
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

    ``data`` and ``start`` name the data and the weights that it started from.
    """

    shots: int
    support_seed: int
    support_images: int
    query_images: int
    before: float
    ood_query: float
    id_test: float | None
    details: dict[str, Any]
    data: str = ""
    start: str = ""


def few_shot(
    source: Path,
    out: Path,
    options: FewShotOptions,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Judge a trained run with a few images of the OOD classes; write ``fewshot.json`` and a plot to ``out``.

    The support is ``shots`` images of each OOD class that have a teacher row; the query is every other OOD
    image. Finetuned students are runs of their own below ``out``: run again, what is trained is used.

    Returns
    -------
    dict
        ``draws``: one :class:`Draw` for every number of shots and seed; ``table``: mean and standard
        deviation over the draws, by shots.

    Raises
    ------
    UserError
        If the run, its data and its cache do not fit, or are not those that it was trained with; if a class
        has too few images; if ``out`` holds runs that started from other weights or data.
    """
    progress = progress or Silent()
    trained = open_trained(
        source, data_dir=data_dir, cache_dir=cache_dir, checkpoint=options.checkpoint, device=options.device
    )
    if trained.config.fewshot.shots:
        raise UserError(f"{source} is a few-shot run itself", fix="give the run that it started from.")
    if options.method == "retrieval" and not trained.heads:
        raise UserError(f"{source} is a closed-set baseline", fix="use --method finetune.")
    identity = same_data(trained, source)
    start = weights_digest(checkpoint_file(source, options.checkpoint))
    supports = [
        FewShotConfig(shots=shots, support_seed=seed)
        for shots in sorted(set(options.shots))
        for seed in options.support_seeds or (-1,)
    ]
    for support in supports:  # what is missing or does not fit is found before hours of training
        keys = support_of(trained.cache, trained.folder.split("ood_test"), support)
        if options.method == "finetune":
            check_start(out / _called(support), identity, start)
        else:
            trained.heads[0].cache.support_views("ood_test", keys, views=options.retrieval.views)
    judge = Judge(trained)
    judged = _by_retrieval if options.method == "retrieval" else _by_finetuning
    with only_writer(out):
        remove_temporaries(out)
        draws = [judged(judge, support, source, out, options, progress) for support in supports]
        draws = [replace(draw, data=identity.digest(), start=start) for draw in draws]
        results: dict[str, Any] = {
            "run": str(source),
            "method": options.method,
            "data": identity.to_json(),
            "start": start,
            "headline": "macro accuracy in percent on the OOD images that are not support",
            "table": _table(draws),
            "draws": [asdict(draw) for draw in draws],
        }
        write_json(out / RESULTS, results)
        draw_shots(out / PLOT, results["table"], title=f"{source.name}: {options.method}")
    return results


class Opened(Protocol):
    """A trained run with its data, of photos or of episodes."""

    @property
    def config(self) -> RunConfig:
        """What it was trained with."""
        ...

    @property
    def identity(self) -> DataIdentity:
        """The data that it was trained with."""
        ...

    @property
    def identities(self) -> IdentityReader:
        """The data as it is now."""
        ...


def same_data(trained: Opened, source: Path) -> DataIdentity:
    """Return the identity of the data that a run is taught more with: that of its training.

    Raises
    ------
    CacheMismatch
        If the data is not that.
    """
    identity = trained.identities.of(trained.config)
    refuse_other_data(
        identity.differences(trained.identity),
        where=source,
        fix="give its own data and cache with --data and --cache, or train the run again.",
    )
    return identity


def check_start(folder: Path, identity: DataIdentity, start: str) -> None:
    """Make sure that what there is of a finetuned run started from these weights and this data.

    Raises
    ------
    CacheMismatch
        If it did not: its numbers belong to no table with new ones.
    """
    if (folder / LAST).is_file():
        check_made_from(read_checkpoint(folder / LAST), identity, start, where=folder)


def _by_retrieval(
    judge: Judge, support: FewShotConfig, source: Path, out: Path, options: FewShotOptions, progress: Progress
) -> Draw:
    del source, out
    retrieval = options.retrieval
    if options.search:
        retrieval = search_weights(judge, support, retrieval, split=options.search)
    keys = support_of(judge.trained.cache, judge.trained.folder.split("ood_test"), support)
    before, after = judge.query(keys, support.shots, None), judge.query(keys, support.shots, retrieval)
    progress.note(f"{_called(support)}: {before.accuracy:.1f}% -> {after.accuracy:.1f}%")
    return Draw(
        shots=support.shots,
        support_seed=support.support_seed,
        support_images=len(keys),
        query_images=after.images,
        before=before.accuracy,
        ood_query=after.accuracy,
        id_test=None,
        details={"alpha": retrieval.alpha, "beta": retrieval.beta, "searched_on": options.search},
    )


def _by_finetuning(
    judge: Judge, support: FewShotConfig, source: Path, out: Path, options: FewShotOptions, progress: Progress
) -> Draw:
    trained, folder = judge.trained, out / _called(support)
    keys = support_of(trained.cache, trained.folder.split("ood_test"), support)
    before = judge.query(keys, support.shots, None)
    config = finetune_config(
        read_config(source, options.checkpoint),
        start=(source / f"{options.checkpoint}.pt").resolve(),
        support=support,
        settings=options.settings,
    )
    if (folder / SUMMARY).exists():
        progress.note(f"{folder} is trained already")
    summary = run(
        config,
        cache_dir=trained.cache.path,
        data_dir=trained.folder.path,
        out=folder,
        resume_run=(folder / CONFIG).exists(),
        progress=progress,
        command=sys.argv,
    )
    return Draw(
        shots=support.shots,
        support_seed=support.support_seed,
        support_images=len(keys),
        query_images=before.images,
        before=before.accuracy,
        ood_query=summary[f"{QUERY}_accuracy"],
        id_test=summary.get("id_test_accuracy"),
        details={"run": str(folder), "epochs": config.train.epochs, "lr": config.optim.lr},
    )


def _called(support: FewShotConfig) -> str:
    drawn = "" if support.support_seed < 0 else f"-seed-{support.support_seed}"
    return f"shots-{support.shots}{drawn}"


def read_config(source: Path, checkpoint: str) -> RunConfig:
    """Return the config that a run's checkpoint was trained with."""
    assert checkpoint in CHECKPOINTS
    return from_toml(read_checkpoint(source / f"{checkpoint}.pt")["config"], where=str(source))


def finetune_config(
    config: RunConfig, *, start: Path, support: FewShotConfig, settings: Sequence[str] = ()
) -> RunConfig:
    """Return the paper's few-shot finetuning of a run: its own config from ``start``'s weights on.

    20 epochs of OneCycle, learning rate 1e-3 with SGD or 2e-4 with AdamW; then ``settings``
    (``section.key=value``) are applied. The support has no views in the cache, so crops are drawn anew.
    """
    config = with_part(config, "train", epochs=EPOCHS)
    config = with_part(config, "optim", schedule=SCHEDULE, lr=LEARNING_RATES[config.optim.name])
    config = with_part(config, "student", pretrained=False, weights="")
    config = with_part(config, "data", views=False)
    config = with_settings(config, settings)
    return replace(config, fewshot=replace(support, start=str(start)))


def _table(draws: Sequence[Draw]) -> list[dict[str, Any]]:
    """Return a row for every number of shots: means over its draws, and the deviation of several."""
    rows = []
    for shots in sorted({draw.shots for draw in draws}):
        of_shots = [draw for draw in draws if draw.shots == shots]
        row: dict[str, Any] = {"shots": shots, "draws": len(of_shots)}
        for name in ("before", "ood_query", "id_test"):
            values = [value for value in (getattr(draw, name) for draw in of_shots) if value is not None]
            row |= as_columns(name, values)
        rows.append(row)
    return rows


def draw_shots(path: Path, table: Sequence[dict[str, Any]], *, title: str) -> None:
    """Draw accuracy over shots, with the deviation over draws, as a PNG."""
    with drawing(path, (6, 4.2)) as (_, axes):
        shots = [row["shots"] for row in table]
        names = {"ood_query": "with the support", "before": "zero-shot", "id_test": "ID test"}
        for name, label in names.items():
            values = [row[name] for row in table]
            if None not in values:
                spread = [row[f"{name}_std"] or 0.0 for row in table]
                style: dict[str, Any] = {"linestyle": "--"} if name == "before" else {}
                axes.errorbar(shots, values, yerr=spread, marker="o", capsize=3, label=label, **style)
        axes.set(xlabel="shots (images of each OOD class)", ylabel="macro accuracy (%)", title=title)
        axes.set_xscale("log", base=2)
        axes.set_xticks(shots, [str(number) for number in shots])
        axes.grid(alpha=0.3)
        axes.legend()
