"""Everything a robotics run needs, made once: episodes, texts, student, optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cache import EmbeddingCache
from cache.reader import MappedRows, SplitRows
from cache.runtime.devices import choose_device
from cache.runtime.errors import UserError
from cache.runtime.machine_limits import memory_here
from cache.sources.episodes import EpisodeFolder, EpisodeRecord, SplitEpisodes
from cache.sources.samples import Record
from distill.checkpoint import weights_digest
from distill.config import FewShotConfig, RunConfig, check_for_episodes
from distill.data.identity_reader import IdentityReader
from distill.data.pixel_sources import MB, decoding_workers
from distill.data.pixels import Pixels
from distill.data.stream import EvalSplit
from distill.data.support import QUERY
from distill.data.training_data import TeacherRows, TrainingData, TrainingRows, join_training_rows
from distill.precision import amp_dtype_of
from distill.robotics.frames import EpisodeFrames, FrameAugment
from distill.robotics.scores import closed_set_logits, local_pair_logits, pair_logits
from distill.robotics.student import EpisodeStudent, build_episode_student
from distill.robotics.texts import PairTexts, open_pair_texts
from distill.student.classifier import closed_set_columns
from distill.train.optim import build_optimizer
from distill.train.session import TrainingSession, prepare, start_from


@dataclass(frozen=True, kw_only=True)
class RoboticsSession(TrainingSession):
    """The parts of a robotics run; ``texts`` is None for the closed-set baseline."""

    config: RunConfig
    student: EpisodeStudent
    folder: EpisodeFolder
    texts: PairTexts | None
    augment: FrameAugment


def open_episode_session(config: RunConfig, *, cache_dir: Path, data_dir: Path) -> RoboticsSession:
    """Make the parts of a run.

    Raises
    ------
    UserError
        If the cache, the episodes and the config do not fit each other, or an episode is not what its row
        was made from.
    """
    cache = _of_episodes(EmbeddingCache.open(cache_dir))
    check_for_episodes(config)
    folder = EpisodeFolder.scan(data_dir)
    identities = IdentityReader(cache=cache, folder=folder)
    device = choose_device(config.train.device)
    texts = None if config.train.baseline else open_pair_texts(cache, config, device)
    joined = join_training_rows(cache, folder, id_val=config.data.id_val)
    identities.refuse_changed_images(config.teachers)
    support = support_episodes(cache, folder.split("ood_test"), config.fewshot)
    if support:
        joined = _with_support(joined, cache, folder, support)
    class_names = joined.rows.class_names
    if texts is not None:
        texts(class_names)  # an object without a text is found before anything is read
    budget = memory_here(config.data.memory_mb * MB)
    pixels = episode_pixels(joined.images, config, budget, strict=True)
    budget -= pixels.kept_bytes
    evals = {}
    for name, records, names in splits_to_judge(folder, joined.id_val, support):
        of_split = episode_pixels(records, config, budget, strict=False)
        budget -= of_split.kept_bytes
        evals[name] = EvalSplit(name=name, pixels=of_split, class_names=names)
    learner = texts.learner if texts is not None else None
    torch.manual_seed(config.train.seed)
    student = new_episode_student(config, cache, folder, starting=True).to(device)
    if config.fewshot.start:
        start_from(Path(config.fewshot.start), student, learner, cache.fingerprint, device)
    prepare(student, config, device)
    amp_dtype = amp_dtype_of(config.train.precision, device)
    return RoboticsSession(
        config=config,
        cache=cache,
        folder=folder,
        fingerprint=cache.fingerprint,
        identity=identities.of(config),
        start=weights_digest(Path(config.fewshot.start)) if config.fewshot.start else "",
        device=device,
        data=TrainingData(
            joined=joined, pixels=pixels, teachers=(TeacherRows(rows=joined.rows, row_of=joined.row_of),)
        ),
        class_names=class_names,
        learner=learner,
        columns=closed_columns(config, folder, class_names, device),
        evals=evals,
        student=student,
        optimizer=build_optimizer(student, config.optim, *([learner] if learner is not None else [])),
        scaler=torch.amp.GradScaler(device.type, enabled=amp_dtype is torch.float16),
        amp_dtype=amp_dtype,
        texts=texts,
        augment=FrameAugment(policy=config.data.policy, per_image=config.data.per_image),
    )


def _of_episodes(cache: EmbeddingCache) -> EmbeddingCache:
    if not cache.holds_episodes:
        raise UserError(
            f"{cache.path} is a cache of photos, one label each",
            fix="make one of episodes: distill robotics cache-features.",
        )
    return cache


def new_episode_student(
    config: RunConfig, cache: EmbeddingCache, folder: EpisodeFolder, *, starting: bool = False
) -> EpisodeStudent:
    """Return a student of the config's outputs; with ``starting`` from the weights that it names."""
    return build_episode_student(
        config.student.arch,
        embed_dim=2 * len(folder.class_names) if config.train.baseline else cache.embed_dim,
        pretrained=starting and config.student.pretrained,
        weights=Path(config.student.weights) if starting and config.student.weights else None,
        image_size=config.student.image_size,
        local=config.robotics.local,
    )


