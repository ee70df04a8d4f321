"""What a run leaves of its test images: answers, a sample of embeddings, a few small pictures; logits.

``outputs.npz`` in the run's folder, plain arrays that numpy reads without pickle:

    SPLIT/keys, /labels, /predicted, /class_names         of every judged test split, among its own classes
    sample/keys, /splits, /classes, /student, /teacher    unit rows [n, D] float16, where there is a teacher
    pictures/keys, /ends, /jpeg                           JPEG files one after the other, and where each ends

``logits.npz`` beside it, of which :func:`read_logits` reads one split:

    SPLIT/logits, /keys, /classes, /images                [n, C] float32, the images and the class of each;
                                                          n of so many. SPLIT@TEACHER of further heads
    class_names, is_id                                    of the columns: the ID classes, then the OOD classes
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.runtime.atomic_files import replacing
from cache.runtime.errors import UserError, nearest_names, reason_of
from cache.store.npz_files import names_in_npz, read_npz, values_of
from cache.store.read_errors import READ_ERRORS

# The most that a run keeps of logits: 65,000 images of 1,000 classes. Of more images than fit a sample is
# kept, spread over the classes; metrics are of all images whatever is kept.
LOGITS_BYTES = 2**28


@dataclass(frozen=True, kw_only=True)
class Answers:
    """A student's answer to every image of one split: ``labels`` and ``predicted`` [N] index class_names."""

    keys: tuple[str, ...]
    labels: NDArray[np.int32]
    predicted: NDArray[np.int32]
    class_names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SplitLogits:
    """A student's ``logits`` [n, C] float32 of n of a split's ``images``, with its own temperature.

    ``classes`` are the names of the images' classes, ``class_names`` those of the columns, of which the first
    ``id_classes`` are trained on.
    """

    keys: tuple[str, ...]
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    id_classes: int
    images: int
    logits: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class EmbeddingSample:
    """Some images of several splits: ``student`` and ``teacher`` are unit rows [n, D] float16."""

    keys: tuple[str, ...]
    splits: tuple[str, ...]
    classes: tuple[str, ...]
    student: NDArray[np.float16]
    teacher: NDArray[np.float16]


@dataclass(frozen=True, kw_only=True)
class RunOutputs:
    """All of ``outputs.npz``. ``pictures`` are JPEG files by key; ``sample`` is None without a teacher.

    ``logits`` go to a file of their own, and are not read back with the rest.
    """

    answers: dict[str, Answers]
    sample: EmbeddingSample | None = None
    pictures: dict[str, bytes] = field(default_factory=dict)
    logits: dict[str, SplitLogits] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Images of class ``true`` that were taken for ``predicted``.

    ``count`` of them, among ``images`` of the class, over all runs; ``keys`` are those of most runs first.
    """

    true: str
    predicted: str
    count: int
    images: int
    keys: tuple[str, ...]


def shown_split(judged: Sequence[str]) -> str | None:
    """Return of which of some splits the pictures are shown: an OOD one, else another, where there is one."""
    return next((name for name in judged if name.startswith("ood")), next(iter(judged), None))


def confusions(answers: Sequence[Answers], *, most: int) -> list[Confusion]:
    """Return the pairs of classes that are confused most, most images first; several runs are added up."""
    wrong: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    images: Counter[str] = Counter()
    for one in answers:
        names = one.class_names
        images.update({names[label]: int(n) for label, n in enumerate(np.bincount(one.labels)) if n})
        for i in np.flatnonzero(one.labels != one.predicted):
            wrong[names[one.labels[i]], names[one.predicted[i]]][one.keys[i]] += 1
    ranked = sorted(wrong.items(), key=lambda item: (-item[1].total(), item[0]))
    return [
        Confusion(
            true=true,
            predicted=predicted,
            count=keys.total(),
            images=images[true],
            keys=tuple(sorted(keys, key=lambda key: (-keys[key], key_hash(key)))),
        )
        for (true, predicted), keys in ranked[:most]
    ]


def spread_sample(keys: Sequence[str], classes: Sequence[str], *, most: int) -> list[int]:
    """Return the positions of at most ``most`` images, as many of every class as of any other (up to one).

    Chosen by the hash of the key: the same images of the same data, whatever order they come in.
    """
    rank: Counter[str] = Counter()
    order = []
    for i in sorted(range(len(keys)), key=lambda i: key_hash(keys[i])):
        order.append((rank[classes[i]], key_hash(keys[i]), i))
        rank[classes[i]] += 1
    return [i for _, _, i in sorted(order)[:most]]


def key_hash(key: str) -> str:
    """Return what images are ordered by where any order would do: the SHA-256 of the key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def save_outputs(path: Path, outputs: RunOutputs) -> None:
    """Write ``outputs`` as one compressed npz file, whole or not at all."""
    arrays: dict[str, NDArray[Any]] = {}
    for split, answers in outputs.answers.items():
        arrays[f"{split}/keys"] = _texts(answers.keys)
        arrays[f"{split}/labels"] = answers.labels
        arrays[f"{split}/predicted"] = answers.predicted
        arrays[f"{split}/class_names"] = _texts(answers.class_names)
    if outputs.sample is not None:
        for name in ("keys", "splits", "classes"):
            arrays[f"sample/{name}"] = _texts(getattr(outputs.sample, name))
        arrays["sample/student"], arrays["sample/teacher"] = outputs.sample.student, outputs.sample.teacher
    files = list(outputs.pictures.values())
    arrays["pictures/keys"] = _texts(outputs.pictures)
    arrays["pictures/ends"] = np.cumsum([len(file) for file in files], dtype=np.int64)
    arrays["pictures/jpeg"] = np.frombuffer(b"".join(files), dtype=np.uint8)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def save_logits(path: Path, splits: Mapping[str, SplitLogits]) -> None:
    """Write every split's logits, whole or not at all. All have the same columns."""
    arrays: dict[str, NDArray[Any]] = {}
    for split, kept in splits.items():
        arrays["class_names"] = _texts(kept.class_names)
        arrays["is_id"] = np.arange(len(kept.class_names)) < kept.id_classes
        arrays[f"{split}/keys"], arrays[f"{split}/classes"] = _texts(kept.keys), _texts(kept.classes)
        arrays[f"{split}/images"], arrays[f"{split}/logits"] = np.array(kept.images), kept.logits
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # not compressed: it would gain a tenth


