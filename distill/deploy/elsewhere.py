"""Judge a run's student on labelled images that no cache has rows of: what ``evaluate RUN --on`` calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Unpack

import torch

from cache.runtime.errors import UserError, nearest_names, some_of
from cache.sources.accounts import NAMED, Account, LeftOut, Reason
from cache.sources.class_texts import LABELS, class_names_of
from cache.sources.data import open_data
from cache.sources.open_set import folded
from cache.sources.samples import DataFolder, Source
from cache.sources.source_options import AS_THEY_ARE, SourceOptions
from cache.sources.splits import LABELLED, MEAN, POOL
from distill.data.pixel_sources import PixelMaker
from distill.data.stream import EvalSplit, to_judge
from distill.deploy.class_heads import AS_THE_RUN, Wording, told_by
from distill.deploy.run_texts import labels_of
from distill.judge.evaluate import SplitResult, labelled_split
from distill.judge.model import judged, outputs_of
from distill.judge.open_run import Opening, open_trained
from distill.judge.trained_run import TrainedRun
from distill.student.heads import Head

ON = "on"


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Images that a student is judged on, and what says their classes in words.

    ``sources`` are read as ``options`` say, but decoded as the run's own images. The names of the options are
    the classes that compete, where there are any; else each split's own do.
    """

    sources: tuple[str, ...]
    options: SourceOptions = AS_THEY_ARE
    wording: Wording = AS_THE_RUN

    @property
    def places(self) -> str:
        """The sources, for messages."""
        return ", ".join(self.sources)


@dataclass(frozen=True, kw_only=True)
class ElsewhereResult:
    """How well one split of images is classified by one head.

    ``text`` says what told the classes, ``counts`` how many images of each were judged: none of a class that
    competes alone. ``trained`` are those of the classes that the run was trained on.
    """

    result: SplitResult
    text: str
    counts: Mapping[str, int]
    trained: tuple[str, ...]

    @property
    def top1_accuracy(self) -> float:
        """The accuracy of all images alike, in percent."""
        right = sum(self.counts[name] * value for name, value in self.result.per_class.items())
        return right / self.result.images

    @property
    def chance(self) -> float:
        """The accuracy of guessing among the classes that compete, in percent."""
        return 100 / len(self.counts)

    @property
    def new(self) -> tuple[str, ...]:
        """The classes that the run was not trained on."""
        trained = {*self.trained}
        return tuple(name for name in self.counts if name not in trained)

    def mean_of(self, classes: Iterable[str]) -> float | None:
        """Return the mean accuracy of those of some classes that have images, in percent; None of none."""
        values = [self.result.per_class[name] for name in classes if name in self.result.per_class]
        return sum(values) / len(values) if values else None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        own = self.result.to_json()
        return {
            **{name: own[name] for name in own if name not in ("among_all", "other_data")},
            "top1_accuracy": self.top1_accuracy,
            "chance": self.chance,
            "text": self.text,
            "images_per_class": dict(self.counts),
            "trained_classes": [*self.trained],
            "trained_accuracy": self.mean_of(self.trained),
            "new_classes": [*self.new],
            "new_accuracy": self.mean_of(self.new),
        }


def evaluate_elsewhere(
    run: Path, where: Elsewhere, *, splits: Sequence[str] = (), **opening: Unpack[Opening]
) -> tuple[dict[str, ElsewhereResult], Account]:
    """Judge a run's student zero-shot on labelled images of any classes, by split and head.

    Returned with what was left out of the images, by reason. The one labelled split of them is called ``on``,
    of several each ``on/SPLIT``. The run's own images are not needed.

    Raises
    ------
    UserError
        If the run is of episodes or a closed-set student, the images have no labels or several each, one is
        of a class that is not among the names, or nothing is there that embeds the classes' names.
    """
    opening["rows_alone"] = True
    trained = open_trained(run, **opening)
    if trained.cache.holds_episodes or not trained.heads:
        kind = "of episodes" if trained.cache.holds_episodes else "a closed-set student"
        raise UserError(
            f"{run} is {kind}: it knows its own classes alone", fix="judge a run that photos taught by texts."
        )
    options = replace(where.options, decoding=trained.cache.spec.decoding)
    folder = open_data(where.sources, options)
    chosen = _labelled(folder, where, splits)
    left_out = sum((source.account() for source in chosen.values()), _unlabelled(folder))
    results: dict[str, ElsewhereResult] = {}
    note = opening.get("note", str)
    tasks = [
        _Task.of(trained, name, source, folder, where, note=note) for name, source in chosen.items()
    ]  # all of them before the first picture is decoded
    for task in tasks:
        results |= task.results(trained, left_out)
    return results, left_out


