"""The size and crop that a trained student is judged at, chosen on images of train that were set aside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

from cache.runtime import machine_limits
from cache.runtime.errors import UserError
from distill.config import PAPER_CROP, StudentConfig
from distill.data.pixel_sources import PixelMaker
from distill.data.stream import EvalSplit, try_first
from distill.data.support import ROWS_OF
from distill.headline import SET_ASIDE
from distill.judge.evaluate import Result, metrics_of
from distill.judge.model import judged, outputs_of
from distill.settings import with_part
from distill.student.build import check_eval_size
from distill.student.classifier import AllClasses
from distill.student.photo_model import PhotoModel
from distill.train.run_folder import chosen_number
from distill.train.session import Session

# A student that was trained on crops likes pictures a little larger than those (arXiv 1906.06423).
LARGER, MULTIPLE = 1.15, 32


def sizes_and_crops(student: StudentConfig) -> list[tuple[int, float]]:
    """Return what is tried, the config's own first: its size and a larger one, the paper's crop and all."""
    size = student.image_size
    larger = min(MULTIPLE * math.ceil(LARGER * size / MULTIPLE), machine_limits.IMAGE_SIDE)
    own = (student.eval_size or size, student.eval_crop)
    return list(dict.fromkeys([own, *product((size, larger), (PAPER_CROP, 1.0))]))


def choose_eval(session: Session) -> dict[str, Any]:
    """Return the best size and crop of a trained student, by what else there is told, and its results there.

    ``scores`` are by size and crop in words, ``left_out`` says why others could not be tried. Of equals it is
    the first: the config's own. UserError if nothing was set aside that could be read.
    """
    scores: dict[str, float] = {}
    left_out: dict[str, str] = {}
    best: tuple[float, tuple[int, float], Session] | None = None
    split = _chosen_on(session)
    for size, crop in sizes_and_crops(session.config.student):
        try:
            there = _at(session, size, crop)
            score = chosen_number(split, _judged(there, [split]), session.model.chosen_by)
        except UserError as error:
            left_out[in_words(size, crop)] = error.problem
            continue
        assert score is not None
        scores[in_words(size, crop)] = score
        if best is None or score > best[0]:
            best = score, (size, crop), there
    if best is None:
        raise UserError(f"no image of {split} could be read, so that no size is chosen", fix="look at them.")
    _, (size, crop), there = best
    return {
        "eval_size": size,
        "eval_crop": crop,
        "chosen_by": f"{session.model.chosen_by.removeprefix('id_val_')} on {split}",
        "scores": scores,
        "left_out": left_out,
        **_judged(there, there.splits),
    }


def in_words(size: int, crop: float) -> str:
    """Return a size and a crop as a person says them."""
    return f"{size} px, the middle {crop:g} of the side"


def _chosen_on(session: Session) -> str:
    by = session.config.data.choose_by
    names = [name for name in (SET_ASIDE if by == "auto" else (by,)) if name in session.splits]
    if not names:
        raise UserError(
            "nothing was set aside to choose a size and a crop on", fix="set a larger data.id_val=0.2."
        )
    return names[0]


def _at(session: Session, size: int, crop: float) -> Session:
    """Return a session whose student is judged at another size; its splits are read when they are asked for.

    UserError if the student cannot take it, or the cache keeps other pixels and the files are gone.
    """
    model = session.model
    assert isinstance(model, PhotoModel)
    config = with_part(model.config, "student", eval_size=size, eval_crop=crop)
    check_eval_size(model.student, config.student)
    model = replace(model, config=config, augment=replace(model.augment, eval_size=size, eval_crop=crop))
    data = replace(config.data, memory_mb=0)  # each is looked at once
    make = PixelMaker(config=data, cache=model.cache, decode=model.augment.eval_decode)
    splits = {
        name: replace(split, pixels=make([(ROWS_OF.get(name, name), split.pixels.samples)]))
        for name, split in session.splits.items()
    }
    for split in splits.values():
        try_first(split.pixels)
    return replace(session, model=model, splits=splits)


def _judged(session: Session, names: Mapping[str, EvalSplit] | list[str]) -> dict[str, float]:
    model, among = session.model, AllClasses.competing(session.model.folder.classes)
    results: dict[str, Result] = {}
    for name in names:
        split = session.splits[name]
        results |= judged(model, outputs_of(model, split), split, among=among)
    return metrics_of(results)
