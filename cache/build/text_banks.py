"""The text banks of a stage-1 run: checked, embedded, listed, and told of at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cache.build.captions import Captions, caption_counts
from cache.build.distinct_texts import check_told_apart, judged_together
from cache.runtime.atomic_files import digest
from cache.runtime.errors import CacheMismatch
from cache.sources.class_texts import MISSING_CAPTION, BankTexts
from cache.sources.samples import DataFolder
from cache.store.journal import Journal
from cache.store.manifest import Manifest
from cache.store.text_banks import make_bank, save_bank
from cache.teacher.open_clip_model import Teacher
from cache.teacher.sanity import check_texts


def check_banks(
    banks: Sequence[BankTexts], folder: DataFolder, teacher: Teacher, *, shared_classes: bool
) -> None:
    """Make sure that the teacher's tokenizer tells classes apart; see :func:`check_told_apart`."""
    groups = judged_together(folder, shared_classes=shared_classes)
    for bank in banks:
        check_told_apart(bank, groups, tokens=lambda texts: token_ids(teacher, texts))


def _made_from(bank: BankTexts) -> str:
    return digest([bank.texts, bank.classes])


def check_same_texts(manifest: Manifest, out: Path, banks: Sequence[BankTexts]) -> None:
    """Refuse other texts for a bank: students that learnt with it are judged with it later."""
    for bank in banks:
        entry = manifest.banks.get(bank.name)
        if entry is not None and entry.made_from != _made_from(bank):
            raise CacheMismatch(
                f"the text bank {bank.name!r} of {out} was made of other texts than now, which begin "
                f"{bank.texts[0]!r}",
                fix="bring the texts back, choose another --out, or use --rebuild to embed them again.",
            )


def write_banks(manifest: Manifest, out: Path, teacher: Teacher, banks: Sequence[BankTexts]) -> Manifest:
    """Embed the banks that are missing or damaged, and return the manifest that lists all of them."""
    for bank in banks:
        made_from = _made_from(bank)
        listed = manifest.banks.get(bank.name)
        if listed is None or listed.made_from != made_from or not listed.is_sound(out):
            rows, cut = teacher.embed_texts(bank.texts)
            check_texts(rows, bank.texts)
            made = make_bank(bank.name, bank.texts, bank.classes, rows.numpy())
            listed = save_bank(out, made, made_from=made_from, templates=bank.templates, truncated=cut)
        if manifest.banks.get(bank.name) != (listed := replace(listed, source=bank.source)):
            manifest = manifest.with_bank(bank.name, listed)
            manifest.save(out)
    return manifest


def token_ids(teacher: Teacher, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Return what the teacher reads of each text: its tokens, cut to the context."""
    return [tuple(row) for row in teacher.tokenizer(list(texts)).tolist()] if texts else []


def sources_of(
    manifest: Manifest,
    journal: Journal,
    captions: Captions | None = None,
    *,
    captions_from: str = "kept from before",
) -> dict[str, str]:
    """Say of which file each bank and the captions are, and how many images have a caption of their own."""
    lines = {
        f"texts {name}": f"{bank.texts:,}, {bank.source or 'as given'}"
        for name, bank in manifest.banks.items()
    }
    counts = {name: caption_counts(journal.groups(name)) for name in journal.splits if journal.rows(name)}
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
