"""Texts that tell classes apart, and that stay with the classes they were written for."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import CacheMismatch, UserError, quoted, shortened, some_of
from cache.sources.class_texts import BankTexts
from cache.sources.samples import DataFolder
from cache.store.manifest import NAME, Manifest
from cache.store.neighbours import nearest_texts, unit_rows
from cache.store.text_banks import TextBank, load_bank, make_bank
from cache.teacher.sanity import stored

# Unit rows that are nearer than this differ by rounding alone, whatever batch each was in.
SAME_ROW = 1e-5
# A neighbour is looked at only from this cosine on; 1 - SAME_ROW² / 2 is past float32.
NEAR = 0.9999


def check_told_apart(
    bank: BankTexts,
    groups: Sequence[Sequence[str]],
    *,
    tokens: Callable[[Sequence[str]], Sequence[Hashable]] | None = None,
) -> None:
    """Make sure that no two classes of a group have one text: they would tie, and one of them get 0%.

    ``groups`` are class folders that are judged together; ``tokens`` gives what the teacher's tokenizer
    makes of each text. Without it the texts themselves are compared.

    Raises
    ------
    UserError
        If two have; it names both, and the text.
    """
    if bank.may_tie:
        return
    texts_of: dict[str, dict[Hashable, str]] = {}
    for folder, text, key in zip(
        bank.classes, bank.texts, tokens(bank.texts) if tokens else bank.texts, strict=True
    ):
        texts_of.setdefault(folder, {})[key] = text
    for group in groups:
        first: dict[Hashable, str] = {}
        for folder in group:
            keys = frozenset(texts_of.get(folder, ()))
            other = first.setdefault(keys, folder)
            if keys and other != folder:
                one, two = (next(iter(texts_of[name].values())) for name in (other, folder))
                raise _same_text(bank, (other, one), (folder, two))


def _same_text(bank: BankTexts, one: tuple[str, str], other: tuple[str, str]) -> UserError:
    where = f" ({bank.source})" if bank.source else ""
    both = f"the classes {quoted(one[0])} and {quoted(other[0])}"
    if one[1] == other[1]:
        return UserError(
            f"{both} have the same text in the bank {bank.name!r}{where}: {shortened(one[1], 80)}",
            fix="give each class a NAME or text of its own, or make the two one class.",
        )
    return UserError(
        f"{both} have the same text in the bank {bank.name!r}{where} after the teacher's tokenizer, which "
        f"cuts long texts and may drop signs and capitals: {shortened(one[1])} and {shortened(other[1])}",
        fix="put what differs in the first words of each, or shorten them.",
    )


def judged_together(folder: DataFolder, *, shared_classes: bool) -> list[list[str]]:
    """Return which class folders are judged together.

    All are; where a class may be trained on and in the OOD test as well, each split's own.
    """
    if shared_classes:
        return [list(names) for names in folder.classes.values()]
    return [sorted(folder.class_names)]


def alike_classes(bank: TextBank, class_names: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs of classes whose rows point in one direction: the teacher cannot tell them apart."""
    have = {*bank.class_folders}
    names = [name for name in class_names if name in have]
    if len(names) < 2:
        return []
    rows = unit_rows(bank.class_texts(names))
    nearest, similarity = nearest_texts(rows, rows, 2)
    pairs = {
        (min(i, j), max(i, j))
        for i in np.flatnonzero((similarity > NEAR).all(axis=1)).tolist()
        for j in nearest[i].tolist()
        if i != j and float(np.linalg.norm(rows[i] - rows[j])) < SAME_ROW
    }
    return [(names[i], names[j]) for i, j in sorted(pairs)]


def check_bank_rows(name: str, classes: Sequence[str], embeddings: NDArray[Any], *, by_teacher: bool) -> None:
    """Make sure that text embeddings [T, D] from elsewhere can be meant.

    ``by_teacher``: one that is at hand made them; it may give two words that it does not know one row.

    Raises
    ------
    UserError
        If one is not finite or zero, or two classes have the same.
    """
    stored(embeddings, "float32", lambda i: f"row {i} of the text ({name}) embeddings, {classes[i]!r},")
    bank = make_bank(name, classes, classes, embeddings)
    pairs = [] if by_teacher else alike_classes(bank, bank.class_folders)
    if pairs:
        raise UserError(
            f"the text ({name}) embeddings of {pairs[0][0]!r} and {pairs[0][1]!r} are the same row",
            fix="give every class a row of its own.",
        )


