"""A trained run's student, and how it is judged on any split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cache import EmbeddingCache
from cache.runtime.errors import UserError
from cache.runtime.progress import Progress, Silent
from cache.sources.samples import DataFolder, Sample
from cache.sources.splits import FOLDERS, TESTS
from cache.store.tar_folder import TarFolder
from distill.config import RunConfig
from distill.data.identity_reader import IdentityReader
from distill.data.pixel_sources import PixelMaker
from distill.data.pixels import Pixels
from distill.data.stream import EvalSplit, decoder_of, splits_to_judge, to_judge
from distill.data.support import QUERY, ROWS_OF, support_of
from distill.data.tar_stream import id_val_of, set_aside
from distill.data.teacher_texts import images_of_texts
from distill.data.training_rows import join_training_rows, pool_val_of
from distill.data_identity import DataIdentity
from distill.headline import SET_ASIDE
from distill.judge.evaluate import Result, competing, labelled_split
from distill.judge.judged_classes import with_texts
from distill.judge.model import Model, judged
from distill.student.build import Origin
from distill.student.classifier import AllClasses
from distill.student.heads import Head


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A run's student with everything it takes to judge it.

    ``checkpoint`` is the file with its weights, ``identity`` the data that it was trained with,
    ``identities`` say what there is now, ``pool`` what :meth:`distill.data.pool.Pool.to_json` said of it,
    ``origin`` what the student was built from; ``ends`` what its summary must agree with to be of this very
    checkpoint: after how many epochs, and at which size and crop it was judged.
    """

    checkpoint: Path
    model: Model
    identity: DataIdentity
    identities: IdentityReader
    origin: Origin
    pool: Mapping[str, Any]
    ends: Mapping[str, Any]
    progress: Progress = field(default_factory=Silent)

    @property
    def config(self) -> RunConfig:
        """The run's config."""
        return self.model.config

    @property
    def cache(self) -> EmbeddingCache:
        """The cache with the class texts."""
        return self.model.cache

    @property
    def folder(self) -> DataFolder:
        """The data folder."""
        return self.model.folder

    @property
    def heads(self) -> tuple[Head, ...]:
        """The student's heads, one a teacher."""
        return self.model.heads

    @property
    def student(self) -> nn.Module:
        """The student."""
        return self.model.student

    @property
    def decoder(self) -> str:
        """What decodes its photos; '' of episodes."""
        return decoder_of(self.model.augment)

    @property
    def competing(self) -> AllClasses | None:
        """Every class of the data; None where every split has each, or one has no text."""
        # Where the folder has no train, its classes are those of the cache, which the run was trained on.
        among = AllClasses.competing({**self.cache.manifest.splits, **self.folder.classes})
        for head in (head for head in self.heads if head.has_texts):
            among = competing(among, head.cache.text_bank(self.config.text))
        return among

    def results(self, split: EvalSplit, outputs: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Result]:
        """Judge the student's (outputs [B, ...], labels [B]) on a split, and say how it is other data."""
        of_heads = judged(self.model, outputs, split, among=self.competing)
        if not of_heads:
            raise UserError(
                f"{split.name} cannot be judged: the teacher of {self.cache.path} has neither texts nor rows "
                "of it",
                fix="choose a --split that the cache has.",
            )
        other_data = self.other_data(split.name)
        return {name: replace(result, other_data=other_data) for name, result in of_heads.items()}

    def other_data(self, split: str) -> str:
        """Return in what a split is not the one that the run was trained with, '' where it is."""
        name = ROWS_OF.get(split, split)
        return "; ".join(self.identity.split_differences(name, self.identities.judged(name, self.config)))

    def wanted(self, splits: Sequence[str]) -> list[EvalSplit]:
        """Return the splits of these names, ``train`` and what is set aside too; of none every test split.

        Of no names and no test split that is what the run set aside, if any.
        UserError if there is no such split, or a few-shot run is asked for images that it was trained on.
        """
        if of_a_head := next((name for name in splits if "@" in name), ""):
            raise UserError(
                f"{of_a_head!r} is what one head, or their mean, is judged as",
                fix=f"use --split {of_a_head.partition('@')[0]}, which judges them all.",
            )
        support, data = support_of(self.cache, self.folder, self.config.fewshot), self.config.data
        made_of = images_of_texts(self.cache, self.config.text, [head.name for head in self.heads])
        kept: dict[str, Any] = {"made_of": made_of}
        if data.id_val and isinstance(self.folder, TarFolder):
            kept["id_val"] = id_val_of(self.cache, self.folder, set_aside(self.cache, data.id_val))
        elif (data.id_val or data.class_val) and "train" in self.folder.splits:
            joined = join_training_rows(self.identities, data)
            kept |= {"id_val": joined.id_val, "class_val": joined.class_val, "aside": joined.classes_aside}
        elif data.pool_val:
            kept["pool_val"] = pool_val_of(self.identities, self.config)
        by_name = {n: (images, names) for n, images, names in splits_to_judge(self.folder, support, **kept)}
        names = [name if name in (*SET_ASIDE, QUERY) else labelled_split(name) for name in splits]
        names = names or [name for name in by_name if name not in SET_ASIDE] or [*by_name]
        return with_texts(self.model, [self._split(name, by_name) for name in names])

    def judged(self, splits: Sequence[str]) -> list[EvalSplit]:
        """Return :meth:`wanted` splits; UserError where there is none at all."""
        wanted = self.wanted(splits)
        if not wanted:
            tests = " and no ".join(self.folder.split_is.format(FOLDERS[name]) for name in TESTS)
            raise UserError(
                f"{self.checkpoint.parent} cannot be judged: {self.folder.path} has no {tests}, and the run "
                "set no id_val aside",
                fix="add test images to the data, train with --set data.id_val=0.1, or judge --split train, "
                "which it was trained on.",
            )
        return wanted

    def _split(self, name: str, by_name: dict[str, Any]) -> EvalSplit:
        if name in by_name:
            images, class_names = by_name[name]
        elif name in SET_ASIDE:
            raise UserError(f"the run set no {name} aside", fix=f"train with --set data.{name}=0.1.")
        elif name == QUERY:
            raise UserError(f"{QUERY} is a few-shot run's", fix="judge a run of 'distill fewshot'.")
        elif name == "ood_test" and self.config.fewshot.shots:
            raise UserError(
                "the few-shot run was trained on some images of ood_test", fix=f"use --split {QUERY}."
            )
        else:
            split = self.folder.split(name)
            images, class_names = to_judge(split), split.classes
        return EvalSplit(name=name, pixels=self.pixels(images, name), class_names=class_names)

    def pixels(self, images: Sequence[Sample], split: str) -> Pixels:
        """Return a split's images as this student takes them, from the cache or decoded when asked for.

        The cache's own are left alone where the files are not those that they were made from.
        """
        changed = self.identities.changed(ROWS_OF.get(split, split))
        source = "files" if changed else self.config.data.pixels
        data = replace(self.config.data, memory_mb=0, pixels=source)
        make = PixelMaker(config=data, cache=self.cache, decode=self.model.augment.eval_decode)
        return make([(ROWS_OF.get(split, split), images)])
