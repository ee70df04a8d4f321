"""Judge a robotics student, or the teacher from its cache: what ``distill robotics evaluate`` calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cache import EmbeddingCache
from cache.runtime.devices import choose_device
from cache.runtime.errors import CacheMismatch, UserError
from cache.sources.episodes import EpisodeFolder
from cache.sources.samples import Record
from cache.sources.splits import SPLITS, split_name
from distill.checkpoint import read_checkpoint
from distill.config import RunConfig
from distill.data.identity_reader import IdentityReader
from distill.data.stream import EvalSplit
from distill.data.support import ROWS_OF
from distill.data.training_data import join_training_rows
from distill.data_identity import DataIdentity, identity_in
from distill.judge.evaluate import TEACHER_TEMPERATURE, student_outputs
from distill.judge.trained_run import check_tools, checkpoint_file, known_split
from distill.precision import autocast_of_trained
from distill.robotics.frames import normalise_frames
from distill.robotics.metrics import EpisodeResult, judge_objects
from distill.robotics.scores import margins, pair_logits
from distill.robotics.session import (
    closed_columns,
    episode_pixels,
    logits_of,
    new_episode_student,
    splits_to_judge,
    support_episodes,
)
from distill.robotics.student import EpisodeStudent
from distill.robotics.texts import PairTexts, open_pair_texts
from distill.settings import from_toml, with_settings
from distill.student.heads import FixedTexts


@dataclass(frozen=True, kw_only=True)
class EpisodeJudge:
    """A student with everything it takes to judge it; ``texts`` is None for the closed-set baseline."""

    config: RunConfig
    folder: EpisodeFolder
    texts: PairTexts | None
    student: EpisodeStudent
    device: torch.device

    @torch.no_grad()
    def judged(self, split: EvalSplit) -> EpisodeResult:
        """Judge the student on one split's episodes, by the texts as they are now.

        Raises
        ------
        UserError
            If no episode could be read.
        """
        text = self.texts(split.class_names) if self.texts is not None else None
        columns = closed_columns(self.config, self.folder, split.class_names, self.device)

        def forward(frames: Tensor) -> Tensor:
            with autocast_of_trained(self.config.train.precision, self.device):
                outputs = self.student(normalise_frames(frames))
            return margins(logits_of(outputs, config=self.config, text_2CD=text, columns_C=columns))

        size = self.config.train.eval_batch_size
        found = list(
            student_outputs(self.student, split.pixels, forward, batch_size=size, device=self.device)
        )
        if not found:
            raise UserError(f"no episode of {split.name} could be read", fix="check the HDF5 file.")
        return judge_objects(
            torch.cat([margin.cpu() for margin, _ in found]),
            torch.cat([labels for _, labels in found]),
            score_bias=self.student.score_bias.cpu(),
            split=split.name,
            class_names=split.class_names,
            id_objects=self.folder.split("train").class_names,
            threshold=self.config.robotics.threshold,
            unreadable=split.pixels.unreadable,
        )


@dataclass(frozen=True, kw_only=True)
class TrainedEpisodes:
    """A run's student, its judge and its cache.

    ``identity`` is the data that it was trained with, ``identities`` says what there is now.
    """

    cache: EmbeddingCache
    judge: EpisodeJudge
    identity: DataIdentity
    identities: IdentityReader

    @property
    def config(self) -> RunConfig:
        """The run's config."""
        return self.judge.config

    def other_data(self, split: str) -> str:
        """Return in what a split is not the one that the run was trained with, '' where it is."""
        name = ROWS_OF.get(split, split)
        return "; ".join(self.identity.split_differences(name, self.identities.split(name)))

    def wanted(self, splits: Sequence[str]) -> list[EvalSplit]:
        """Return the splits of these names, ``train`` and ``id_val`` too; of no names every test split.

        Raises
        ------
        UserError
            If there is no such split.
        """
        config, folder = self.judge.config, self.judge.folder
        aside: tuple[Record, ...] = ()
        if config.data.id_val:
            aside = join_training_rows(self.cache, folder, id_val=config.data.id_val).id_val
        support = support_episodes(self.cache, folder.split("ood_test"), config.fewshot)
        judged = {name: (records, names) for name, records, names in splits_to_judge(folder, aside, support)}
        train = folder.split("train")
        known = {"train": (train.images, train.class_names), **judged}
        names = [known_split(name) for name in splits] or [name for name in judged if name != "id_val"]
        for name in names:
            if name not in known:
                raise UserError(f"the run has no split {name}", fix=f"choose from {', '.join(known)}.")
        return [
            EvalSplit(
                name=name,
                pixels=episode_pixels(known[name][0], config, 0, strict=False),
                class_names=known[name][1],
            )
            for name in names
        ]


