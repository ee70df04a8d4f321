"""What of transformers' models is taken from elsewhere: configs of models that transformers itself has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cache.errors import UserError

# Never run, nor asked about: code that comes with a model.
NO_CODE: dict[str, Any] = {"trust_remote_code": False}
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def check_name(name: Any, *, where: str) -> None:
    """Raise a UserError unless a name that stands in a file is that of a repository, and no path."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name:
        raise UserError(f"{where} is {name!r:.80}", fix="name a repository of the Hugging Face hub.")


def checked_model_config(name: str) -> Any:
    """Return the transformers config of a model by its folder or hub name, if it asks for no code.

    Raises
    ------
    UserError
        If it asks for compiled code of the hub, or for weights of another kind than numbers.
    ValueError, OSError
        If transformers does not know the model, or it is not there.
    """
    import transformers

    raw, _ = transformers.PretrainedConfig.get_config_dict(name, **NO_CODE)
    for key, value in _entries(raw):
        # ORG/NAME is a kernel, which transformers would fetch from the hub and run.
        compiled = key.lstrip("_").endswith(("attn_implementation", "experts_implementation"))
        if (compiled and "/" in str(value)) or (key in ("quantization_config", "use_kernels") and value):
            raise UserError(
                f"the model {name} asks for {key}={value!r:.60}, which is not taken",
                fix="give a model whose config.json does without.",
            )
    return transformers.AutoConfig.from_pretrained(name, **NO_CODE)


def check_text_model(name: str) -> None:
    """Make sure that a text tower by this name is built by transformers' own code alone; raises as above."""
    import transformers

    config, known = checked_model_config(name), transformers.AutoModel
    if type(config) not in known._model_mapping:
        raise ValueError(f"transformers has no model of the type {config.model_type}")


def _entries(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield str(name), part
            yield from _entries(part, str(name))
    elif isinstance(value, list):
        for part in value:
            yield from _entries(part, key)
