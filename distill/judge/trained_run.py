"""Judge a trained run's checkpoint on any split: what ``distill evaluate RUN`` calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cache import EmbeddingCache
from cache.runtime.devices import choose_device
from cache.runtime.errors import CacheMismatch, UserError, nearest_names
from cache.sources.image_folder import ImageFolder
from cache.sources.open_set import check_apart, check_trained
from cache.sources.samples import Record
from cache.sources.splits import split_name
from distill.checkpoint import read_checkpoint
from distill.config import RunConfig
from distill.data.augment import eval_transform
from distill.data.identity_reader import IdentityReader
from distill.data.pixel_sources import PixelMaker
from distill.data.pixels import Pixels
from distill.data.stream import EvalSplit, splits_to_judge
from distill.data.support import QUERY, ROWS_OF, support_of
from distill.data.training_data import join_training_rows
from distill.data_identity import DataIdentity, identity_in, refuse_other_data
from distill.judge.evaluate import SplitResult, competing, judge_heads, student_outputs
from distill.judge.space_of_split import space_of_split, teacher_has_rows
from distill.precision import autocast_of_trained
from distill.settings import from_toml, with_settings
from distill.student.build import build_student
from distill.student.classifier import AllClasses
from distill.student.heads import Head, classifiers_for, fingerprint_of, learner_of, open_heads, output_size

CHECKPOINTS = ("last", "best")


def evaluate_run(
    run: Path,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    splits: Sequence[str] = (),
    checkpoint: str = "last",
    text: str | None = None,
    device: str = "auto",
) -> dict[str, SplitResult]:
    """Judge a run's student.

    Parameters
    ----------
    data_dir, cache_dir
        Where images and class texts are; left out, where the run found them.
    splits
        Names of splits (either name, or ``id_val``); none means every test split of the data.
    checkpoint
        ``last`` or ``best`` (there is one only where ``data.id_val`` was on).
    text
        Another text bank than the run's own.

    Raises
    ------
    UserError
        If the run, its data or its cache is missing, or the cache is of another teacher or holds other texts
        than the run learnt with.
    """
    trained = open_trained(
        run, data_dir=data_dir, cache_dir=cache_dir, checkpoint=checkpoint, text=text, device=device
    )
    results: dict[str, SplitResult] = {}
    for split in trained.wanted(splits):
        found = trained.judged(trained.outputs(split.pixels), split.class_names, split.name, split.pixels)
        other_data = trained.other_data(split.name)
        results |= {name: replace(result, other_data=other_data) for name, result in found.items()}
    return results


def space_of_run(
    run: Path,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    splits: Sequence[str] = (),
    checkpoint: str = "last",
    text: str | None = None,
    device: str = "auto",
) -> dict[str, dict[str, float]]:
    """Return the space metrics (:mod:`distill.judge.space`) of a run's student by split.

    Splits without teacher rows are left out.

    Raises
    ------
    UserError
        As :func:`evaluate_run`; if the run has no teacher, or no split has teacher rows.
    """
    trained = open_trained(
        run, data_dir=data_dir, cache_dir=cache_dir, checkpoint=checkpoint, text=text, device=device
    )
    if not trained.heads:
        raise UserError(f"{run} is a closed-set baseline", fix="judge a run that learnt from a teacher.")
    found: dict[str, dict[str, float]] = {}
    trained.identities.refuse_changed_images(trained.config.teachers)
    for split in trained.wanted(splits):
        if teacher_has_rows(trained.heads, split):
            outputs = trained.outputs(split.pixels)
            found |= space_of_split(trained.heads, outputs, split, trained.config.loss)
    if not found:
        raise UserError(
            f"the cache {trained.cache.path} has no teacher rows of those splits",
            fix="choose a --split that the cache has.",
        )
    return found


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A run's student with everything it takes to judge it.

    ``identity`` is the data that it was trained with, ``identities`` says what there is now.
    """

    config: RunConfig
    cache: EmbeddingCache
    folder: ImageFolder
    identity: DataIdentity
    identities: IdentityReader
    heads: tuple[Head, ...]
    student: nn.Module
    device: torch.device

    def outputs(self, pixels: Pixels) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the student's (outputs [B, D], labels [B]) over images in their order."""

        def forward(images: Tensor) -> Tensor:
            with autocast_of_trained(self.config.train.precision, self.device):
                outputs: Tensor = self.student(eval_transform(images, self.config.student.image_size))
            return outputs

        return student_outputs(
            self.student,
            pixels,
            forward,
            batch_size=self.config.train.eval_batch_size,
            device=self.device,
        )

    def judged(
        self,
        outputs: Iterable[tuple[Tensor, Tensor]],
        class_names: tuple[str, ...],
        split: str,
        pixels: Pixels | None = None,
    ) -> dict[str, SplitResult]:
        """Judge outputs by every head among ``class_names``, and where all classes compete.

        See :func:`distill.judge.evaluate.judge_heads`. Where a class of the data has no text they are judged
        among ``class_names`` alone.
        """
        among = self._competing()
        classifiers = classifiers_for(
            self.config,
            self.heads,
            self.folder.class_names,
            among.names if among is not None else class_names,
        )
        return judge_heads(
            outputs, classifiers, split=split, class_names=class_names, among=among, pixels=pixels
        )

    def _competing(self) -> AllClasses | None:
        # Where the folder has no train, its classes are those of the cache, which the run was trained on.
        among: AllClasses | None = AllClasses.of({**self.cache.manifest.splits, **self.folder.splits})
        for head in self.heads:
            among = competing(among, head.cache.text_bank(self.config.text)) if among is not None else None
        return among if among is not None and among.ood_classes else None

    def other_data(self, split: str) -> str:
        """Return in what a split is not the one that the run was trained with, '' where it is."""
        name = ROWS_OF.get(split, split)
        return "; ".join(self.identity.split_differences(name, self.identities.split(name)))

    def wanted(self, splits: Sequence[str]) -> list[EvalSplit]:
        """Return the splits of these names, ``train`` and ``id_val`` too; of no names every test split.

        Raises
        ------
        UserError
            If there is no such split, or a few-shot run is asked for images that it was trained on.
        """
        id_val: tuple[Record, ...] = ()
        if self.config.data.id_val and "train" in self.folder.splits:
            id_val = join_training_rows(self.cache, self.folder, id_val=self.config.data.id_val).id_val
        fewshot = self.config.fewshot
        support = support_of(self.cache, self.folder.split("ood_test"), fewshot) if fewshot.shots else []
        judged = {n: (images, names) for n, images, names in splits_to_judge(self.folder, id_val, support)}
        names = [known_split(name) for name in splits] or [name for name in judged if name != "id_val"]
        return [self._split(name, judged) for name in names]

    def _split(self, name: str, judged: dict[str, Any]) -> EvalSplit:
        if name == "id_val" and name not in judged:
            raise UserError("the run set no id_val aside", fix="train with --set data.id_val=0.1.")
        if name in ("ood_test", QUERY) and name not in judged:
            if name == QUERY:
                raise UserError(f"{QUERY} is a few-shot run's", fix="judge a run of 'distill fewshot'.")
            if self.config.fewshot.shots:
                raise UserError(
                    "the few-shot run was trained on some images of ood_test", fix=f"use --split {QUERY}."
                )
        if name in judged:
            images, class_names = judged[name]
        else:
            split = self.folder.split(name)
            images, class_names = split.images, split.class_names
        return EvalSplit(name=name, pixels=self.pixels(images, name), class_names=class_names)

    def pixels(self, images: Sequence[Record], split: str) -> Pixels:
        """Return a split's images as this student takes them, from the cache or decoded when asked for.

        The cache's own are left alone where the files are not those that they were made from.
        """
        config = with_settings(self.config, ["data.memory_mb=0"])
        if self.identities.changed(ROWS_OF.get(split, split)):
            config = with_settings(config, ["data.pixels=files"])
        return PixelMaker(config=config, cache=self.cache)(images, (ROWS_OF.get(split, split),))


