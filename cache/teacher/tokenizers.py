"""A teacher's tokenizer: open_clip's own or one of transformers, and the digest that names it."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

# Before open_clip, which imports torchvision itself.
from cache.runtime.torchvision_compat import torchvision  # noqa: F401

# isort: split
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

from cache.runtime.atomic_files import digest, sha256_of
from cache.runtime.errors import UserError, reason_of
from cache.runtime.hub_models import check_tokenizer, files_of_tokenizer, lacks_package
from cache.teacher.config_checks import checked_tokenizer_options
from cache.teacher.weights import TeacherSource


def load_tokenizer(source: TeacherSource) -> tuple[Any, str]:
    """Return a teacher's tokenizer, without code from elsewhere, and the digest that names it.

    Raises
    ------
    UserError
        If it cannot be loaded, or its config asks for what none may.
    """
    text = source.config["text_cfg"]
    options = checked_tokenizer_options(text, where=source.name)
    length, name = text.get("context_length", 77), text.get("hf_tokenizer_name")
    try:
        if not name:
            return own_tokenizer(length, options)
        where, mode = str(source.folder or name), text.get("tokenizer_mode")
        check_tokenizer(where)
        tokenizer = HFTokenizer(
            where, context_length=length, tokenizer_mode=mode, trust_remote_code=False, **options
        )
        files = [sha256_of(file) for file in files_of_tokenizer(tokenizer.tokenizer, where)]
    except UserError:
        raise
    except Exception as error:  # of transformers, of the hub's client, or of an option that it does not know
        raise lacks_package(error) or UserError(
            f"the tokenizer of {source.name} cannot be loaded ({reason_of(error)})",
            fix="give a teacher whose tokenizer open_clip or transformers has.",
        ) from error
    return tokenizer, digest([files, length, mode or "", options])


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
