"""Judge a run's student on labelled images that no cache has rows of: what ``evaluate RUN --on`` calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from cache.build.add_texts import text_encoder
from cache.build.distinct_texts import check_told_apart
from cache.build.text_banks import embedded_bank
from cache.reader import EmbeddingCache
from cache.runtime.errors import UserError
from cache.sources.class_texts import LABEL_TEMPLATE, LABELS, check_templates, class_names_of, template_bank
from cache.sources.data import open_data
from cache.sources.samples import DataFolder, Source
from cache.sources.source_options import AS_THEY_ARE, SourceOptions
from cache.sources.splits import LABELLED
from distill.data.pixel_sources import PixelMaker
from distill.data.stream import EvalSplit, to_judge
from distill.judge.evaluate import SplitResult, evaluate, labelled_split
from distill.judge.model import whole_outputs
from distill.judge.trained_run import Opening, TrainedRun, open_trained
from distill.student.classifier import TextClassifier
from distill.student.heads import Head

ON = "on"


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Images that a student is judged on, and what says their classes in words.

    ``sources`` are read as ``options`` say, but decoded as the run's own images. Classes have the texts of
    the run's bank where that has them all and no ``templates`` are given; else their names in the templates,
    by the text tower that the cache keeps, or that of the named teacher. Names are those of ``label2text``,
    which is looked for beside the images.
    """

    sources: tuple[str, ...]
    options: SourceOptions = AS_THEY_ARE
    templates: tuple[str, ...] = ()
    label2text: Path | None = None
    teacher_model: str | None = None
    pretrained: str | None = None

    def __post_init__(self) -> None:
        check_templates(self.templates)


@dataclass(frozen=True, kw_only=True)
class ElsewhereResult:
    """How well one split of images is classified; ``top1_accuracy`` is of all images alike, in percent.

    ``text`` says what the classes were told by.
    """

    result: SplitResult
    top1_accuracy: float
    text: str

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**self.result.to_json(), "top1_accuracy": self.top1_accuracy, "text": self.text}


def evaluate_elsewhere(
    run: Path, where: Elsewhere, *, splits: Sequence[str] = (), **opening: Unpack[Opening]
) -> dict[str, ElsewhereResult]:
    """Judge a run's student zero-shot on labelled images of any classes, by split and head.

    The one labelled split of the images is called ``on``, of several each ``on/SPLIT``. The run's own images
    are not needed.

    Raises
    ------
    UserError
        If the run is of episodes or a closed-set baseline, the images have no labels or several each, or
        nothing is there that embeds their classes' names.
    """
    opening["rows_alone"] = True
    trained = open_trained(run, **opening)
    if trained.cache.holds_episodes or not trained.heads:
        kind = "of episodes" if trained.cache.holds_episodes else "a closed-set baseline"
        raise UserError(
            f"{run} is {kind}: it knows its own classes alone", fix="judge a run that photos taught by texts."
        )
    options = replace(where.options, decoding=trained.cache.spec.decoding)
    folder = open_data(where.sources, options)
    chosen = _labelled(folder, where, splits)
    results: dict[str, ElsewhereResult] = {}
    texts = {
        name: [_class_texts(trained, head, folder, source, where) for head in trained.heads]
        for name, source in chosen.items()
    }  # all of them before the first picture is decoded
    for name, source in chosen.items():
        results |= _judged(trained, name, source, texts[name])
    return results


def _labelled(folder: DataFolder, where: Elsewhere, splits: Sequence[str]) -> Mapping[str, Source]:
    """Return what is judged, by the name of its results."""
    names = [labelled_split(name) for name in splits]
    names = names or [name for name in LABELLED if name in folder.splits]
    sources = {name: folder.split(name) for name in names}
    if not sources:
        raise UserError(
            f"{', '.join(where.sources)} has no labels, and there is nothing to judge by",
            fix="give class folders, or a list, tars or parquet with labels.",
        )
    for name, source in sources.items():
        if source.multi_label:
            raise UserError(
                f"images of {name} in {folder.path} have several labels each",
                fix="give images of one label each.",
            )
    alone = len(sources) == 1
    return {ON if alone else f"{ON}/{name}": source for name, source in sources.items()}


def _class_texts(
    trained: TrainedRun, head: Head, folder: DataFolder, source: Source, where: Elsewhere
) -> tuple[Tensor, str]:
    """Return the texts of a source's classes for a head, raw [C, D], and what they are, in words."""
    cache, bank_name = head.cache, trained.config.text
    if not where.templates and bank_name in cache.bank_names:
        bank = cache.text_bank(bank_name)
        if {*source.classes} <= {*bank.class_folders}:
            return torch.from_numpy(bank.class_texts(source.classes)), f"the text bank {bank_name!r}"
    found = folder.path / LABELS
    labels = where.label2text or (found if found.is_file() else None)
    names = class_names_of(labels, source.classes)
    templates = where.templates or _templates(cache, bank_name)
    texts = template_bank(ON, {name: names[name] for name in source.classes}, templates)
    check_told_apart(texts, [source.classes])
    device = str(trained.model.device)
    encoder = text_encoder(cache, model=where.teacher_model, pretrained=where.pretrained, device=device)
    own, _ = embedded_bank(texts, encoder)
    shown = repr(templates[0]) if len(templates) == 1 else f"{len(templates)} templates"
    return torch.from_numpy(own.class_texts(source.classes)), f"their names in {shown}"


def _templates(cache: EmbeddingCache, bank: str) -> tuple[str, ...]:
    """Return the templates that a bank was made with, where they take a name alone; else the usual one."""
    made_with = tuple(cache.listed_bank(bank).templates) if bank in cache.bank_names else ()
    takes_names = made_with and all(template.count("{}") == 1 for template in made_with)
    return made_with if takes_names else (LABEL_TEMPLATE,)


def _judged(
    trained: TrainedRun, name: str, source: Source, texts: Sequence[tuple[Tensor, str]]
) -> dict[str, ElsewhereResult]:
    data = replace(trained.config.data, memory_mb=0, pixels="files")
    make = PixelMaker(config=data, cache=trained.cache, decode=trained.model.augment.decode)
    split = EvalSplit(name=name, pixels=make(to_judge(source), ()), class_names=source.classes)
    try:
        outputs, labels = whole_outputs(trained.model, split)
    except ValueError as error:  # of no batch at all
        raise UserError(
            f"no image of {name} could be read", fix="check that the files are images."
        ) from error
    results = {}
    for head, (text, words) in zip(trained.heads, texts, strict=True):
        ending = "" if head is trained.heads[0] else f"@{head.name}"
        classifier = TextClassifier(text=text, temperature=trained.config.loss.temperature)
        rows = head.embed(outputs)
        result = evaluate(
            [(rows, labels)],
            classifier,
            split=f"{name}{ending}",
            class_names=source.classes,
            unreadable=split.pixels.unreadable,
        )
        right = (classifier(rows).argmax(dim=1) == labels).double().mean()
        results[f"{name}{ending}"] = ElsewhereResult(
            result=result, top1_accuracy=100 * float(right), text=words
        )
    return results
