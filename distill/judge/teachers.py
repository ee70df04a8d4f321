"""The teachers of a cache, judged from its rows alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache import EmbeddingCache
from cache.runtime.errors import UserError
from cache.runtime.progress import Progress, Silent
from cache.sources.splits import LABELLED
from cache.store.split_rows import SplitRows
from cache.store.text_banks import image_hashes
from distill.config import RoboticsConfig
from distill.data.stream import refuse_several_labels
from distill.data.teacher_texts import default_bank, images_of_texts
from distill.judge.evaluate import Result, competing, evaluate, labelled_split, refuse_negative_text
from distill.robotics.metrics import EpisodeResult, judge_objects
from distill.robotics.scores import margins, pair_logits
from distill.robotics.texts import fixed_pair_texts
from distill.student.classifier import AllClasses, TextClassifier

# The original code's zero-shot evaluation of the teacher: CLIP's own logit scale of 100.
TEACHER_TEMPERATURE = 0.01
NEGATIVE = RoboticsConfig().negative_text


def evaluate_teacher(
    cache: Path | EmbeddingCache,
    *,
    splits: Sequence[str] = (),
    text: str = "",
    negative_text: str = "",
    batch_size: int = 4096,
    check: bool = False,
    progress: Progress | None = None,
) -> dict[str, Result]:
    """Judge a teacher from the cache alone: no model is loaded and no image is read.

    ``cache`` is a folder, whose main teacher is judged, or a cache as one of its teachers sees it.
    ``splits`` names some (either name); none means all that the cache has with labels; ``text`` its bank, ''
    :func:`distill.data.teacher_texts.default_bank`. ``negative_text`` is the bank of episodes' negative
    texts; they are judged on the main camera. With ``check`` the folder's files are compared with their
    checksums. UserError if the cache has no such split or text bank.
    """
    cache = cache if isinstance(cache, EmbeddingCache) else EmbeddingCache.open(cache, check=check)
    names = [labelled_split(name) for name in splits]
    names = names or [name for name in LABELLED if name in cache.split_names]
    if not names:
        raise UserError(
            f"the cache {cache.path} has a pool alone, whose images have no label to be judged by",
            fix="add labelled images to the data (train/CLASS/FILE), and run cache-features again.",
        )
    refuse_several_labels(cache, "judging")
    refuse_negative_text(cache, negative_text)
    classes = AllClasses.competing(cache.manifest.splits)
    judge = TeacherJudge(
        cache=cache,
        classes=classes,
        text=text or default_bank(cache),
        negative_text=negative_text or NEGATIVE,
        batch_size=batch_size,
        progress=progress or Silent(),
    )
    opened = {name: cache.split(name) for name in names}
    for rows in opened.values():
        _ = rows.embeddings  # a file that is damaged is told before anything is judged
    return {
        name: judge.judged(name, rows.class_names, rows, np.arange(len(rows)), rows.labels)
        for name, rows in opened.items()
    }


def judge_teachers(
    folder: Path,
    teacher: str = "",
    *,
    splits: Sequence[str] = (),
    text: str = "",
    negative_text: str = "",
    check: bool = False,
    note: Callable[[str], None],
    progress: Progress | None = None,
) -> dict[str, dict[str, Result]]:
    """Return what :func:`evaluate_teacher` says of each teacher of a cache, by name.

    ``teacher`` names one of them; '' means all. Of several, one that cannot be judged is told to ``note``
    and left out. UserError as there, where no teacher can be judged.
    """
    cache = EmbeddingCache.open(folder, check=check)
    judge = partial(
        evaluate_teacher, splits=splits, text=text, negative_text=negative_text, progress=progress
    )
    if teacher or len(cache.teacher_names) == 1:
        name = teacher or cache.teacher_name
        return {name: judge(cache.teacher_cache(name))}
    judged: dict[str, dict[str, Result]] = {}
    failed: dict[str, UserError] = {}
    for name in cache.teacher_names:
        try:
            judged[name] = judge(cache.teacher_cache(name))
        except UserError as error:
            failed[name] = error
    for name, why in failed.items():
        if not judged:
            raise why
        note(f"the teacher {name} is not judged: {why}")
    return judged


@dataclass(frozen=True, kw_only=True)
class TeacherJudge:
    """Judges a teacher by its rows and its text banks.

    ``classes`` are all of the data, None where every split has each: then its own compete, and are all.
    """

    cache: EmbeddingCache
    classes: AllClasses | None
    text: str
    negative_text: str = NEGATIVE
    batch_size: int = 4096
    progress: Progress = field(default_factory=Silent)

    def judged(
        self,
        split: str,
        class_names: tuple[str, ...],
        rows: SplitRows,
        at: NDArray[np.int64],
        labels: NDArray[np.int64],
    ) -> Result:
        """Judge the rows ``at`` of a split against their labels, which index ``class_names``.

        Rows without a label (-1) are none to judge. UserError if there is no row or no such bank, or a class
        has no text.
        """
        if labels.ndim == 1:
            judged = (labels >= 0) & ~self._went_in(split, rows, at)
            at, labels = at[judged], labels[judged]
        outputs = self._outputs(split, rows, at, labels)
        if self.cache.holds_episodes:
            return self._objects(split, class_names, outputs)
        bank = self.cache.text_bank(self.text)
        among = competing(self.classes, bank)
        texts = bank.class_texts(among.names if among is not None else class_names)
        classifier = TextClassifier(text=torch.from_numpy(texts), temperature=TEACHER_TEMPERATURE)
        return evaluate(outputs, classifier, split=split, class_names=class_names, among=among)

    def _outputs(
        self, split: str, rows: SplitRows, at: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the rows ``at`` of a split, and their labels, a batch at a time."""
        self.progress.start(len(at), f"judging {split}", "rows")
        for start in range(0, len(at), self.batch_size):
            here = slice(start, start + self.batch_size)
            yield torch.from_numpy(rows.embeddings[at[here]]).float(), torch.from_numpy(labels[here])
            self.progress.advance(len(at[here]))

    def _went_in(self, split: str, rows: SplitRows, at: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say of the rows ``at`` of a split whether the text bank was made of them."""
        made_of = images_of_texts(self.cache, self.text, [self.cache.teacher_name])
        if not len(made_of):
            return np.zeros(len(at), dtype=bool)
        return np.isin(image_hashes(rows.name, rows.keys, at), made_of)

    def _objects(
        self, split: str, class_names: tuple[str, ...], outputs: Iterable[tuple[Tensor, Tensor]]
    ) -> EpisodeResult:
        pairs = fixed_pair_texts(self.cache, self.text, self.negative_text, torch.device("cpu"))
        text = pairs(class_names, torch.empty(0))
        batches = [
            (margins(pair_logits(seen, text, temperature=TEACHER_TEMPERATURE)), labels)
            for seen, labels in outputs
        ]
        if not batches:
            raise UserError(f"no episode of {split} has a row", fix="run cache-features again.")
        return judge_objects(
            torch.cat([margin for margin, _ in batches]),
            torch.cat([labels for _, labels in batches]),
            split=split,
            class_names=class_names,
            id_objects=self.cache.manifest.splits.get("train", ()),
        )
