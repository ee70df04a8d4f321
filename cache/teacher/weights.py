"""Where a teacher's weights come from: from a name to a checked file and config."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before open_clip, which imports torchvision itself.
from cache.runtime.torchvision_compat import torchvision  # noqa: F401

# isort: split
import open_clip
from open_clip.factory import get_model_config

from cache.runtime.atomic_files import digest
from cache.runtime.errors import UserError, nearest_names, reason_of
from cache.runtime.hub_models import check_installed
from cache.runtime.system_errors import kept_fix
from cache.store.spec import HF_HUB, LOCAL_DIR
from cache.teacher.config_checks import checked_config
from cache.teacher.fetched import fetch_pretrained, fetch_repository
from cache.teacher.kinds import open_clip_name
from cache.teacher.model_files import OPEN_CLIP_CONFIG, file_of, json_of, unreachable
from cache.teacher.state_files import check_asked, is_torchscript
from cache.teacher.weight_files import checked_sha256

# Of a model's tags that an error lists; a model may have thirty.
TAGS = 8
ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".npz")


@dataclass(frozen=True, kw_only=True)
class TeacherSource:
    """Where a teacher comes from, once every name and checksum has been looked at.

    ``name`` is open_clip's of a model, or the folder's or repository's that brings its ``config`` and
    ``preprocessing``; ``architecture`` is the digest of that config, ``folder`` that folder, where it is one.
    """

    name: str
    weights: Path
    weights_sha256: str
    architecture: str
    config: dict[str, Any]
    preprocessing: dict[str, Any]
    folder: Path | None = None


def resolve(model: str, pretrained: str | None, *, weights_sha256: str | None = None) -> TeacherSource:
    """Return where a teacher comes from; a tag's or repository's files are downloaded.

    ``model`` is an open_clip name (``ViT-L-14-quickgelu``), ``local-dir:FOLDER`` or ``hf-hub:ORG/REPO``;
    ``pretrained`` is a tag of that model (``openai``) or a checkpoint file, left out with the two prefixes.
    ``weights_sha256`` is the checksum that the weights must have, where the caller knows it. It is compared
    before a byte of them is parsed, as is the one that open_clip or the hub knows.

    Raises
    ------
    UserError
        If no model or tag has the name, weights are missing, of another checksum or of another activation,
        or a config asks for what none may.
    """
    if model.startswith((LOCAL_DIR, HF_HUB)):
        source = _from_local_dir(model) if model.startswith(LOCAL_DIR) else _from_hub(model)
    else:
        source = _from_name(open_clip_name(model), pretrained)
    check_asked(source.weights, source.weights_sha256, weights_sha256)
    return source


def model_config(model: str) -> dict[str, Any]:
    """Return open_clip's config of a model, which is named as for :func:`resolve`.

    Raises
    ------
    UserError
        If no model has the name.
    """
    if model.startswith((LOCAL_DIR, HF_HUB)):
        return resolve(model, None).config
    return dict(get_model_config(open_clip_name(model)))


def hub_name(model: str, pretrained: str) -> str:
    """Return the hub's repository of a model's weights, ``ORG/NAME``; '' where open_clip knows of none."""
    known = open_clip.get_pretrained_cfg(model.replace("/", "-"), pretrained) or {}
    return "/".join(str(known.get("hf_hub") or "").split("/")[:2])


def _from_name(name: str, pretrained: str | None) -> TeacherSource:
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not pretrained:
        raise UserError(f"{name} needs weights", fix=f"give --pretrained with {_tags_or_file(tags)}.")
    text = get_model_config(name)["text_cfg"]
    if text.get("hf_tokenizer_name") or text.get("hf_model_name"):
        check_installed(f"the tokenizer of {name}")  # before gigabytes are fetched
    config: dict[str, Any] = {}
    if Path(pretrained).is_file():
        weights = Path(pretrained)
        if weights.suffix not in ENDINGS:
            raise UserError(f"{weights} is no weights file", fix=f"give one of {', '.join(ENDINGS)}.")
        sha256 = checked_sha256(weights)
        _check_activation(name, _file_wants_quick_gelu(weights), str(weights))
    else:
        config = open_clip.get_pretrained_cfg(name, pretrained)
        if not config:
            _refuse_weights_name(name, pretrained, tags)
        _check_activation(name, bool(config.get("quick_gelu", False)), f"{pretrained!r}")
        try:
            fetch_pretrained(config)
            with quiet_open_clip():
                weights = Path(open_clip.download_pretrained(config))
        # The download goes through urllib or the hub's client; each has its own family of errors.
        except Exception as error:
            raise UserError(
                f"the weights {pretrained!r} of {name} could not be downloaded ({reason_of(error)})",
                fix=kept_fix(error) or "connect to the network, or give a checkpoint file with --pretrained.",
            ) from error
        sha256 = checked_sha256(weights)
    architecture = get_model_config(name)
    return TeacherSource(
        name=name,
        weights=weights,
        weights_sha256=sha256,
        architecture=digest(architecture),  # of what this version of open_clip means by the name
        config=architecture,
        preprocessing=config,
    )


def _tags_or_file(tags: Sequence[str]) -> str:
    more = f" and {len(tags) - TAGS} more" if len(tags) > TAGS else ""
    return f"a checkpoint file or one of {', '.join(tags[:TAGS])}{more}" if tags else "a checkpoint file"


def _refuse_weights_name(name: str, pretrained: str, tags: Sequence[str]) -> None:
    if "/" in pretrained or Path(pretrained).suffix in ENDINGS:
        parent = Path(pretrained).parent
        near = nearest_names(
            Path(pretrained).name, [p.name for p in parent.glob("*")] if parent.is_dir() else []
        )
        raise UserError(f"the weights file {pretrained} does not exist", fix=f"{near}check --pretrained.")
    raise UserError(
        f"{name} has no weights called {pretrained!r}",
        fix=f"{nearest_names(pretrained, tags)}give --pretrained with {_tags_or_file(tags)}.",
    )


def _file_wants_quick_gelu(file: Path) -> bool | None:
    """Say whether a checkpoint was trained with QuickGELU; None when its file does not tell."""
    if is_torchscript(file):
        return True  # OpenAI's own archives, and all of them use QuickGELU
    for model, tag in open_clip.list_pretrained():
        config = open_clip.get_pretrained_cfg(model, tag)
        if file.name != "open_clip_pytorch_model.bin" and Path(config.get("url", "")).name == file.name:
            return bool(config.get("quick_gelu", False))
    return None


def _check_activation(name: str, wanted: bool | None, weights: str) -> None:
    has = bool((get_model_config(name) or {}).get("quick_gelu", False))
    if wanted is None or wanted == has:
        return
    right = f"{name}-quickgelu" if wanted else name.removesuffix("-quickgelu")
    raise UserError(
        f"the weights {weights} were trained {'with' if wanted else 'without'} QuickGELU, but {name} runs "
        f"{'with' if has else 'without'} it: every embedding would be wrong",
        fix=f"use --model {right}.",
    )


def _from_local_dir(model: str) -> TeacherSource:
    folder = Path(model.removeprefix(LOCAL_DIR))
    config = _config_file(model)
    with quiet_open_clip():
        weights = open_clip.factory._find_checkpoint_in_dir(folder)
    if weights is None:
        raise UserError(
            f"{folder} has no weights file (*.safetensors, *.bin or *.pth)",
            fix=f"put open_clip_model.safetensors beside its {OPEN_CLIP_CONFIG}.",
        )
    return _with_own_config(model, config, Path(weights), folder=folder)


def _from_hub(model: str) -> TeacherSource:
    try:
        weights = fetch_repository(model.removeprefix(HF_HUB))
    except Exception as error:  # the hub's client has a family of errors of its own
        raise unreachable(model, error) from error
    return _with_own_config(model, _config_file(model), weights, folder=None)


def _config_file(model: str) -> Path:
    file = file_of(model, OPEN_CLIP_CONFIG)
    if file is None:
        folder = Path(model.removeprefix(LOCAL_DIR))
        there = model.startswith(HF_HUB) or folder.is_dir()
        raise UserError(
            f"{folder} {f'has no {OPEN_CLIP_CONFIG}' if there else 'does not exist'}",
            fix=f"give a folder with {OPEN_CLIP_CONFIG} and its weights.",
        )
    return file


def _with_own_config(model: str, config: Path, weights: Path, *, folder: Path | None) -> TeacherSource:
    """Return a source whose config is read here, once: what is checked is what is built."""
    value = json_of(config)
    sha256 = checked_sha256(weights)
    given = value.get("model_cfg", value)
    checked = checked_config(given, where=str(config), weights_bytes=weights.stat().st_size)
    return TeacherSource(
        name=model,
        weights=weights,
        weights_sha256=sha256,
        architecture=digest(given),
        config=checked,
        preprocessing=value.get("preprocess_cfg") or {},
        folder=folder,
    )


@contextlib.contextmanager
def quiet_open_clip() -> Iterator[None]:
    """Keep open_clip from the root logger, where it writes what we either check ourselves or raise."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
