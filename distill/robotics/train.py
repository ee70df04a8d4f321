"""Train a student on episodes: its losses, its counts, and how it is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from cache.runtime.distributed import ranks_of_torchrun
from cache.runtime.progress import Progress, Silent
from distill.config import RunConfig
from distill.data.batch import Batch, Crops, Share
from distill.data.identity_reader import note_gone
from distill.robotics.evaluate import EpisodeJudge
from distill.robotics.metrics import EpisodeResult, ObjectCounts
from distill.robotics.objective import episode_objective
from distill.robotics.scores import probabilities, scores
from distill.robotics.session import RoboticsSession, logits_of, open_episode_session
from distill.train.distributed import gather_rows
from distill.train.loop import check_out, fit

GROUPS = {"": "", "id_objects_": " ID objects", "ood_objects_": " OOD objects"}


def run(
    config: RunConfig,
    *,
    cache_dir: Path,
    data_dir: Path,
    out: Path,
    resume_run: bool = False,
    progress: Progress | None = None,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Train one student on episodes and return its summary; see :func:`distill.train.loop.fit`.

    Raises
    ------
    UserError
        If cache, episodes and config do not fit, ``out`` holds something else, or a loss is not finite.
    Stopped
        After SIGTERM or Ctrl-C, with the state saved.
    """
    progress = progress or Silent()
    check_out(out, resume_run=resume_run)
    with ranks_of_torchrun() as ranks:
        session = open_episode_session(config, cache_dir=cache_dir, data_dir=data_dir)
        left_out = session.data.joined.left_out
        if left_out:
            progress.note(f"{left_out:,} training episodes have no teacher row and are left out")
        note_gone(session.cache, session.folder, progress)
        ranks.wait()  # until every process has looked at ``out``
        return fit(EpisodeTask(session), out, resume_run=resume_run, progress=progress, command=command)


@dataclass
class EpisodeTask:
    """Several objects an episode: the robotics losses, judged by counts and average precision."""

    session: RoboticsSession
    results: dict[str, EpisodeResult] = field(default_factory=dict)
    headline: str = "accuracy, precision and recall by counts, mean average precision"
    measure: str = "mean average precision"
    curves: tuple[tuple[str, str], ...] = tuple(
        (f"{split}{words} AP", f"{split}_{group}average_precision")
        for split in ("id_val", "id_test", "ood_test", "ood_query")
        for group, words in GROUPS.items()
    )

    def augmented(
        self, images: Tensor, generator: Generator, share: Share, crops: Crops | None = None
    ) -> Tensor:
        """Return augmented frames; of episodes no crops are kept."""
        assert crops is None
        return self.session.augment(images, generator, share)

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Return an augmented batch's losses, and its scores [B, C]."""
        session, (targets,), total = self.session, batch.targets, len(batch.keys)
        with session.autocast():
            embeddings, located = session.student(batch.image_BXRR)
        outputs = (
            gather_rows(embeddings, total),
            gather_rows(located, total) if located is not None else None,
        )
        text = session.texts(session.class_names) if session.texts is not None else None
        logits = logits_of(outputs, config=session.config, text_2CD=text, columns_C=session.columns)
        bias, found = session.student.score_bias, probabilities(logits)
        parts = episode_objective(
            found,
            batch.label_B,
            bias,
            session.config.loss,
            session.config.robotics,
            student_BD=outputs[0] if text is not None else None,
            teacher_BD=targets.teacher_BD if text is not None else None,
        )
        return parts, scores(found.detach(), bias.detach())

    def counts(self, state: dict[str, Tensor]) -> ObjectCounts:
        """Return the counts of an epoch."""
        threshold = self.session.config.robotics.threshold
        if state:
            return ObjectCounts(**state, threshold=threshold)
        return ObjectCounts.none(self.session.device, threshold=threshold)

    def judge(self, *, late: bool) -> dict[str, float]:
        """Judge OOD and id_val every epoch, ID in the last epochs."""
        session = self.session
        judge = EpisodeJudge(
            config=session.config,
            folder=session.folder,
            texts=session.texts,
            student=session.student,
            device=session.device,
        )
        self.results = {
            split.name: judge.judged(split)
            for split in session.evals.values()
            if late or split.name != "id_test"
        }
        return {name: value for result in self.results.values() for name, value in result.flat().items()}

    def chosen_by(self, metrics: dict[str, float]) -> float | None:
        """Return the average precision on id_val."""
        return metrics.get("id_val_average_precision")

    def summary(self, history: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return every object's average precision and the learnt bias."""
        del history
        if not self.results:  # a run that had ended before its summary was written
            self.judge(late=True)
        return {
            "score_bias": float(torch.tanh(self.session.student.score_bias.detach())),
            "per_object_average_precision": {name: r.per_object for name, r in self.results.items()},
        }

    def outputs(self) -> None:
        """Return nothing: answers of several objects an episode are in the summary."""