def _labelled(folder: DataFolder, where: Elsewhere, splits: Sequence[str]) -> Mapping[str, Source]:
    """Return what is judged, by the name of its results."""
    names = [labelled_split(name) for name in splits]
    names = names or [name for name in LABELLED if name in folder.splits]
    sources = {name: folder.split(name) for name in names}
    if not sources:
        raise UserError(
            f"{where.places} has no labels, and there is nothing to judge by",
            fix="give class folders (ood_test=PLACE, if its folders are classes), or a list, tars or parquet "
            "with labels.",
        )
    if any(source.multi_label for source in sources.values()):
        raise UserError(
            f"images of {where.places} have several labels each", fix="give images of one label each."
        )
    alone = len(sources) == 1
    return {ON if alone else f"{ON}/{name}": source for name, source in sources.items()}


def _unlabelled(folder: DataFolder) -> Account:
    """Return the account of images that have no label at all: they are a pool."""
    pool = folder.splits.get(POOL)
    if pool is None or not len(pool):
        return Account()
    keys = islice((one.key for chunk in pool.chunks() for one in pool.list(chunk.id)), NAMED)
    return Account({Reason.NO_LABEL.value: LeftOut(count=len(pool), names=tuple(keys))}) + pool.account()


def _competing(source: Source, where: Elsewhere) -> tuple[str, ...]:
    """Return the classes that a split is judged among: the names that are given, else its own."""
    names = where.options.names
    if not names:
        return source.classes
    there = {*names}
    odd = [one for one in source.classes if one not in there]
    if odd:
        count = f"{len(odd):,} of {len(source.classes):,}"
        raise UserError(
            f"{count} classes of {where.places} are not in --names: {some_of([*map(repr, odd)])}",
            fix=f"{nearest_names(odd[0], names)}write them as the labels do, one a line.",
        )
    return tuple(dict.fromkeys(names))


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A split to judge, and by which heads: each with texts of its classes, and what these are in words."""

    split: EvalSplit
    places: str
    heads: Sequence[tuple[Head, str]]
    trained: tuple[str, ...]

    @classmethod
    def of(
        cls,
        trained: TrainedRun,
        name: str,
        source: Source,
        folder: DataFolder,
        where: Elsewhere,
        *,
        note: Callable[[str], object],
    ) -> _Task:
        classes = _competing(source, where)
        found = folder.path / LABELS
        labels = where.wording.label2text or (found if found.is_file() else None)
        called = labels_of(trained.cache)
        words = class_names_of(labels, classes) | ({} if labels else called)
        known = {folded(name) for one in trained.model.class_names for name in (one, called.get(one, one))}
        data = replace(trained.config.data, memory_mb=0, pixels="files")
        make = PixelMaker(config=data, cache=trained.cache, decode=trained.model.augment.eval_decode)
        if not where.wording.templates and all(words[one].isdecimal() for one in classes):
            note(f"the classes of {where.places} are called {some_of(classes)}: --names says what that is")
        heads = told_by(trained, {one: words[one] for one in classes}, where.wording, note=note)
        return cls(
            split=EvalSplit(name=name, pixels=make([(name, to_judge(source))]), class_names=classes),
            places=where.places,
            heads=heads,
            trained=tuple(n for n in classes if folded(n) in known or folded(words[n]) in known),
        )

    def results(self, trained: TrainedRun, left_out: Account) -> dict[str, ElsewhereResult]:
        """Judge it; UserError where there is no image to."""
        name, classes = self.split.name, self.split.class_names
        outputs = list(outputs_of(trained.model, self.split, trained.progress))
        if not outputs:
            why = [*left_out.in_words(), *islice(self.split.pixels.unreadable.values(), 1)]
            raise UserError(
                f"there is no image of {self.places} to judge{': ' if why else ''}{'; '.join(why)}",
                fix="check the source, and that its files are images.",
            )
        numbers = torch.cat([labels for _, labels in outputs]).bincount(minlength=len(classes))
        counts = dict(zip(classes, numbers.tolist(), strict=True))
        model = replace(trained.model, heads=tuple(head for head, _ in self.heads))
        found = judged(model, outputs, self.split)
        # Not every head of the run need have such texts: what is first here may be its second.
        ours = {f"{name}@{head.name}": text for head, text in self.heads}
        ours |= {f"{name}@{MEAN}": self.heads[0][1]} if len(self.heads) > 1 else {}
        results = {}
        for (called, text), result in zip(ours.items(), found.values(), strict=True):
            assert isinstance(result, SplitResult)
            own = name if called == f"{name}@{trained.heads[0].name}" else called
            results[own] = ElsewhereResult(
                result=replace(result, split=own), text=text, counts=counts, trained=self.trained
            )
        return results
