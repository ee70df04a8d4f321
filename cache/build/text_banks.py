"""The text banks of a stage-1 run: checked, embedded, listed, and told of at its end."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from cache.build.captions import Captions, caption_counts
from cache.build.distinct_texts import check_told_apart, judged_together
from cache.runtime.atomic_files import digest
from cache.runtime.errors import UserError
from cache.runtime.progress import Progress, Silent
from cache.sources.class_texts import MISSING_CAPTION, BankTexts
from cache.sources.samples import DataFolder
from cache.sources.splits import MAIN_TEACHER
from cache.store.journal import Journal
from cache.store.manifest import Manifest
from cache.store.text_banks import TextBank, keep_bank, load_bank, make_bank
from cache.teacher.sanity import check_texts


def check_banks(
    banks: Sequence[BankTexts], folder: DataFolder, teacher: TextEncoder, *, shared_classes: bool
) -> None:
    """Make sure that the teacher's tokenizer tells classes apart; see :func:`check_told_apart`."""
    groups = judged_together(folder, shared_classes=shared_classes)
    for bank in banks:
        check_told_apart(bank, groups, tokens=teacher.token_ids)


class TextEncoder(Protocol):
    """What embeds texts: a teacher, or the text tower that a cache keeps of it."""

    def token_ids(self, texts: Sequence[str]) -> Sequence[tuple[int, ...]]:
        """Return what is read of each text: its tokens, cut to the context."""

    def embed_texts(self, texts: Sequence[str], *, progress: Progress | None = None) -> tuple[Tensor, int]:
        """Return raw embeddings [T, D] float32 on the CPU, and how many texts were too long."""


def name_of_texts(bank: BankTexts) -> str:
    """Return the digest that names a bank's texts and their classes."""
    return digest([bank.texts, bank.classes])


def embedded_bank(
    bank: BankTexts, encoder: TextEncoder, progress: Progress | None = None
) -> tuple[TextBank, dict[str, Any]]:
    """Return a bank with its embeddings, and what its line in the manifest says about it.

    Raises
    ------
    UserError
        If the embeddings cannot be meant.
    """
    progress = progress or Silent()
    progress.start(len(bank.texts), f"embedding the texts {bank.name}", "texts")
    rows, cut = encoder.embed_texts(bank.texts, progress=progress)
    check_texts(rows, bank.texts)
    about = {"templates": bank.templates, "truncated": cut, "source": bank.source}
    return make_bank(bank.name, bank.texts, bank.classes, rows.numpy()), about


def write_banks(
    manifest: Manifest,
    out: Path,
    encoder: TextEncoder,
    banks: Sequence[BankTexts],
    *,
    teacher: str = MAIN_TEACHER,
    progress: Progress | None = None,
) -> Manifest:
    """Embed the banks that are missing, damaged, or of other texts; return the manifest that lists all."""
    for bank in banks:
        make = partial(embedded_bank, bank, encoder, progress)
        manifest = keep_bank(out, manifest, bank.name, make, made_from=name_of_texts(bank), teacher=teacher)
        listed = manifest.of_teacher(teacher).banks[bank.name]
        if listed.source != bank.source:
            manifest = manifest.with_bank(bank.name, replace(listed, source=bank.source), teacher=teacher)
            manifest.save(out)
    return manifest


def changed_texts(
    manifest: Manifest,
    out: Path,
    banks: Sequence[BankTexts],
    *,
    teacher: str = MAIN_TEACHER,
    said: Container[str] = (),
) -> tuple[str, ...]:
    """Return which banks have other texts than a cache has, and of how many classes.

    A bank that only gained or lost classes of ``said``, which are told of already, is left out.
    """
    changed = []
    for bank in banks:
        listed = manifest.of_teacher(teacher).banks.get(bank.name)
        if listed is None or listed.made_from == name_of_texts(bank):
            continue
        try:
            before = load_bank(out / listed.file, bank.name, sha256=listed.sha256)
        except UserError:
            changed.append(bank.name)  # damaged, and made again
            continue
        folders = [before.class_folders[i] if i >= 0 else "" for i in before.class_index.tolist()]
        if words := _difference(_by_class(folders, before.texts), _by_class(bank.classes, bank.texts), said):
            changed.append(f"{bank.name} ({words})")
    return tuple(changed)


def _by_class(classes: Iterable[str], texts: Iterable[str]) -> dict[str, list[str]]:
    by_class: dict[str, list[str]] = {}
    for name, text in zip(classes, texts, strict=True):
        by_class.setdefault(name, []).append(text)
    return by_class


def _difference(
    before: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]], said: Container[str]
) -> str:
    changed = sum(before[name] != now[name] for name in before.keys() & now.keys())
    added, gone = now.keys() - before.keys(), before.keys() - now.keys()
    counts = [f"{changed:,} of {len(now):,} classes"] if changed else []
    counts += [f"{len(names):,} {what}" for names, what in ((added, "added"), (gone, "removed")) if names]
    if not changed and all(name in said for name in added | gone):
        return "" if added or gone else "in another order"
    return ", ".join(counts)


def sources_of(
    manifest: Manifest,
    journal: Journal,
    captions: Captions | None = None,
    *,
    captions_from: str = "kept from before",
    teacher: str = MAIN_TEACHER,
) -> dict[str, str]:
    """Say of which file each bank and the captions are, and how many images have a caption of their own."""
    lines = {
        f"texts {name}": f"{bank.texts:,}, {bank.source or 'as given'}"
        for name, bank in manifest.of_teacher(teacher).banks.items()
    }
    if not lines:
        lines["texts"] = "none"
    counts = {
        name: caption_counts(journal.groups(name), teacher=teacher)
        for name in journal.splits
        if journal.rows(name)
    }
    if any(own or missing for own, missing, _ in counts.values()):
        own = [f"{name} {count:,} of {journal.rows(name):,}" for name, (count, _, _) in counts.items()]
        missing = any(count < journal.rows(name) for name, (count, _, _) in counts.items())
        others = "none" if captions and captions.embeddings else f"{MISSING_CAPTION!r}"
        lines["captions"] = (
            f"{captions.source if captions else captions_from}: {', '.join(own)} images have their own"
            f"{f', the others {others}' if missing else ''}"
        )
        if captions and captions.unused:
            lines["captions"] += (
                f"; {len(captions.unused):,} keys are no image's ({captions.unused[0]!r}, ...)"
            )
    return lines
