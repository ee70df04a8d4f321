"""Text banks that were embedded elsewhere: each joins those that are there, and drops none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.build.distinct_texts import SAME_ROW, bank_remarks
from cache.runtime.atomic_files import digest
from cache.runtime.errors import CacheMismatch, UserError, some_of
from cache.store.manifest import Manifest
from cache.store.neighbours import unit_rows
from cache.store.text_banks import TextBank, keep_bank, load_bank, make_bank


@dataclass(frozen=True, kw_only=True)
class ImportedTexts:
    """A text bank made elsewhere: embeddings [T, D] and the class folder of each.

    ``source`` says in words what they are of.
    """

    name: str
    classes: Sequence[str]
    embeddings: NDArray[Any]
    texts: Sequence[str] | None = None
    source: str = ""

    def bank(self) -> TextBank:
        """Return it as a cache keeps it; a text that nobody told is its class's name."""
        words = self.texts if self.texts is not None else self.classes
        return make_bank(self.name, words, self.classes, self.embeddings)

    def made(self) -> tuple[TextBank, dict[str, Any]]:
        """Return the bank, and what its line in the manifest says about it."""
        return self.bank(), {"source": self.source}


def check_banks_grow(cache: Path, manifest: Manifest, given: Sequence[ImportedTexts]) -> None:
    """Make sure that no bank of a cache would give a class another row: students learnt with it.

    Raises
    ------
    CacheMismatch
        If one would.
    """
    for texts in given:
        listed = manifest.banks.get(texts.name)
        try:
            before = load_bank(cache / listed.file, texts.name, sha256=listed.sha256) if listed else None
        except UserError:
            continue  # damaged: it is made again
        now = texts.bank()
        both = sorted({*before.class_folders} & {*now.class_folders}) if before else []
        if before is None or not both:
            continue
        # A teacher that embeds the same texts again may differ in the last bits.
        away = unit_rows(before.class_texts(both)) - unit_rows(now.class_texts(both))
        differ = np.linalg.norm(away, axis=1) > SAME_ROW
        if differ.any():
            odd = [both[i] for i in np.flatnonzero(differ).tolist()]
            raise CacheMismatch(
                f"the text bank {texts.name!r} of {cache} has other rows of {some_of(odd)}",
                fix="choose another --bank, or another --out.",
            )


def add_banks(
    cache: Path, manifest: Manifest, given: Sequence[ImportedTexts], note: Callable[[str], None]
) -> Manifest:
    """Write the banks that are not there as they are given; return the manifest that lists them.

    ``note`` is told which classes of the cache a bank lacks, and which it names that are none.
    """
    classes = sorted({name for split in manifest.splits.values() for name in split})
    for texts in given:
        bank = texts.bank()
        rows = [] if texts.texts else [sha256(np.ascontiguousarray(bank.embeddings).data).hexdigest()]
        made_from = digest([bank.texts, list(texts.classes), *rows])
        manifest = keep_bank(cache, manifest, texts.name, texts.made, made_from=made_from)
        for line in bank_remarks(bank, classes):
            note(line)
    return manifest