def evaluate_episodes(
    run: Path,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    splits: Sequence[str] = (),
    checkpoint: str = "last",
    text: str | None = None,
    negative_text: str | None = None,
    device: str = "auto",
) -> dict[str, EpisodeResult]:
    """Judge a robotics run's student; see :func:`distill.judge.trained_run.evaluate_run`.

    Raises
    ------
    UserError
        If the run, its episodes or its cache is missing, or the cache is of another teacher.
    """
    trained = open_trained_episodes(
        run,
        data_dir=data_dir,
        cache_dir=cache_dir,
        checkpoint=checkpoint,
        text=text,
        negative_text=negative_text,
        device=device,
    )
    return {
        split.name: replace(trained.judge.judged(split), other_data=trained.other_data(split.name))
        for split in trained.wanted(splits)
    }


def open_trained_episodes(
    run: Path,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    checkpoint: str = "last",
    text: str | None = None,
    negative_text: str | None = None,
    device: str = "auto",
) -> TrainedEpisodes:
    """Open a robotics run's student; the arguments are those of :func:`evaluate_episodes`.

    Raises
    ------
    UserError
        If the run, its episodes or its cache is missing, or the cache is of another teacher.
    """
    where = choose_device(device)
    state = read_checkpoint(checkpoint_file(run, checkpoint), device=where)
    config = from_toml(state["config"], where=str(run))
    given = {"text": text, "robotics.negative_text": negative_text}
    config = with_settings(config, [f'{name}="{value}"' for name, value in given.items() if value])
    cache = EmbeddingCache.open(cache_dir or Path(state["cache_dir"]))
    if cache.fingerprint != state["fingerprint"]:
        raise CacheMismatch(
            f"{run} was trained with the cache {state['fingerprint']}, {cache.path} is {cache.fingerprint}",
            fix="give the run's own cache with --cache.",
        )
    folder = EpisodeFolder.scan(data_dir or Path(state["data_dir"]))
    if config.train.baseline and list(folder.class_names) != state["all_classes"]:
        raise CacheMismatch(
            f"the objects of {folder.path} are not those that {run} was trained to tell apart",
            fix="give the run's own data folder with --data.",
        )
    identity, identities = identity_in(state, run), IdentityReader(cache=cache, folder=folder)
    check_tools(identities, identity, config, where=run)
    texts = None if config.train.baseline else open_pair_texts(cache, config, where)
    student = new_episode_student(config, cache, folder).to(where)
    student.load_state_dict(state["student"])
    if texts is not None and texts.learner is not None:
        texts.learner.load_state_dict(state["prompts"])
    judge = EpisodeJudge(config=config, folder=folder, texts=texts, student=student.eval(), device=where)
    return TrainedEpisodes(cache=cache, judge=judge, identity=identity, identities=identities)


def evaluate_episode_teacher(
    cache_dir: Path,
    *,
    splits: Sequence[str] = (),
    text: str = "labels",
    negative_text: str = "negative_labels",
) -> dict[str, EpisodeResult]:
    """Judge the teacher on the hand camera, from the cache alone; ``splits`` none means all that it has.

    Raises
    ------
    UserError
        If the cache has no such split or bank, or is of photos.
    """
    cache = EmbeddingCache.open(cache_dir)
    names = [split_name(name) for name in splits] or [name for name in SPLITS if name in cache.split_names]
    device = torch.device("cpu")
    texts = PairTexts(
        positive=FixedTexts(cache.text_bank(text), device),
        negative=FixedTexts(cache.text_bank(negative_text), device),
    )
    results = {}
    for name in names:
        rows = cache.split(name)
        if rows.labels.ndim != 2:
            raise UserError(f"{cache_dir} is a cache of photos", fix="use distill evaluate --teacher.")
        embeddings = torch.from_numpy(rows.embeddings[:]).float()
        logits = pair_logits(embeddings, texts(rows.class_names), temperature=TEACHER_TEMPERATURE)
        results[name] = judge_objects(
            margins(logits),
            torch.from_numpy(rows.labels),
            split=name,
            class_names=rows.class_names,
            id_objects=cache.split("train").class_names,
        )
    return results
