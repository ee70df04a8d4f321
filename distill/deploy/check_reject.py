"""What "none of these" of a graph does: on the run's splits, and on pictures of other sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import UserError
from cache.runtime.progress import Progress
from cache.sources.data import open_data
from cache.sources.source_options import SourceOptions
from distill.data.pixel_sources import PixelMaker
from distill.data.stream import EvalSplit
from distill.deploy.check import Choices, sampled
from distill.judge.calibration import FITTED_ON, Compared
from distill.judge.evaluate import OOD_SPLITS
from distill.judge.rejection import (
    ACCEPTED,
    REJECT_ON,
    Reject,
    Rows,
    Scorer,
    Unknown,
    auroc,
    fitted_scorer,
    least_odds,
    thresholds_of,
)
from distill.judge.trained_run import TrainedRun
from distill.metrics import auroc_interval

# Of ID images, which thresholds are set on.
MOST = 1000


@dataclass(frozen=True, kw_only=True)
class RejectCheck:
    """What sets and measures "none of these": on which split, and with which names.

    ``asked`` of the names [C, D] are the ID classes, of a pool alone all; ``unknowns`` are pictures of other
    sources, by their names.
    """

    split: str
    names: Rows
    asked: int
    scorer: Scorer
    unknowns: Mapping[str, EvalSplit]

    @classmethod
    def of(
        cls,
        compared: Mapping[str, Compared],
        rows: Mapping[str, Rows],
        choices: Choices,
        *,
        words: Rows | None,
        unknowns: Mapping[str, EvalSplit],
    ) -> RejectCheck | None:
        """Choose the score by a student's rows [N, D] of every split.

        None without ID images to set it on, and of one class alone without words: nothing else can be meant.
        """
        split = next((name for name, on in FITTED_ON.items() if on in REJECT_ON and name in rows), None)
        if split is None:
            return None
        asked = len(choices.among.id_classes) or len(choices.texts)
        # With all names asked for, too, some words are to be none of them.
        words = words if words is not None and len(words) > len(choices.texts) else None
        some = _spread(len(rows[split]))
        scorer = fitted_scorer(
            rows[split][some],
            compared[split].labels[some],
            choices.texts[:asked],
            words=words,
            temperature=choices.temperature,
        )
        if scorer.words is None and len(choices.texts) == 1:
            return None
        return cls(split=split, names=choices.texts, asked=asked, scorer=scorer, unknowns=unknowns)

    def reject(
        self, compared: Mapping[str, Compared], rows: Mapping[str, Rows], unknown: Mapping[str, Rows]
    ) -> tuple[Reject, dict[str, dict[str, float]]]:
        """Return when a graph's images are none of the names, and what share of every test split is.

        Those shares are in percent, ``rejected`` with the ID classes as the only names, ``all_rejected`` with
        all. ``rows`` [N, D] are of the run's splits, ``unknown`` of other sources.
        """
        scorer, some = self.scorer, _spread(len(rows[self.split]))
        thresholds = thresholds_of(
            scorer, rows[self.split][some], compared[self.split].labels[some], self.names, asked=self.asked
        )
        kinds = {"rejected": self.names[: self.asked], "all_rejected": self.names}
        odds: dict[str, NDArray[np.float64]] = {}
        shares: dict[str, dict[str, float]] = {name: {} for name in rows}
        for kind, names in kinds.items():
            negatives, least = scorer.negatives(names), least_odds(thresholds, len(names))
            of_kind = {name: scorer.odds(rows[name], names, negatives) for name in shares}
            if kind == "rejected":
                odds = of_kind | {name: scorer.odds(some, names, negatives) for name, some in unknown.items()}
            for name, of_split in of_kind.items():
                shares[name][kind] = _percent(of_split < least)
        least = least_odds(thresholds, self.asked)
        known = odds["id_test"] if "id_test" in odds else scorer.odds(rows[self.split], kinds["rejected"])
        ood = [name for name in OOD_SPLITS if name in odds and self.asked < len(self.names)]
        reject = Reject(
            score=scorer.score,
            temperature=scorer.temperature,
            thresholds=thresholds,
            set_on=FITTED_ON[self.split],
            images=int(some.size),
            id_kept=100 - shares["id_test"]["rejected"] if "id_test" in shares else None,
            unknown={name: _unknown(known, odds[name], least) for name in (*ood, *unknown)},
        )
        return reject, shares


def _spread(count: int) -> NDArray[np.int64]:
    """Return the places of at most :data:`MOST` of so many images, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST)).round().astype(np.int64))


def _percent(which: NDArray[np.bool_]) -> float:
    return 100 * float(which.mean())


def _unknown(known: NDArray[np.float64], unknown: NDArray[np.float64], least: float) -> Unknown:
    told = auroc(known, unknown)
    low, high = auroc_interval(told, len(known), len(unknown))
    return Unknown(
        images=len(unknown),
        rejected=_percent(unknown < least),
        auroc=told,
        low=low,
        high=high,
        fpr95=_percent(unknown >= np.quantile(known, 1 - ACCEPTED)),
    )


def unknown_pictures(
    trained: TrainedRun, sources: Sequence[str], *, most: int, progress: Progress
) -> dict[str, EvalSplit]:
    """Return ``most`` pictures of each of some sources, of none of the run's classes, by the source's name.

    They are decoded as the run's own. UserError if one cannot be opened or has no image.
    """
    unknowns: dict[str, EvalSplit] = {}
    for source in sources:
        folder = open_data((source,), SourceOptions(decoding=trained.cache.spec.decoding))
        images = [image for split in folder.splits.values() for image in split.all()]
        if not images:
            raise UserError(f"--unknowns {source} has no image", fix="give a source of pictures.")
        # Nothing of where it lies on this machine is exported.
        name = Path(source.rpartition("=")[2]).name or "unknowns"
        if name in unknowns or name in trained.folder.splits:
            raise UserError(
                f"--unknowns {source} is called {name!r}, as another is", fix="give it another folder's name."
            )
        data = replace(trained.config.data, memory_mb=0, pixels="files")
        make = PixelMaker(config=data, cache=trained.cache, decode=trained.model.augment.eval_decode)
        some = sampled(images, most)
        unknowns[name] = EvalSplit(name=name, pixels=make([(name, some)]), class_names=())
        progress.note(f"{len(some):,} of {len(images):,} pictures of {name} are asked about as unknown ones")
    return unknowns
