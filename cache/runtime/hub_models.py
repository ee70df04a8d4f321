"""What of transformers' models is taken from elsewhere: configs of models that transformers itself has."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cache.runtime.errors import UserError, missing_package

# Never run, nor asked about: code that comes with a model.
NO_CODE: dict[str, Any] = {"trust_remote_code": False}
# What a tokenizer is read from: the one file that says all, and what is said beside it.
WHOLE = "tokenizer.json"
BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def check_name(name: Any, *, where: str) -> None:
    """Raise a UserError unless a name that stands in a file is that of a repository, and no path."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name:
        raise UserError(f"{where} is {name!r:.80}", fix="name a repository of the Hugging Face hub.")


def lacks_package(error: BaseException, what: str) -> UserError | None:
    """Return what to install where that is what a part of transformers lacks; None of another error.

    ``what`` is the part, in words.
    """
    # What it says without sentencepiece is of many types and lines, and it tries tiktoken in its place.
    text = str(error).lower()
    lacks = [name for name in ("sentencepiece", "protobuf") if name in text]
    tries = any(words in text for words in ("tiktoken", "to build an autotokenizer"))
    if tries and find_spec("sentencepiece") is None:
        lacks = ["sentencepiece"]
    if isinstance(error, ImportError) and not lacks:
        lacks = [(error.name or "transformers").partition(".")[0]]
    return (
        missing_package(ImportError(name=f"{lacks[0]}, which {what} takes,"), extra="siglip")
        if lacks
        else None
    )


def check_installed(what: str) -> None:
    """Make sure that there is a transformers, which ``what`` takes; UserError with what to install else."""
    try:
        import_transformers()
    except ImportError as error:
        raise (lacks_package(error, what) or missing_package(error, extra="siglip")) from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' bars and reports off the screen while a part of a model is loaded."""
    logging = import_transformers().utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def import_transformers() -> Any:
    """Return transformers, which does not ask on the terminal either whether code from elsewhere shall run.

    It asks where it was not told :data:`NO_CODE`: what builds a part of a model does not hand that on.
    """
    # Decoding forks workers after a tokenizer was used, of which it would warn each time.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import transformers
    from transformers import dynamic_module_utils

    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # the seconds that it waits for an answer; 0: refused
    return transformers


def check_tokenizer(name: str) -> None:
    """Make sure that what a folder or repository calls its tokenizer is one of transformers'.

    By the name ``tokenizer_class`` transformers takes whatever it has, models too.

    Raises
    ------
    UserError
        If it is something else of transformers'.
    """
    transformers = import_transformers()
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    configs = [get_tokenizer_config(name, **NO_CODE)]
    with suppress(OSError):  # a tokenizer needs no config.json
        configs.append(transformers.PretrainedConfig.get_config_dict(name, **NO_CODE)[0])
    for called in (str(config.get("tokenizer_class") or "") for config in configs):
        stem = called.removesuffix("Fast")
        if not all(_is_tokenizer(transformers, spelt) for spelt in (called, stem, f"{stem}Fast")):
            raise UserError(
                f"{name} calls its tokenizer {called!r:.60}, which is no tokenizer",
                fix="give a model whose tokenizer_config.json names one of transformers.",
            )


def files_of_tokenizer(tokenizer: Any, where: str) -> list[Path]:
    """Return the files that a tokenizer of transformers was read from, in one order.

    All were looked for when it was loaded: nothing is fetched here, and a file that is missing is nowhere.
    """
    from transformers.utils import cached_file

    def find(name: str) -> Path | None:
        file = cached_file(where, name, local_files_only=True, _raise_exceptions_for_missing_entries=False)
        return Path(file) if file else None

    # One of sentencepiece's own does not look at the file that says all.
    whole = find(WHOLE) if tokenizer.is_fast else None
    first = [whole] if whole else map(find, sorted({*tokenizer.vocab_files_names.values()} - {WHOLE}))
    return [file for file in (*first, *map(find, BESIDE)) if file]


def _is_tokenizer(transformers: Any, name: str) -> bool:
    """Say whether transformers has no more than a tokenizer by a name, or what says why it lacks one."""
    called = getattr(transformers, name, None) if name else None
    if called is None or isinstance(called, transformers.utils.DummyObject):
        return True
    return isinstance(called, type) and issubclass(called, transformers.PreTrainedTokenizerBase)


def checked_model_config(name: str) -> Any:
    """Return the transformers config of a model by its folder or hub name, if it asks for no code.

    Raises
    ------
    UserError
        If it asks for compiled code of the hub, or for weights of another kind than numbers.
    ValueError, OSError
        If transformers does not know the model, or it is not there.
    """
    transformers = import_transformers()
    raw, _ = transformers.PretrainedConfig.get_config_dict(name, **NO_CODE)
    for key, value in named_values(raw):
        if wants_code(key, value):
            raise UserError(
                f"the model {name} asks for {key}={value!r:.60}, which is not taken",
                fix="give a model whose config.json does without.",
            )
    return transformers.AutoConfig.from_pretrained(name, **NO_CODE)


def wants_code(key: str, value: Any) -> bool:
    """Say whether a part of a config asks for compiled code, or for weights that need some."""
    # ORG/NAME is a kernel, which transformers would fetch from the hub and run.
    compiled = key.lstrip("_").endswith(("attn_implementation", "experts_implementation"))
    return (compiled and "/" in str(value)) or (key in ("quantization_config", "use_kernels") and bool(value))


def check_text_model(name: str) -> None:
    """Make sure that a text tower by this name is built by transformers' own code alone; raises as above."""
    config, models = checked_model_config(name), import_transformers().AutoModel
    if type(config) not in models._model_mapping:
        raise ValueError(f"transformers has no model of the type {config.model_type}")


def named_values(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield everything that a config says, at any depth, with the name that it stands under."""
    yield name, value
    inner = value.items() if isinstance(value, dict) else ()
    for key, part in [(name, part) for part in value] if isinstance(value, list) else inner:
        yield from named_values(part, str(key))
