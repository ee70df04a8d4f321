"""New class texts for a shipped model, embedded by its teacher's text tower: ``distill texts --add``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cache import EmbeddingCache
from cache.runtime.atomic_files import check_own_folders
from cache.runtime.devices import choose_device
from cache.runtime.errors import CacheMismatch, UserError, WrongOption
from cache.runtime.locks import only_writer
from cache.sources.class_texts import check_templates
from cache.sources.names import is_plain_name
from cache.teacher.templates import templates_of
from cache.teacher.text_tower import TextTower
from distill.deploy.class_sets import ClassSet, join, unit
from distill.deploy.info import ModelInfo, bank_file


@dataclass(frozen=True, kw_only=True)
class TowerSource:
    """Where a model's text tower comes from: what ``cache`` keeps, or that of the named teacher."""

    cache: Path | None = None
    teacher_model: str | None = None
    pretrained: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.cache is not None and self.teacher_model is not None:
            raise WrongOption("--cache and --teacher-model are both given", fix="keep one.")
        if self.pretrained is not None and self.teacher_model is None:
            raise WrongOption("--pretrained is of --teacher-model", fix="give that too, or leave it out.")


def add_texts(
    model: Path,
    names: Sequence[str],
    tower: TowerSource,
    *,
    bank: str = "added",
    templates: Sequence[str] = (),
) -> list[str]:
    """Embed names and add them to a text bank of a shipped model; return what was new.

    A model that may be from elsewhere says whose texts it takes, and not where to load their tower from.
    Of several templates a name's unit rows are averaged; of none the labels' own is taken.

    UserError if the bank is one that was exported, no text tower is given, or it is of another teacher.
    """
    _check_bank(model, ModelInfo.load(model), bank)
    forms = templates_of(templates)
    check_templates(forms)
    names = list(dict.fromkeys(" ".join(name.split()) for name in names))
    if "" in names:
        raise WrongOption("--add is empty", fix="give a class name or a text.")
    check_own_folders(model)
    with only_writer(model):
        info = ModelInfo.load(model)
        path = model / bank_file(bank)
        before = ClassSet.load(path, embed_dim=info.embed_dim) if bank in info.banks else None
        new = [name for name in names if before is None or before.find(name) is None]
        if not new:
            return []
        added = _embedded(model, info, new, forms, tower)
        (join([before, added]) if before is not None else added).save(path)
        if bank not in info.banks:  # last: a bank that is not listed does not exist
            replace(info, banks=(*info.banks, bank)).save(model)
    return new


def _check_bank(model: Path, info: ModelInfo, bank: str) -> None:
    if info.objects is not None:
        raise UserError(
            f"{model} is a model of episodes, whose objects have a positive and a negative text each",
            fix="make the cache of more episodes, or of other prompts, and export again.",
        )
    if not is_plain_name(bank):
        raise WrongOption(f"--bank {bank!r} cannot name a file", fix="use letters, digits, '.', '_' and '-'.")
    if bank_file(bank) in info.files:
        raise UserError(f"the text bank {bank!r} was exported with the model", fix="choose another --bank.")


def _embedded(
    model: Path, info: ModelInfo, names: Sequence[str], given: Sequence[str], tower: TowerSource
) -> ClassSet:
    """Return names as classes: in the templates, or the labels' own, embedded by the text tower."""
    templates = [*given] or ([*info.templates] if len(info.templates) == 1 else ["{}"])
    texts = [form.replace("{}", name) for name in names for form in templates]
    rows = unit(_rows_of(info, tower, texts).float().cpu().numpy())
    rows = unit(rows.reshape(len(names), len(templates), -1).mean(axis=1))
    if rows.shape[1] != info.embed_dim or not np.isfinite(rows).all():
        raise CacheMismatch(
            f"the text tower gives {rows.shape[1]} numbers a text, {model} has {info.embed_dim}",
            fix="give the teacher that the student learnt from.",
        )
    if info.text_mean:
        rows = unit(rows - np.array(info.text_mean, dtype=np.float32))
    return ClassSet(
        labels=tuple(names),
        classes=("",) * len(names),
        texts=tuple(texts[:: len(templates)]),
        embeddings=rows,
    )


def _rows_of(info: ModelInfo, source: TowerSource, texts: Sequence[str]) -> torch.Tensor:
    """Return what a text tower makes of texts [N, D]."""
    cache, device = source.cache, choose_device(source.device)
    if source.teacher_model is not None:
        # Here, because it imports open_clip, which takes seconds and is not there where models are only used.
        from cache.teacher.load import load_teacher

        teacher = load_teacher(
            source.teacher_model,
            pretrained=source.pretrained,
            precision="float32",
            device=device,
            weights_sha256=info.teacher_weights,
        )
        return teacher.embed_texts(texts)[0]
    if cache is None:
        raise WrongOption(
            "--add needs the text tower of the model's teacher, which 'distill texts MODEL' names",
            fix="give --cache, if that keeps one (cache-features --keep-text-tower), or --teacher-model.",
        )
    opened = EmbeddingCache.open(cache)
    if info.source["teacher_name"] in opened.teacher_names:
        opened = opened.teacher_cache(info.source["teacher_name"])
    if opened.fingerprint != info.source["fingerprint"]:
        raise CacheMismatch(
            f"{cache} is of the teacher {opened.fingerprint}, the model of {info.source['fingerprint']}",
            fix="give the cache that the student was trained from.",
        )
    if not opened.text_tower:
        raise UserError(
            f"{cache} keeps no text tower",
            fix="run cache-features again with --keep-text-tower, or give --teacher-model.",
        )
    return TextTower.load(opened.path, files=opened.text_tower, device=device).embed_texts(texts)[0]