def known_split(name: str) -> str:
    """Return a split's name by either of its names, ``id_val`` or ``ood_query``; UserError else."""
    return name if name in ("id_val", QUERY) else split_name(name)


def open_trained(
    run: Path,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    checkpoint: str = "last",
    text: str | None = None,
    device: str = "auto",
) -> TrainedRun:
    """Open a run's student; the arguments are those of :func:`evaluate_run`.

    Raises
    ------
    UserError
        If the run, its data or its cache is missing, or the cache is of another teacher.
    """
    where = choose_device(device)
    state = read_checkpoint(checkpoint_file(run, checkpoint), device=where)
    config = from_toml(state["config"], where=str(run))
    if text:
        config = with_settings(config, [f'text="{text}"'])
    cache = EmbeddingCache.open(cache_dir or Path(state["cache_dir"]))
    heads = open_heads(config, cache, where)
    if fingerprint_of(cache, heads) != state["fingerprint"]:
        raise CacheMismatch(
            f"{run} was trained with the cache {state['fingerprint']}, {cache.path} is "
            f"{fingerprint_of(cache, heads)}",
            fix="give the run's own cache with --cache.",
        )
    folder = _folder_of(run, state, config, data_dir)
    identity, identities = identity_in(state, run), IdentityReader(cache=cache, folder=folder)
    check_tools(identities, identity, config, where=run)
    student = build_student(
        config.student.arch,
        embed_dim=output_size(config, cache, folder.class_names, heads),
        image_size=config.student.image_size,
    ).to(where)
    student.load_state_dict(state["student"])
    learner = learner_of(heads)
    if learner is not None:
        learner.load_state_dict(state["prompts"])
    return TrainedRun(
        config=config,
        cache=cache,
        folder=folder,
        identity=identity,
        identities=identities,
        heads=heads,
        student=student.eval(),
        device=where,
    )


