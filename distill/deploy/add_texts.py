"""New class texts for a shipped model, embedded by its teacher's text tower: ``distill texts --add``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cache import EmbeddingCache
from cache.runtime.atomic_files import check_own_folders
from cache.runtime.devices import choose_device
from cache.runtime.errors import CacheMismatch, UserError, WrongOption
from cache.runtime.locks import only_writer
from cache.sources.names import is_plain_name
from cache.teacher.text_tower import TextTower
from distill.deploy.class_sets import ClassSet, join, unit
from distill.deploy.info import ModelInfo, bank_file

EmbedTexts = Callable[[Sequence[str]], NDArray[np.float32]]


def add_texts(
    model: Path,
    names: Sequence[str],
    *,
    bank: str = "added",
    template: str | None = None,
    cache: Path | None = None,
    teacher_model: str | None = None,
    pretrained: str | None = None,
    device: str = "auto",
) -> list[str]:
    """Embed names and add them to a text bank of a shipped model; return what was new.

    The text tower is what ``cache`` keeps, or that of the named teacher: a model that may be from elsewhere
    says whose texts it takes, and not where to load them from.

    Raises
    ------
    UserError
        If the bank is one that was exported, no text tower is given, or it is of another teacher.
    """
    info = ModelInfo.load(model)
    if info.objects is not None:
        raise UserError(
            f"{model} is a model of episodes, whose objects have a positive and a negative text each",
            fix="make the cache of more episodes, or of other prompts, and export again.",
        )
    if not is_plain_name(bank):
        raise WrongOption(f"--bank {bank!r} cannot name a file", fix="use letters, digits, '.', '_' and '-'.")
    if bank_file(bank) in info.files:
        raise UserError(f"the text bank {bank!r} was exported with the model", fix="choose another --bank.")
    if template is not None and template.count("{}") != 1:
        raise WrongOption(f"--template {template!r} has not one '{{}}'", fix="write it as 'a photo of {}'.")
    form = template or (info.templates[0] if len(info.templates) == 1 else "{}")
    names = list(dict.fromkeys(" ".join(name.split()) for name in names))
    if "" in names:
        raise WrongOption("--add is empty", fix="give a class name or a text.")
    check_own_folders(model)
    with only_writer(model):
        info = ModelInfo.load(model)
        path = model / bank_file(bank)
        known = ClassSet.load(path, embed_dim=info.embed_dim) if bank in info.banks else None
        new = [name for name in names if known is None or known.find(name) is None]
        if not new:
            return []
        embed = _text_tower(info, cache, teacher_model, pretrained, device)
        texts = [form.replace("{}", name) for name in new]
        rows = unit(embed(texts))
        if rows.shape[1] != info.embed_dim or not np.isfinite(rows).all():
            raise CacheMismatch(
                f"the text tower gives {rows.shape[1]} numbers a text, {model} has {info.embed_dim}",
                fix="give the teacher that the student learnt from.",
            )
        added = ClassSet(labels=tuple(new), classes=("",) * len(new), texts=tuple(texts), embeddings=rows)
        (join([known, added]) if known is not None else added).save(path)
        if bank not in info.banks:  # last: a bank that is not listed does not exist
            replace(info, banks=(*info.banks, bank)).save(model)
    return new


def _text_tower(
    info: ModelInfo, cache: Path | None, model: str | None, pretrained: str | None, device: str
) -> EmbedTexts:
    if cache is not None and model is not None:
        raise WrongOption("--cache and --teacher-model are both given", fix="keep one.")
    if pretrained is not None and model is None:
        raise WrongOption("--pretrained is of --teacher-model", fix="give that too, or leave it out.")
    if model is not None:
        return _of_teacher(info, model, pretrained, device)
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
    if not opened.manifest.text_tower:
        raise UserError(
            f"{cache} keeps no text tower",
            fix="run cache-features again with --keep-text-tower, or give --teacher-model.",
        )
    return _of_cache(opened, device)


def _of_cache(cache: EmbeddingCache, device: str) -> EmbedTexts:
    tower = TextTower.load(cache.path, files=cache.manifest.text_tower, device=choose_device(device))

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = tower.embed(tower.tokens(texts)).float().cpu().numpy()
        return found

    return embed


def _of_teacher(info: ModelInfo, model: str, pretrained: str | None, device: str) -> EmbedTexts:
    # Here, because it imports open_clip, which takes seconds and is not there where models are only used.
    from cache.teacher.open_clip_model import load_teacher

    teacher = load_teacher(
        model,
        pretrained=pretrained,
        precision="float32",
        device=choose_device(device),
        weights_sha256=info.teacher_weights,
    )

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        rows, _ = teacher.embed_texts(texts)
        found: NDArray[np.float32] = rows.float().cpu().numpy()
        return found

    return embed
