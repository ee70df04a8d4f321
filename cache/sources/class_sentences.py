"""Several sentences a class, as CuPL writes them: a ``.json`` file ``{"CLASS": ["SENTENCE", ...], ...}``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.runtime.atomic_files import read_text
from cache.runtime.errors import UserError, some_of
from cache.sources.class_texts import DESCRIPTION_TEMPLATE, BankTexts, file_bank

# What a data folder calls such a file.
SENTENCES = "descriptions.json"
JSON = ".json"


def described_bank(path: Path, names: Mapping[str, str], *, required: Sequence[str]) -> BankTexts:
    """Return the bank ``descriptions`` of a file of sentences: ``a photo of NAME . SENTENCE``, averaged.

    Raises
    ------
    UserError
        As :func:`sentence_bank`, or if one of the classes ``required`` has no sentence.
    """
    bank = sentence_bank(path, names, template=DESCRIPTION_TEMPLATE)
    missing = [name for name in required if name not in {*bank.classes}]
    if missing:
        raise UserError(
            f"{path} has no sentence of {some_of([*map(repr, missing)])}",
            fix='add "CLASS": ["SENTENCE", ...] for each.',
        )
    return bank


def text_bank_of(path: Path, names: Mapping[str, str], *, others: bool = False) -> BankTexts:
    """Return a bank, called as its file, of the sentences of a ``.json`` or the lines of any other file.

    See :func:`sentence_bank`, and :func:`cache.sources.class_texts.file_bank` for the lines.
    """
    if path.suffix.lower() == JSON:
        return sentence_bank(path, names, name=path.stem, others=others)
    return file_bank(path, names, others=others)


def sentence_bank(
    path: Path,
    names: Mapping[str, str],
    *,
    name: str = "descriptions",
    template: str = "{}",
    others: bool = False,
) -> BankTexts:
    """Return a bank of sentences, those of a class averaged, in a template of none, or of name and sentence.

    A class is called as its folder or as in ``names``, whatever the case, with spaces or ``_``. Others are
    counted, or with ``others`` are classes too.

    Raises
    ------
    UserError
        If the file is no such JSON, tells one class twice, or none of ``names``.
    """
    folder_of = {_folded(word): folder for folder, word in names.items()}
    folder_of |= {_folded(folder): folder for folder in names}
    sentences: dict[str, tuple[str, ...]] = {}
    unused: list[str] = []
    for called, texts in _sentences(path).items():
        folder = folder_of.get(_folded(called), called if others else "")
        if not folder:
            unused.append(called)
        elif folder in sentences:
            raise UserError(f"{path} tells of the class {folder!r} twice", fix="make them one list.")
        else:
            sentences[folder] = texts
    if not sentences:
        raise UserError(
            f"{path} tells of none of the classes: of {some_of([*map(repr, unused)])}",
            fix=f"call them as the folders or names, such as {next(iter(names), '')!r}.",
        )
    pairs = [(folder, text) for folder, texts in sentences.items() for text in texts]
    more = f" ({len(unused):,} of its classes are not in the data)" if unused else ""
    worded = template != "{}"
    return BankTexts(
        name=name,
        texts=tuple(template.format(names[folder], text) if worded else text for folder, text in pairs),
        classes=tuple(folder for folder, _ in pairs),
        templates=(template,),
        source=f"{path.name}, by name{more}",
    )


def _sentences(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        table = json.loads(read_text(path), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is no JSON of sentences ({error})", fix='write {"CLASS": ["SENTENCE", ...], ...}.'
        ) from error
    if not isinstance(table, dict) or not table:
        raise UserError(f"{path} tells of no class", fix='write {"CLASS": ["SENTENCE", ...], ...}.')
    return {called: _texts(path, called, texts) for called, texts in table.items()}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a class is there twice")
    return table


def _texts(path: Path, called: str, texts: Any) -> tuple[str, ...]:
    own = [texts] if isinstance(texts, str) else texts
    if not isinstance(own, list) or not own or not all(isinstance(one, str) and one.strip() for one in own):
        raise UserError(f"{path}: {called!r:.80} has no sentences", fix='write "CLASS": ["SENTENCE", ...].')
    return tuple(dict.fromkeys(_storable(path, " ".join(one.split())) for one in own))


def _storable(path: Path, text: str) -> str:
    try:
        if b"\0" not in text.encode():
            return text
    except UnicodeEncodeError:
        pass
    raise UserError(f"{path}: {text!r:.60} holds a zero byte or half a character", fix="mend it.")


def _folded(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())
