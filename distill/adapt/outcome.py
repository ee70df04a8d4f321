"""What came of an adaptation: how good the model is, what could not be measured, and where all is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill.deploy.bench import BenchOptions, bench_model
from distill.deploy.card import notes_on
from distill.deploy.info import ModelInfo
from distill.headline import headline

# The graph that is shipped and measured.
PRECISION = "float32"
JUDGED = ("id_test", "ood_test", "id_val", "pool_val")
# What a run without that split cannot say.
UNMEASURED = {
    "id_test": "how often it is right on photos of a test: there are too few with a label to set some aside",
    "ood_test": "how often it is right on names that no label was learnt of: labelled photos of such in a "
    "folder 'val' would say",
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A finished adaptation.

    ``splits`` has by split what the closed form, the trained student and the teacher get among its own names,
    and the shipped model among all, with its calibration error; ``latency`` is of one photo on this CPU.
    """

    model: str
    info: ModelInfo
    shipped: str
    bytes: int
    splits: dict[str, dict[str, float]]
    latency: dict[str, float]
    seconds: dict[str, float]
    notes: tuple[str, ...]
    files: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "model": self.model,
            "arch": self.info.arch,
            "parameters": self.info.parameters,
            "shipped": self.shipped,
            "bytes": self.bytes,
            "splits": self.splits,
            "latency_ms": self.latency,
            "seconds": self.seconds,
            "calibration": asdict(self.info.calibration) if self.info.calibration else None,
            "vocabulary": self.info.vocabulary,
            "reject": self.rejection,
            "not_measured": [*self.notes],
            "files": self.files,
        }

    @property
    def rejection(self) -> str:
        """What is said of an image that is none of the names; '' where that could not be set."""
        reject = self.info.reject.get(PRECISION)
        return reject.in_words() if reject is not None else ""


def outcome_of(
    out: Path, runs: Mapping[str, dict[str, Any]], *, shipped: str, seconds: Mapping[str, float], report: Path
) -> Outcome:
    """Measure the shipped model's latency, and put together what its model.json and the ``runs`` say.

    ``runs`` are summaries by name, ``shipped`` the one whose student the model is.
    """
    info = ModelInfo.load(out)
    (measured,) = bench_model(out, BenchOptions(rounds=1, repeats=100, threads=0)).values()
    return Outcome(
        model=str(out),
        info=info,
        shipped=shipped,
        bytes=int(info.measured[PRECISION]["bytes"]),
        splits=_splits(info, runs),
        latency={"p50": measured["p50_ms"], "p99": measured["p99_ms"]},
        seconds=dict(seconds),
        notes=_notes(info),
        files={
            "card": str(out / "README.md"),
            "report": str(report),
            "cache": str(runs[shipped]["cache"]),
            "run": str(report.parent / shipped),
        },
    )


def _splits(info: ModelInfo, runs: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    measured = info.measured[PRECISION]["splits"]
    splits: dict[str, dict[str, float]] = {}
    for split in JUDGED:
        numbers = {name: value for name, run in runs.items() if (value := headline(run, split)) is not None}
        teacher = headline(next(iter(runs.values()))["teacher_metrics"], split)
        if teacher is not None:
            numbers["teacher"] = teacher
        own = measured.get(split, {})
        numbers |= {n: own[n] for n in ("all_accuracy", "all_ece", "images", "classes") if n in own}
        if numbers:
            splits[split] = numbers
    return splits


def _notes(info: ModelInfo) -> tuple[str, ...]:
    """Return what could not be measured."""
    splits = info.measured[PRECISION]["splits"]
    notes = [f"not measured: {text}" for split, text in UNMEASURED.items() if split not in splits]
    if PRECISION not in info.reject:
        notes.append("not measured: when a photo is none of the names; --reject needs labelled photos")
    return (*notes, *notes_on(info))
