"""A tokenizer of transformers from the folder of a model, and the digest that names it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cache.runtime.atomic_files import digest, sha256_of
from cache.runtime.errors import UserError, reason_of
from cache.runtime.hub_models import (
    NO_CODE,
    check_tokenizer,
    files_of_tokenizer,
    import_transformers,
    lacks_package,
    quiet_transformers,
)
from cache.teacher.transformers_config import WRITTEN, read_json

# How a version of transformers reads files is seen in what it makes of these.
PROBES = ("a photo of a Dog.", "Two  spaces, ünï-cödé & 12 <x>!", "")
# The files that one may be read from: what texts are cut by, and what is said beside it.
VOCABULARIES = ("tokenizer.json", "vocab.json", "merges.txt", "spiece.model", "tokenizer.model")
TOLD = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
NAMES = (*VOCABULARIES, *TOLD)


@dataclass(frozen=True, kw_only=True)
class FolderTokenizer:
    """Texts -> tokens, padded to ``context_length`` as the model learnt it.

    ``files`` are what it was read from; ``sha256`` is the digest of their bytes and of what it makes of a few
    texts. ``lead`` is how many tokens of every text stand before its own.
    """

    tokenizer: Any
    context_length: int
    files: tuple[Path, ...]
    sha256: str
    lead: int

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return tokens [T, L] int64 of texts, cut where they are too long."""
        found = self.tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self.context_length,
            return_tensors="pt",
            verbose=False,
        )
        ids: Tensor = found["input_ids"]
        return ids

    def whole(self, text: str) -> list[int]:
        """Return all tokens of a text, however long, with those that stand before and after it."""
        return list(self.tokenizer(text, verbose=False)["input_ids"])

    def with_room(self, texts: Sequence[str], n: int) -> Tensor:
        """Return tokens as a call does, with ``n`` more after the first ``lead``, which stand for nothing."""
        if n == 0:
            return self(texts)
        return tokens_with_room(self.tokenizer, texts, context_length=self.context_length, room=n)


def tokens_with_room(tokenizer: Any, texts: Sequence[str], *, context_length: int, room: int) -> Tensor:
    """Return tokens [T, L] of texts by a tokenizer of transformers, with ``room`` more after the first.

    Those stand for nothing: something else takes the place of their vectors.
    """
    end, pad, lead = tokenizer.eos_token_id, tokenizer.pad_token_id, lead_of(tokenizer)
    nothing = [next(token for token in range(3) if token not in (end, pad))] * room
    rows = torch.full((len(texts), context_length), pad, dtype=torch.int64)
    for row, text in zip(rows, texts, strict=True):
        own = list(tokenizer(text, verbose=False)["input_ids"])
        ids = [*own[:lead], *nothing, *own[lead:]]
        if len(ids) > context_length:
            ids = [*ids[: context_length - 1], ids[-1]]
        place = (
            slice(context_length - len(ids), None) if tokenizer.padding_side == "left" else slice(len(ids))
        )
        row[place] = torch.tensor(ids)
    return rows


def lead_of(tokenizer: Any) -> int:
    """Return how many tokens of every text stand before its own: one that begins it, or none."""
    first = list(tokenizer("", verbose=False)["input_ids"])[:1]
    begins = {tokenizer.bos_token_id, tokenizer.cls_token_id} - {None, tokenizer.eos_token_id}
    return len(begins & {*first})


def load_folder_tokenizer(folder: Path, *, context_length: int, vocab_size: int) -> FolderTokenizer:
    """Return the tokenizer that lies in a model's folder; nothing is fetched, and no code of it is run.

    Raises
    ------
    UserError
        If there is none or it is another model's, or a package that it needs is missing.
    """
    # Without one it would be made all the same, of a vocabulary of no words.
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise UserError(f"{folder} has no tokenizer ({', '.join(VOCABULARIES)})", fix=WRITTEN)
    for name in TOLD:
        if (folder / name).is_file():
            read_json(folder / name)  # which refuses what asks for code
    try:
        transformers = import_transformers()
        with quiet_transformers():
            check_tokenizer(str(folder))
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, **NO_CODE
            )
            files = tuple(files_of_tokenizer(tokenizer, str(folder)))
            probed = [list(tokenizer(text)["input_ids"]) for text in PROBES]
    except UserError:
        raise
    except Exception as error:  # of transformers, of tokenizers or of sentencepiece
        raise _unread(folder, error) from error
    if not any(file.name in VOCABULARIES for file in files):
        raise _unread(folder, FileNotFoundError(f"a {type(tokenizer).__name__} reads other files"))
    if len(tokenizer) > vocab_size or tokenizer.pad_token_id is None:
        raise UserError(
            f"the tokenizer in {folder} has {len(tokenizer):,} tokens, the text tower knows {vocab_size:,}",
            fix="put the tokenizer of this very model into the folder.",
        )
    return FolderTokenizer(
        tokenizer=tokenizer,
        context_length=context_length,
        files=files,
        sha256=digest([[sha256_of(file) for file in files], context_length, probed]),
        lead=lead_of(tokenizer),
    )


def _unread(folder: Path, error: Exception) -> UserError:
    if lacking := lacks_package(error, f"the tokenizer in {folder}"):
        return lacking
    return UserError(f"the tokenizer in {folder} cannot be loaded ({reason_of(error)})", fix=WRITTEN)
