"""None of these, by the largest cosine and by words.

The share of unknown images that is rejected where 95% of the known ones pass, on what `distill demo` left:
its students, and its teacher. "By the largest cosine" is the cosine with the nearest name, "by MCM" the
largest probability, "by NegLabel" the score of a model with a vocabulary: here the demo's own words, each
pattern, colour and shape alone, in twos and in threes (what is unknown is among them, as it is among 20,000
words), of which those are negatives that are far from the names asked for. The temperature of either is
chosen as `export` does, that of NegLabel is shown. Unknown are once the OOD test's images, the names of the
ID classes asked for; and once the ID test's images of half of the ID classes, the names of the others asked
for: the mean over so many random halves. "times" is NegLabel's share by that of the largest cosine, with the
95% interval of so many bootstrap samples of the images.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.turns import Row
from cache.teacher.load import load_teacher
from distill.demo.words import COLOURS, PATTERNS, SHAPES
from distill.deploy.class_sets import unit
from distill.judge.calibration import fitted_temperature
from distill.judge.model import whole_outputs
from distill.judge.open_run import open_trained
from distill.judge.rejection import ACCEPTED, Scorer, auroc, fitted_scorer
from distill.judge.trained_run import TrainedRun

OPTIONS = {"demo": Path("artifacts/demo"), "teacher": "", "halves": 10, "samples": 1000}
ROUNDS = 1
SCORES = ("by the largest cosine", "by MCM", "by NegLabel")
COLUMNS = {
    **{"who": "{}", "unknown": "{}", "known": "{:,}", "images": "{:,}"},
    **dict.fromkeys(SCORES, "{:.1f}%"),
    **{"times": "{}", "AUROC, cosine": "{:.3f}", "AUROC, NegLabel": "{:.3f}", "temperature": "{:g}"},
}
Numbers = NDArray[np.float64]


def vocabulary() -> list[str]:
    """Return the demo's words alone, in twos and in threes."""
    kinds = (PATTERNS, COLOURS, SHAPES)
    return [
        " ".join(words)
        for count in (1, 2, 3)
        for some in itertools.combinations(kinds, count)
        for words in itertools.product(*some)
    ]


def measure(args: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    """Measure every student of the demo, and the teacher."""
    with as_file(files("distill.demo") / "teacher") as folder:
        name = args.teacher or f"local-dir:{folder}"
        teacher = load_teacher(name, pretrained=None, precision="float32", device=torch.device("cpu"))
        words = teacher.embed_texts([f"a photo of {word}" for word in vocabulary()])[0].float()
    rows: list[Row] = []
    for run in sorted((args.demo / "runs").iterdir()):
        trained = open_trained(run, device="cpu")
        if not rows:
            rows += _rows("teacher", trained, words, args, of_teacher=True)
        rows += _rows(run.name.partition("-")[0], trained, words, args)
    return rows, {"words": len(vocabulary())}


def _rows(
    who: str,
    trained: TrainedRun,
    words: Tensor,
    args: argparse.Namespace,
    *,
    of_teacher: bool = False,
) -> Iterator[Row]:
    splits = {split.name: split for split in trained.judged(())}
    images, own = {}, {}
    for name, split in splits.items():
        outputs, labels = whole_outputs(trained.model, split)  # type: ignore[arg-type]
        kept = trained.cache.split(name)
        theirs = kept.embeddings[kept.find([*split.keys])]
        images[name], own[name] = unit(theirs if of_teacher else outputs.numpy()), labels.numpy()
    bank = trained.cache.text_bank(trained.config.text)
    names, words_VD = (
        unit((texts if of_teacher else trained.heads[0].texts_in_its_space(texts)).numpy())
        for texts in (torch.from_numpy(bank.class_texts(splits["id_test"].class_names)), words)
    )
    known, of_known, unknown = images["id_test"], own["id_test"], images["ood_test"]
    temperature = fitted_temperature(known @ names.T, of_known)
    scorer, without = (
        fitted_scorer(known, of_known, names, words=some, temperature=temperature)
        for some in (words_VD, None)
    )
    score = _scores(scorer, without)
    tries = [(score(known, names), score(unknown, names))]
    yield {"who": who, "unknown": "OOD", **_told(tries, args), "temperature": scorer.temperature}
    rng, tries = np.random.default_rng(0), []
    for _ in range(args.halves):
        half = rng.permutation(len(names))[: len(names) // 2]
        asked = np.isin(of_known, half)
        tries.append((score(known[asked], names[half]), score(known[~asked], names[half])))
    yield {"who": who, "unknown": "half of ID", **_told(tries, args), "temperature": scorer.temperature}


def _scores(scorer: Scorer, without: Scorer) -> Callable[[NDArray[np.float32], NDArray[np.float32]], Numbers]:
    def scores(rows: NDArray[np.float32], names: NDArray[np.float32]) -> Numbers:
        """Return the three scores of every image, [3, N]."""
        cosines = rows @ names.T
        return np.stack([cosines.max(axis=1), without.odds(rows, names), scorer.odds(rows, names)])

    return scores


def _rejected(known: Numbers, unknown: Numbers) -> Numbers:
    """Return the share of unknown images below what 95% of the known ones reach, in percent, by score."""
    least = np.quantile(known, 1 - ACCEPTED, axis=1, keepdims=True)
    share: Numbers = 100 * (unknown < least).mean(axis=1)
    return share


def _told(tries: list[tuple[Numbers, Numbers]], args: argparse.Namespace) -> Row:
    """Return the mean over some tries of (known, unknown) scores, each [3, N]."""
    rng = np.random.default_rng(0)
    shares = np.mean([_rejected(known, unknown) for known, unknown in tries], axis=0)
    samples = []
    for _ in range(args.samples):
        drawn = [
            _rejected(*(of[:, rng.integers(of.shape[1], size=of.shape[1])] for of in one)) for one in tries
        ]
        cosine, _, neglabel = np.mean(drawn, axis=0)
        samples.append(neglabel / max(cosine, 1e-9))
    low, high = np.quantile(samples, [0.025, 0.975])
    told = {
        f"AUROC, {name}": float(np.mean([auroc(k[i], u[i]) for k, u in tries])) for name, i in AUROCS.items()
    }
    return {
        "known": tries[0][0].shape[1],
        "images": tries[0][1].shape[1],
        **dict(zip(SCORES, map(float, shares), strict=True)),
        "times": f"{shares[2] / max(shares[0], 1e-9):.2f} ({low:.2f} to {high:.2f})",
        **told,
    }


AUROCS = {"cosine": 0, "NegLabel": 2}
