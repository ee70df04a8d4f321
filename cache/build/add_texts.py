"""A new text bank in a finished cache, by its teacher: what ``distill cache add-texts`` calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cache.build.distinct_texts import bank_remarks, check_positions, check_told_apart, positions_note
from cache.build.text_banks import TextEncoder, embedded_bank, name_of_texts
from cache.build.text_options import TextOptions
from cache.reader import EmbeddingCache
from cache.runtime.devices import choose_device
from cache.runtime.errors import CacheMismatch, UserError
from cache.runtime.own_code import own_code_in
from cache.runtime.progress import Progress
from cache.sources.class_sentences import text_bank_of
from cache.sources.class_texts import BankTexts, class_names_of, template_bank
from cache.sources.splits import MAIN_TEACHER
from cache.store.manifest_lines import ListedBank
from cache.store.spec import PRECISIONS, SQUASH, TIMM
from cache.store.text_banks import add_bank, words_of_labels
from cache.teacher.templates import templates_of
from cache.teacher.text_tower import KEEP, TextTower

if TYPE_CHECKING:
    import torch

# The one that cache-features takes where none is named.
MODEL = "ViT-L-14-quickgelu"


def add_texts(
    cache: Path, options: TextOptions, *, progress: Progress | None = None
) -> tuple[ListedBank, list[str]]:
    """Embed texts and add them to a cache as a bank; return its line, and what should be said of it.

    Raises
    ------
    UserError
        If the cache is not finished or has another bank of that name, two classes have one text, or nothing
        is there that embeds texts as the teacher did.
    """
    opened = EmbeddingCache.open(cache).teacher_cache(options.teacher)
    classes = sorted({name for split in opened.manifest.splits.values() for name in split})
    bank = _texts(opened, options, classes)
    if options.teacher == MAIN_TEACHER:
        check_positions(cache, [bank])
    groups = _judged_together(opened, classes)
    check_told_apart(bank, groups)
    encoder = _encoder(opened, options)
    check_told_apart(bank, groups, tokens=encoder.token_ids)
    listed = add_bank(
        cache,
        bank.name,
        lambda: embedded_bank(bank, encoder, progress),
        made_from=name_of_texts(bank),
        replaces=options.replaces,
        teacher=options.teacher,
    )
    kept = EmbeddingCache.open(cache).teacher_cache(options.teacher).text_bank(bank.name)
    return listed, [*([positions_note(bank)] if bank.lines else []), *bank_remarks(kept, classes)]


def _texts(cache: EmbeddingCache, options: TextOptions, classes: Sequence[str]) -> BankTexts:
    if options.label2text:
        names, named_by = class_names_of(options.label2text, classes), f"{options.label2text.name}, by name"
    else:
        names, named_by = _names(cache, classes), "the cache's class names"
    if options.text_file is None:
        return template_bank(options.bank, names, templates_of(options.templates), source=named_by)
    bank = replace(text_bank_of(options.text_file, names, others=True), name=options.bank)
    return bank.in_templates(templates_of(options.templates)) if options.templates else bank


def _names(cache: EmbeddingCache, classes: Sequence[str]) -> dict[str, str]:
    """Return the classes by their folders as the cache was told them, in that order; then the others."""
    told = {}
    if "labels" in cache.bank_names:
        told = words_of_labels(cache.text_bank("labels"), cache.listed_bank("labels").templates)
    return told | class_names_of(None, [name for name in classes if name not in told])


def _judged_together(cache: EmbeddingCache, classes: Sequence[str]) -> list[Sequence[str]]:
    """Return which classes are judged together: all, or each split's where train and OOD test share some."""
    splits = cache.manifest.splits
    shared = set(splits.get("train", ())) & set(splits.get("ood_test", ()))
    return list(splits.values()) if shared else [classes]


def _encoder(cache: EmbeddingCache, options: TextOptions) -> TextEncoder:
    device = choose_device(options.device)
    if options.model is not None or options.pretrained is not None:
        return given_teacher(cache, options.model or MODEL, options.pretrained, device)
    if not cache.text_tower:
        raise _no_tower(cache)
    return TextTower.load(cache.path, files=cache.text_tower, device=device)


def _no_tower(cache: EmbeddingCache) -> UserError:
    """Return the error for a cache that keeps no text tower, by what its teacher is."""
    model = cache.teacher_spec.model
    if model.startswith(TIMM):
        return UserError(
            f"the teacher {model} of {cache.path} reads no texts",
            fix="use --from-images: class means stand in for texts.",
        )
    give = f"give --model {model}" if ":" in model else "give --pretrained"
    return UserError(
        f"the cache {cache.path} keeps no text tower of its teacher",
        fix=f"{give} with where the file is." if own_code_in(model) else f"{give}, or {KEEP}",
    )


def given_teacher(
    cache: EmbeddingCache, model: str, pretrained: str | None, device: torch.device
) -> TextEncoder:
    """Load the teacher that is named.

    Raises
    ------
    UserError
        If it cannot be had, or is not the cache's, as far as that is known.
    """
    from cache.teacher.load import load_teacher  # here, because it takes seconds to import

    spec = cache.teacher_spec
    teacher = load_teacher(
        model,
        pretrained=pretrained,
        preprocessing=SQUASH if spec.preprocessing == SQUASH else "model",
        precision=spec.precision if spec.precision in PRECISIONS else "auto",
        device=device,
        weights_sha256=None if cache.is_imported else spec.weights_sha256,
    )
    odd = [
        teacher.spec.called(name)
        for name in ("architecture", "tokenizer")
        if getattr(teacher.spec, name) != getattr(spec, name)
    ]
    if teacher.embed_dim != cache.embed_dim:
        odd = [f"embed_dim ({teacher.embed_dim} and {cache.embed_dim})"]
    elif cache.is_imported:
        odd = []  # nobody knows of what
    if odd:
        raise CacheMismatch(
            f"the teacher is not that of {cache.path}: they differ in their {' and '.join(odd)}",
            fix="give the teacher, its code and the version of its library, that the cache was made with.",
        )
    return teacher