def bank_remarks(bank: TextBank, class_names: Sequence[str]) -> list[str]:
    """Return a line where a bank lacks some of a cache's classes, and one where it names others.

    A bank of free texts has no class, and lacks none; a pool alone has the bank's classes.
    """
    if not class_names:
        return []
    have, classes = {*bank.class_folders}, dict.fromkeys(class_names)
    lacking = [name for name in classes if name not in have]
    odd = [name for name in bank.class_folders if name not in classes]
    lines = []
    if have and len(lacking) == len(classes):
        return [
            f"{bank.name}: it names none of the {len(classes):,} classes ({_three(lacking)}), but "
            f"{_three(bank.class_folders)}: nothing is trained or judged with it"
        ]
    if have and lacking:
        lines.append(
            f"{bank.name}: no text for {len(lacking):,} of {len(classes):,} classes ({_three(lacking)}): no "
            "split that has one of them is trained or judged with it"
        )
    if odd:
        lines.append(
            f"{bank.name}: {len(odd):,} of its {len(have):,} classes are none of the cache's ({_three(odd)})"
        )
    return lines


def _three(names: Sequence[str]) -> str:
    return some_of([shortened(name) for name in names])


def positions_note(bank: BankTexts) -> str:
    """Return a line on which class got which text by position, by its first ones."""
    pairs = ", ".join(
        f"{folder} -> {shortened(line)}"
        for folder, line in list(zip(bank.classes, bank.lines, strict=True))[:2]
    )
    return f"{bank.name}: {bank.source}: {pairs}, ..."


def check_positions(cache: Path, banks: Sequence[BankTexts]) -> None:
    """Make sure that a file by position gives no class what it gave another when the cache was made.

    Raises
    ------
    CacheMismatch
        If it does: a class folder was renamed or added, or label2text's lines have another order.
    """
    for bank in banks:
        before = _bank_before(cache, bank.name) if bank.lines else None
        if moved := _moved(bank, before) if before is not None else []:
            moves = "; ".join(
                f"{name!r} would get {shortened(line)}, which {of!r} had" for name, line, of in moved[:3]
            )
            more = f"; and {len(moved) - 3} more classes" if len(moved) > 3 else ""
            raise CacheMismatch(
                f"{bank.name}: {bank.source}, and classes have moved since {cache} was made: {moves}{more}",
                fix="write FOLDER<TAB>TEXT on every line, as 'distill describe' does; or bring the old "
                "names of the folders, or the old order of label2text, back.",
            )


def _bank_before(cache: Path, name: str) -> TextBank | None:
    """Return a bank of a cache that may be of another teacher, or unfinished; None where there is none."""
    if not (cache / NAME).is_file():
        return None
    try:
        listed = Manifest.load(cache).banks.get(name)
        return load_bank(cache / listed.file, name, sha256=listed.sha256) if listed else None
    except UserError:
        return None  # damaged: whoever makes it again says so


def _moved(bank: BankTexts, before: TextBank) -> list[tuple[str, str, str]]:
    """Return (class, its line, whose line that was) of every class that has another class's line now."""
    folders = before.class_folders
    text_of = {folders[i]: text for text, i in zip(before.texts, before.class_index, strict=True) if i >= 0}
    had = _owners(bank, text_of)
    now = set(bank.classes)
    return [
        (folder, line, had[line][0])
        for folder, line in zip(bank.classes, bank.lines, strict=True)
        if had[line] and folder not in had[line] and (folder in text_of or not now.isdisjoint(had[line]))
    ]


def _owners(bank: BankTexts, text_of: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the classes that had each line of a bank: as their text, or behind a prompt and their name."""
    owners: dict[str, list[str]] = {line: [] for line in bank.lines}
    lengths = {len(line) for line in bank.lines}
    for folder, text in text_of.items():
        tails = [text[-length:] for length in lengths if text[:-length].endswith(" ")]
        for tail in [text] if bank.texts == bank.lines else tails:
            if tail in owners:
                owners[tail].append(folder)
    return owners
