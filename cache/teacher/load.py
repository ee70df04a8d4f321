"""A teacher by its name: the one place that knows of which library it is, and imports its adapter."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from cache.runtime.devices import check_compiler
from cache.runtime.errors import UserError
from cache.runtime.own_code import own_code_in
from cache.store.spec import HF_HUB, LOCAL_DIR, TIMM
from cache.teacher.model_files import OPEN_CLIP_CONFIG, config_of
from cache.teacher.teacher import Asked, Teacher

# What a config.json calls the kinds of models that transformers' adapter takes.
OF_TRANSFORMERS = ("clip", "siglip", "siglip2")


def load_teacher(
    model: str,
    *,
    pretrained: str | None = None,
    preprocessing: str = "model",
    precision: str = "auto",
    compile: bool = False,
    device: torch.device | str = "cpu",
    weights_sha256: str | None = None,
) -> Teacher:
    """Load a model and its weights.

    Parameters
    ----------
    model
        A name of open_clip (``ViT-L-14-quickgelu``); ``timm:NAME``, of images alone; ``local-dir:FOLDER`` or
        ``hf-hub:ORG/REPO``, whose config says which library it is of; or ``FILE.py:NAME``, which is run.
    pretrained
        A tag of that model (``openai``) or a checkpoint file; left out where the model brings its own.
    preprocessing
        ``model``: the model's own. ``squash``: 256 x 256 first, as the original research code.
    precision
        ``float32``, ``bfloat16``, ``float16``, or ``auto``: float32 on the CPU, bfloat16 on CUDA
        devices that have it, else float16.
    compile
        Whether the image tower goes through torch.compile: the same rows but for rounding.
    weights_sha256
        The checksum that the weights must have, where the caller knows it.

    Raises
    ------
    UserError
        If it cannot be had, its weights are missing, of another checksum or of another model, a config asks
        for what none may, or there is nothing to ``compile`` with.
    """
    device = torch.device(device)
    if compile:
        check_compiler(device)
    asked = Asked(
        model=model,
        pretrained=pretrained,
        preprocessing=preprocessing,
        precision=precision,
        compile=compile,
        device=device,
        weights_sha256=weights_sha256,
    )
    return _adapter(model, pretrained)(asked)


def _adapter(model: str, pretrained: str | None) -> Callable[[Asked], Teacher]:
    """Return what loads a teacher of that name. Each library takes seconds to import."""
    if own_code_in(model):
        from cache.teacher.own_teacher import load_own

        return load_own
    if model.startswith(TIMM):
        from cache.teacher.timm_teacher import load_timm

        return load_timm
    if model.startswith((LOCAL_DIR, HF_HUB)):
        if pretrained:
            raise UserError(
                f"--pretrained {pretrained} cannot go with {model}, which brings its own weights",
                fix="leave --pretrained out.",
            )
        name, config = config_of(model)
        if name != OPEN_CLIP_CONFIG:
            return _by_config(model, config)
    from cache.teacher.open_clip_teacher import load_open_clip

    return load_open_clip


def _by_config(model: str, config: dict[str, Any]) -> Callable[[Asked], Teacher]:
    """Return what loads a folder of that ``config.json``."""
    home, kind = "cache.teacher.transformers_teacher", config.get("model_type")
    if "architecture" in config:
        from cache.teacher.timm_teacher import load_timm

        return load_timm
    if kind in OF_TRANSFORMERS and find_spec(home):
        load: Callable[[Asked], Teacher] = import_module(home).load_transformers
        return load
    raise UserError(
        f"{model} is a model of another kind ({f'model_type {kind!r:.40}' if kind else 'it names none'})",
        fix=f"give a model of open_clip or timm, or of transformers' {', '.join(OF_TRANSFORMERS)}.",
    )
