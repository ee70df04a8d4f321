"""What a teacher's config from elsewhere may ask for: no code, no path, no more memory than its weights."""

from __future__ import annotations

import copy
from typing import Any

from cache.runtime.errors import UserError
from cache.runtime.hub_models import check_name, named_values

# All that a tokenizer may be told: how texts are cleaned and cut. Of open_clip's and transformers' other
# options one runs code that lies beside the model, and others read or write files of any name.
TOKENIZER_OPTIONS = (
    *("additional_special_tokens", "clean", "language", "padding_side", "reduction_mask"),
    *("strip_sep_token", "truncation_side", "use_fast"),
)
# The largest that an open_clip model has, and much more.
MOST = {
    **{"image_size": 4096, "context_length": 2**12, "vocab_size": 2**21, "embed_dim": 2**14},
    **{"width": 2**14, "layers": 1024, "n_queries": 2**14, "attn_pooler_queries": 2**14},
    **{"mlp_ratio": 64, "heads": 2**14, "head_width": 2**14, "patch_size": 4096},
}
PARTS = ("vision_cfg", "text_cfg")
# What a config may say of its preprocessing, and with which words; the size is its image tower's.
CHOICES = {"interpolation": ("bicubic", "bilinear"), "resize_mode": ("shortest", "longest", "squash")}
PREPROCESSING = ("mean", "std", "fill_color", *CHOICES)
FIX = "give a folder or repository that open_clip's own tools wrote."


def checked_config(config: Any, *, where: str, weights_bytes: int) -> dict[str, Any]:
    """Return a copy of an open_clip model config, if it is one and asks for nothing that it may not.

    ``weights_bytes`` is the size of the weights that belong to it: a network of more numbers than its file
    has bytes is not built.

    Raises
    ------
    UserError
        If it is no such config, or asks for code, a path, or too much memory; ``where`` is named.
    """
    parts = [config.get(name) for name in PARTS] if isinstance(config, dict) else [None]
    parts += [config["multimodal_cfg"]] if None not in parts and "multimodal_cfg" in config else []
    towers: list[dict[str, Any]] = [part for part in parts if isinstance(part, dict)]
    if len(towers) < len(parts) or "embed_dim" not in config:
        raise UserError(f"{where} is no config of an open_clip model", fix=FIX)
    for name, value in named_values(config):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and not name.startswith("init_logit") and not 0 <= value <= MOST.get(name, 2**24):
            raise UserError(f"{where} asks for a {name} of {value!r:.40}", fix=FIX)
    least = sum(map(_least_numbers, towers))
    if least > weights_bytes:
        raise UserError(
            f"the weights, {weights_bytes:,} bytes, do not fit {where}, which asks for {least:,} numbers",
            fix="give the weights that belong to this config.",
        )
    _check_image_tower(config["vision_cfg"], where)
    _check_text_tower(config["text_cfg"], where)
    return copy.deepcopy(config)


def checked_tokenizer_options(text: dict[str, Any], *, where: str) -> dict[str, Any]:
    """Return the options of a text tower's tokenizer, if all of them are of :data:`TOKENIZER_OPTIONS`.

    Raises
    ------
    UserError
        If there is another; the message names it.
    """
    options = text.get("tokenizer_kwargs") or {}
    if not isinstance(options, dict):
        raise UserError(f"{where}: tokenizer_kwargs is {options!r:.80}, expected a table", fix=FIX)
    for name, value in options.items():
        words = value if isinstance(value, list) else [value]
        if name not in TOKENIZER_OPTIONS or not all(isinstance(word, str | bool) for word in words):
            raise UserError(
                f"{where} gives its tokenizer the option {name} ({value!r:.60}), which is not taken",
                fix=f"take it out of tokenizer_kwargs; what is taken are {', '.join(TOKENIZER_OPTIONS)}.",
            )
    return dict(options)


def checked_preprocessing(given: Any, *, where: str) -> dict[str, Any]:
    """Return what a config says of :data:`PREPROCESSING`, if it is what images can be prepared with.

    Raises
    ------
    UserError
        If it is not; the message names what is odd.
    """
    if not isinstance(given, dict):
        raise UserError(f"{where}: preprocess_cfg is {given!r:.80}, expected a table", fix=FIX)
    asked = {name: value for name, value in given.items() if name in PREPROCESSING}
    for name, value in asked.items():
        if name in CHOICES:
            fits = value in CHOICES[name]
        elif name == "fill_color":
            fits = type(value) is int and 0 <= value <= 255
        else:
            fits = isinstance(value, list | tuple) and len(value) == 3
            fits = fits and all(isinstance(one, int | float) and 0 <= one <= 255 for one in value)
            fits = fits and (name == "mean" or all(value))  # it is what pixels are divided by
        if not fits:
            raise UserError(f"{where}: preprocess_cfg has a {name} of {value!r:.60}", fix=FIX)
    return asked


def sides_of(given: Any) -> tuple[int, int] | None:
    """Return the height and width that a config means by one side or by two; None where it means neither."""
    sides = list(given) if isinstance(given, list | tuple) else [given, given]
    fit = len(sides) == 2 and all(type(side) is int and side >= 0 for side in sides)
    return (sides[0], sides[1]) if fit else None


def _least_numbers(tower: dict[str, Any]) -> int:
    """Return how many weights a tower has at least: of its blocks, and of what it looks up."""
    if tower.get("timm_model_name") or tower.get("hf_model_name"):
        return 0  # whose name says how large it is

    def size(name: str, usual: int = 0) -> int:
        value = tower.get(name, usual)
        return value if isinstance(value, int) else 0

    width, layers = size("width", usual=512), tower.get("layers")
    if isinstance(layers, list):
        # A ResNet: every stage is twice as wide as the one before, and a block of 1, 9 and 1 pixels has four
        # times that outside.
        counts = [count for count in layers if isinstance(count, int)]
        return sum(count * 17 * (width * 2**stage) ** 2 for stage, count in enumerate(counts))
    image, patch = sides_of(tower.get("image_size", 0)), sides_of(tower.get("patch_size", 16))
    patches = (image[0] // max(1, patch[0])) * (image[1] // max(1, patch[1])) if image and patch else 0
    looked_up = (size("vocab_size") + size("context_length") + patches) * width
    return size("layers", usual=12) * 4 * width**2 + looked_up


def _check_image_tower(vision: dict[str, Any], where: str) -> None:
    sides = sides_of(vision.get("image_size", 224))
    if not sides or not all(sides):
        raise UserError(
            f"{where} has an image_size of {vision['image_size']!r:.60}, expected a side or [height, width]",
            fix=FIX,
        )
    name = vision.get("timm_model_name")
    if not name:
        return
    import timm  # here, because it takes a second

    # timm's other names are a folder, or a repository whose config says what is fetched.
    if not isinstance(name, str) or ":" in name or "/" in name or not timm.is_model(name.split(".")[0]):
        raise UserError(f"{where} names the image tower {name!r:.80}, which is no model of timm", fix=FIX)


def _check_text_tower(text: dict[str, Any], where: str) -> None:
    checked_tokenizer_options(text, where=where)
    for key in ("hf_model_name", "hf_tokenizer_name"):
        if name := text.get(key):
            check_name(name, where=f"{where}: {key}")