def closed_columns(
    config: RunConfig, folder: EpisodeFolder, class_names: Sequence[str], device: torch.device
) -> Tensor | None:
    """Return the baseline's outputs of some objects; None where texts classify."""
    if not config.train.baseline:
        return None
    return torch.tensor(closed_set_columns(folder.class_names, tuple(class_names)), device=device)


def episode_pixels(records: Sequence[Record], config: RunConfig, memory: int, *, strict: bool) -> Pixels:
    """Return episodes as the student takes them, kept when they fit ``memory`` bytes."""
    decode = EpisodeFrames(config.student.image_size)
    return Pixels(records, decode, memory=memory, workers=decoding_workers(config.data), strict=strict)


def logits_of(
    outputs: tuple[Tensor, Tensor | None],
    *,
    config: RunConfig,
    text_2CD: Tensor | None,
    columns_C: Tensor | None,
) -> Tensor:
    """Return each object's pair of logits [2, B, C] from a student's outputs: by texts, or the baseline's."""
    embeddings, located = outputs
    if text_2CD is None:
        assert columns_C is not None
        return closed_set_logits(embeddings if located is None else located, columns_C)
    if located is None:
        return pair_logits(embeddings, text_2CD, temperature=config.loss.temperature)
    return local_pair_logits(located, text_2CD, temperature=config.loss.temperature)


def support_episodes(cache: EmbeddingCache, ood: SplitEpisodes, config: FewShotConfig) -> list[str]:
    """Return the keys of the few-shot episodes: of those with a teacher row, the first sorted, or drawn.

    Raises
    ------
    UserError
        If there are too few to leave one to test on.
    """
    if not config.shots:
        return []
    rows = cache.split("ood_test")
    keys = [episode.key for episode in ood.images if episode.key in rows.position]
    if len(keys) <= config.shots:
        raise UserError(
            f"there are {len(keys)} OOD episodes, so {config.shots} for few-shot would leave none to test on",
            fix=f"use at most {len(keys) - 1}.",
        )
    if config.support_seed < 0:
        return keys[: config.shots]
    rng = np.random.default_rng(config.support_seed)
    return [keys[i] for i in sorted(rng.choice(len(keys), size=config.shots, replace=False))]


def _with_support(
    joined: TrainingRows, cache: EmbeddingCache, folder: EpisodeFolder, support: Sequence[str]
) -> TrainingRows:
    """Return the training episodes with the support after them, labelled among all objects."""
    train, ood = joined.rows, cache.split("ood_test")
    records = {episode.key: episode for episode in folder.split("ood_test").images}
    at = np.array([ood.position[key] for key in support], dtype=np.int64)
    order = np.concatenate([joined.row_of, len(train) + at])
    new = len(ood.class_names) - len(train.class_names)
    rows = SplitRows(
        name="train and ood_support",
        keys=[train.keys[i] for i in joined.row_of] + list(support),
        labels=np.concatenate([np.pad(train.labels[joined.row_of], ((0, 0), (0, new))), ood.labels[at]]),
        class_names=ood.class_names,
        embeddings=MappedRows([train.embeddings, ood.embeddings], order),
        captions=None,
        caption_embeddings=None,
    )
    return replace(
        joined,
        rows=rows,
        images=joined.images + tuple(records[key] for key in support),
        row_of=np.arange(len(order)),
        support=len(support),
    )


def splits_to_judge(
    folder: EpisodeFolder, id_val: Sequence[Record], support: Sequence[str]
) -> list[tuple[str, tuple[Record, ...], tuple[str, ...]]]:
    """Return (name, episodes, objects) of every split that is not trained on; id_val first.

    With a support, the OOD episodes less the support are ``ood_query``.
    """
    judged: list[tuple[str, tuple[Record, ...], tuple[str, ...]]] = []
    if id_val:
        judged.append(("id_val", tuple(id_val), folder.split("train").class_names))
    taken = set(support)
    for name, split in folder.splits.items():
        if name != "train":
            own = QUERY if taken and name == "ood_test" else name
            left: tuple[EpisodeRecord, ...] = tuple(
                e for e in split.images if e.key not in taken or name != "ood_test"
            )
            judged.append((own, left, split.class_names))
    return judged
