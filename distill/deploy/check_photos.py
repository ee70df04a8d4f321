"""What a file does beside the student of photos; and does a graph prepare photos as Pillow does?

That is asked with raw photos, of every runtime that is installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.runtime.errors import UserError
from cache.sources.decoding import UnreadableImage
from distill.data.stream import EvalSplit
from distill.deploy.check import (
    Choices,
    Judged,
    Written,
    compared,
    embedded,
    with_compared,
)
from distill.deploy.check_reject import RejectCheck
from distill.deploy.class_sets import ClassSet
from distill.deploy.info import GRAPH, ModelInfo, Preprocessing
from distill.deploy.model import Embed
from distill.judge.calibration import calibrated
from distill.judge.evaluate import SplitResult, both_kinds
from distill.judge.rejection import Rows

PHOTOS_PER_SPLIT = 8
# Pixels may differ by one where a mean lies between two whole numbers.
LEAST_COSINE = 0.999


@dataclass(frozen=True, kw_only=True)
class PhotoCheck:
    """What the files of a student of photos are compared with: the student, on some images of every split.

    ``student`` are its results, ``photos`` raw ones where a graph prepares them; ``none`` sets "none of
    these", where there are images to set it on.
    """

    judged: dict[str, Judged]
    choices: Choices
    student: dict[str, SplitResult]
    photos: list[Image.Image]
    none: RejectCheck | None

    def measured(self, info: ModelInfo, file: Written) -> ModelInfo:
        """Return ``info`` with what a file does. Beside test images what was set aside is no result."""
        judged, choices, steps = self.judged, self.choices, info.preprocessing
        rows = {
            split: embedded(part.split, steps, file.embed, where=file.where) for split, part in judged.items()
        }
        results = choices.judge(judged, rows)
        tests = {split: one for split, one in results.items() if split != "id_val"} or results
        splits = {
            split: compared(judged[split], rows[split], tests[split], self.student[split]) for split in tests
        }
        if self.none is not None:
            unknown = {
                name: embedded(some, steps, file.embed, where=file.where)
                for name, some in self.none.unknowns.items()
            }
            reject, shares = self.none.reject(choices.compared(judged, rows), rows, unknown)
            info = replace(info, reject={**info.reject, file.name: reject})
            splits = {split: {**numbers, **shares[split]} for split, numbers in splits.items()}
        more: dict[str, Any] = dict(both_kinds(tests))
        if file.where == GRAPH:
            more["photos"] = photos_compared(file.path, file.embed, self.photos, steps)
            if file.name == "float32":
                check_photos(file.path.name, more["photos"])
        return with_compared(info, file, splits, len(choices.among.names), **more)


def photo_check(
    judged: dict[str, Judged],
    bank: ClassSet,
    info: ModelInfo,
    *,
    words: Rows | None,
    unknowns: Mapping[str, EvalSplit],
) -> tuple[ModelInfo, PhotoCheck]:
    """Return ``info`` with the student's calibration, and what files are compared with.

    The student said the embeddings of ``judged``; ``bank`` are its classes, ``words`` [V, D] the vocabulary.
    UserError if there are ``unknowns``, and no ID images to set "none of these" on.
    """
    rows = {split: part.embeddings for split, part in judged.items()}
    choices = Choices.of(bank, info.id_classes, info.temperature)
    compared_rows = choices.compared(judged, rows)
    calibration = calibrated(compared_rows, trained_with=info.temperature)
    if calibration is not None:
        info = replace(info, temperature=calibration.temperature, calibration=calibration)
        choices = replace(choices, temperature=calibration.temperature)
    none = RejectCheck.of(compared_rows, rows, choices, words=words, unknowns=unknowns)
    if none is None and unknowns:
        raise UserError(
            "--unknowns are compared with ID images, and the run has none beside those of its training",
            fix="train with --set data.id_val=0.1, or give ID test images in --data.",
        )
    return info, PhotoCheck(
        judged=judged,
        choices=choices,
        student=choices.judge(judged, rows),
        photos=raw_photos(judged) if info.preprocessing.where == GRAPH else [],
        none=none,
    )


def raw_photos(judged: Mapping[str, Judged]) -> list[Image.Image]:
    """Return some test photos as their files hold them, each second one with odd and other sides."""
    photos = []
    for split in judged.values():
        for number, sample in enumerate(split.split.pixels.samples[:PHOTOS_PER_SPLIT]):
            try:
                (photo,) = sample.pictures()
            except UnreadableImage:
                continue  # counted where the split is judged
            sides = (photo.width // 3 | 1, (photo.height + 2 * number) | 1)
            photos.append(photo.resize(sides) if number % 2 else photo)
    return photos


def photos_compared(
    path: Path, embed: Embed, photos: Iterable[Image.Image], steps: Preprocessing
) -> dict[str, Any]:
    """Return by runtime the least cosine between a graph's answers to raw photos and to squashed ones.

    ``embed`` is the graph in onnxruntime; OpenVINO is asked too where it is installed.
    """
    runtimes = {"onnxruntime": embed}
    if find_spec("openvino") is not None:
        runtimes["OpenVINO"] = _in_openvino(path)
    least = dict.fromkeys(runtimes, 1.0)
    images, sides = 0, set()
    for photo in photos:
        images += 1
        sides.add(photo.size)
        squashed = photo.resize((steps.resize, steps.resize), Image.Resampling.BILINEAR)
        (expected,) = embed(np.asarray(squashed)[None])
        for name, run in runtimes.items():
            (embedding,) = run(np.asarray(photo)[None])
            least[name] = min(least[name], float(embedding @ expected))
    return {"images": images, "sizes": len(sides), "least_cosine": least}


def check_photos(name: str, compared: dict[str, Any]) -> None:
    """Refuse a float32 graph that prepares photos in another way than the student was judged with.

    UserError if the cosine of an embedding lies below 0.999.
    """
    for runtime, least in compared["least_cosine"].items():
        # Not "less than": what is not a number must not pass.
        if not least >= LEAST_COSINE:
            raise UserError(
                f"{name} prepares photos in {runtime} otherwise than the student's own preprocessing (cosine "
                f"{least:.4f}, at least {LEAST_COSINE} is expected)",
                fix="export with --preprocessing outside.",
            )


def _in_openvino(path: Path) -> Embed:
    import openvino

    compiled = openvino.Core().compile_model(str(path), "CPU")

    def embed(images: NDArray[Any]) -> NDArray[np.float32]:
        return np.asarray(compiled(np.ascontiguousarray(images))[0], dtype=np.float32)

    return embed
