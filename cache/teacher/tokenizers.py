"""A teacher's tokenizer: open_clip's own or one of transformers, and the digest that names it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Before open_clip, which imports torchvision itself.
from cache.runtime.torchvision_compat import torchvision  # noqa: F401

# isort: split
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

from cache.runtime.atomic_files import digest, sha256_of
from cache.runtime.errors import UserError, reason_of
from cache.runtime.hub_models import check_tokenizer, files_of_tokenizer, lacks_package, quiet_transformers
from cache.teacher.config_checks import checked_tokenizer_options
from cache.teacher.folder_tokenizer import PROBES, lead_of, tokens_with_room

PLACEHOLDER = "X"


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """A tokenizer of open_clip's, its own or around one of transformers, which was read from ``files``.

    ``sha256`` is the digest that names it.
    """

    tokenizer: Any
    sha256: str
    files: tuple[Path, ...] = ()

    @property
    def is_clips(self) -> bool:
        """Whether it is the one that CLIP learnt with."""
        return hasattr(self.tokenizer, "sot_token_id")

    @property
    def context_length(self) -> int:
        """How many tokens of a text are taken at most."""
        return int(getattr(self.tokenizer, "context_length", 77))

    @property
    def lead(self) -> int:
        """How many tokens of every text stand before its own."""
        return 1 if self.is_clips else lead_of(self.tokenizer.tokenizer)

    def __call__(self, texts: Sequence[str], *, room: int = 0) -> Tensor:
        """Return tokens [T, L] of texts, with ``room`` more after the first, which stand for nothing."""
        if self.is_clips or not room:
            tokens: Tensor = self.tokenizer([f"{PLACEHOLDER} " * room + text for text in texts])
            return tokens
        inner, clean = self.tokenizer.tokenizer, self.tokenizer.clean_fn
        length = self.context_length
        tokens = tokens_with_room(inner, list(map(clean, texts)), context_length=length, room=room)
        if self.tokenizer.strip_sep_token:
            tokens = torch.where(tokens == inner.sep_token_id, 0, tokens)
        return tokens

    def is_too_long(self, text: str) -> bool:
        """Say whether a text is cut to fit the context."""
        if self.is_clips:
            return len(self.tokenizer.encode(text)) + 2 > self.context_length
        whole = self.tokenizer.tokenizer(self.tokenizer.clean_fn(text), verbose=False)["input_ids"]
        return len(whole) > self.context_length


def load_tokenizer(text: dict[str, Any], *, where: str, folder: Path | None) -> Tokenizer:
    """Return the tokenizer of a text tower's config, without code from elsewhere.

    ``where`` is named in errors; ``folder`` is the model's, where it has one: its tokenizer lies there.

    Raises
    ------
    UserError
        If it cannot be loaded, or its config asks for what none may.
    """
    options = checked_tokenizer_options(text, where=where)
    length, name = text.get("context_length", 77), text.get("hf_tokenizer_name")
    try:
        if not name:
            own, digest_of_it = own_tokenizer(length, options)
            return Tokenizer(tokenizer=own, sha256=digest_of_it)
        home, mode = str(folder or name), text.get("tokenizer_mode")
        with quiet_transformers():
            check_tokenizer(home)
            tokenizer = HFTokenizer(
                home, context_length=length, tokenizer_mode=mode, trust_remote_code=False, **options
            )
            files = tuple(files_of_tokenizer(tokenizer.tokenizer, home))
            probed = tokenizer(list(PROBES)).tolist()
    except UserError:
        raise
    except Exception as error:  # of transformers, of the hub's client, or of an option that it does not know
        raise lacks_package(error, f"the tokenizer of {where}") or UserError(
            f"the tokenizer of {where} cannot be loaded ({reason_of(error)})",
            fix="give a teacher whose tokenizer open_clip or transformers has.",
        ) from error
    read = [sha256_of(file) for file in files]
    return Tokenizer(
        tokenizer=tokenizer, sha256=digest([read, length, mode or "", options, probed]), files=files
    )


def own_tokenizer(context_length: int, options: dict[str, Any]) -> tuple[SimpleTokenizer, str]:
    """Return open_clip's own tokenizer, and the digest of its vocabulary, its context and its options.

    One serves a whole process: its vocabulary takes as long to read as a small teacher to load.
    """
    return _own_tokenizer(context_length, json.dumps(options))


@lru_cache(maxsize=4)
def _own_tokenizer(context_length: int, options_json: str) -> tuple[SimpleTokenizer, str]:
    options = json.loads(options_json)
    tokenizer = SimpleTokenizer(context_length=context_length, **options)
    vocabulary = [*map(" ".join, tokenizer.bpe_ranks), *map(str, tokenizer.all_special_ids)]
    return tokenizer, digest([vocabulary, context_length, options])