def read_logits(path: Path, split: str) -> SplitLogits:
    """Read one split of what :func:`save_logits` wrote; nothing else of the file is read.

    UserError if the file is missing or damaged, or has no such split.
    """
    try:
        splits = [name.removesuffix("/logits") for name in names_in_npz(path) if name.endswith("/logits")]
        if split not in splits:
            raise UserError(
                f"{path} has no logits of {split!r}",
                fix=f"{nearest_names(split, splits)}choose from {', '.join(splits)}.",
            )
        file = read_npz(path, lambda name: name.startswith(f"{split}/") or name in ("class_names", "is_id"))
        kept = SplitLogits(
            keys=tuple(values_of(file[f"{split}/keys"], "U")),
            classes=tuple(values_of(file[f"{split}/classes"], "U")),
            class_names=tuple(values_of(file["class_names"], "U")),
            id_classes=sum(values_of(file["is_id"], "b")),
            images=values_of(file[f"{split}/images"], "iu", ndim=0),
            logits=file[f"{split}/logits"],
        )
        if kept.logits.shape != (len(kept.keys), len(kept.class_names)) or len(kept.classes) != len(
            kept.keys
        ):
            raise ValueError(f"logits of {split} are {kept.logits.shape}")
        return kept
    except READ_ERRORS as error:
        raise _unreadable(path, error) from error


def load_outputs(path: Path) -> RunOutputs:
    """Read what :func:`save_outputs` wrote.

    UserError if the file is missing or damaged.
    """
    try:
        return _outputs(read_npz(path))
    except READ_ERRORS as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} cannot be read ({reason_of(error)})",
        fix="run its 'distill train' command again with --resume: a trained run writes it anew.",
    )


def _outputs(arrays: dict[str, NDArray[Any]]) -> RunOutputs:
    splits = [name.removesuffix("/predicted") for name in arrays if name.endswith("/predicted")]
    answers = {
        split: Answers(
            keys=tuple(values_of(arrays[f"{split}/keys"], "U")),
            labels=arrays[f"{split}/labels"],
            predicted=arrays[f"{split}/predicted"],
            class_names=tuple(values_of(arrays[f"{split}/class_names"], "U")),
        )
        for split in splits
    }
    sample = None
    if "sample/keys" in arrays:
        texts = {
            name: tuple(values_of(arrays[f"sample/{name}"], "U")) for name in ("keys", "splits", "classes")
        }
        sample = EmbeddingSample(**texts, student=arrays["sample/student"], teacher=arrays["sample/teacher"])
    jpeg, ends = arrays["pictures/jpeg"].tobytes(), values_of(arrays["pictures/ends"], "iu")
    starts = [0, *ends][: len(ends)]
    keys = values_of(arrays["pictures/keys"], "U")
    pictures = {
        key: jpeg[start:end] for key, start, end in zip(keys, starts, ends, strict=True) if start < end
    }
    return RunOutputs(answers=answers, sample=sample, pictures=pictures)


def _texts(values: Iterable[str]) -> NDArray[np.str_]:
    return np.array(list(values), dtype=np.str_)