def _folder_of(run: Path, state: dict[str, Any], config: RunConfig, data_dir: Path | None) -> ImageFolder:
    folder = ImageFolder.scan(data_dir or Path(state["data_dir"]), require=())
    check_trained(folder.path, {name: split.class_names for name, split in folder.splits.items()})
    if not config.data.shared_classes:
        check_apart(
            folder,
            fix="train with data.shared_classes=true.",
        )
    if config.train.baseline and list(folder.class_names) != state["all_classes"]:
        raise CacheMismatch(
            f"the classes of {folder.path} are not those that {run} was trained to tell apart",
            fix="give the run's own data folder with --data.",
        )
    return folder


def check_tools(identities: IdentityReader, trained: DataIdentity, config: RunConfig, *, where: Path) -> None:
    """Make sure that a student is judged with the texts that it learnt with.

    A bank that the run did not learn with was chosen for its texts: there is nothing to compare them with.

    Raises
    ------
    CacheMismatch
        If it is not.
    """
    if not config.train.baseline:
        refuse_other_data(
            identities.tools(config).tool_differences(trained),
            where=where,
            fix="give the cache it was trained with, train it again, or choose another bank with --text.",
        )


def checkpoint_file(run: Path, checkpoint: str) -> Path:
    """Return a run's checkpoint ``last`` or ``best``; UserError for another name."""
    if checkpoint not in CHECKPOINTS:
        raise UserError(
            f"no checkpoint is called {checkpoint!r}",
            fix=f"{nearest_names(checkpoint, CHECKPOINTS)}choose from {', '.join(CHECKPOINTS)}.",
        )
    return run / f"{checkpoint}.pt"
