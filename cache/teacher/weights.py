"""The weights of a teacher: from a name to tensors, and nothing else that a file may hold.

With :mod:`cache.teacher.open_clip_model` the only importer of open_clip.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# Before open_clip, which imports torchvision itself.
from cache.runtime.torchvision_compat import torchvision  # noqa: F401

# isort: split
import open_clip
from open_clip.convert import convert_state_dict, load_big_vision_weights
from open_clip.factory import get_model_config
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed

from cache.runtime.atomic_files import digest, sha256_of
from cache.runtime.errors import CacheMismatch, UserError, nearest_names, reason_of
from cache.store.spec import HF_HUB, LOCAL_DIR
from cache.teacher.config_checks import checked_config

CONFIG = "open_clip_config.json"
ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".npz")
# What OpenAI's archives hold beside their weights.
SIZES = ("input_resolution", "context_length", "vocab_size")


@dataclass(frozen=True, kw_only=True)
class TeacherSource:
    """Where a teacher comes from, once every name and checksum has been looked at.

    ``name`` is open_clip's of a model, or the folder's or repository's that brings its ``config`` and
    ``preprocessing``; ``folder`` is that folder, where it is one.
    """

    name: str
    weights: Path
    weights_sha256: str
    architecture: str
    config: dict[str, Any]
    preprocessing: dict[str, Any]
    own_config: bool = False
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
        if pretrained:
            raise UserError(
                f"--pretrained {pretrained} cannot go with {model}, which brings its own weights",
                fix="leave --pretrained out.",
            )
        source = _from_local_dir(model) if model.startswith(LOCAL_DIR) else _from_hub(model)
    else:
        source = _from_name(open_clip_name(model), pretrained)
    if weights_sha256 is not None and source.weights_sha256 != weights_sha256:
        raise CacheMismatch(
            f"the weights {source.weights} are not the ones that were asked for (their checksum differs)",
            fix="give the teacher that the embeddings are of.",
        )
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


def open_clip_name(model: str) -> str:
    """Return open_clip's name of a model; UserError with near names where there is none."""
    name = model.replace("/", "-")
    if name not in open_clip.list_models():
        raise UserError(
            f"no teacher is called {model!r}",
            fix=f"{nearest_names(name, open_clip.list_models())}give an open_clip name, local-dir:FOLDER or "
            "hf-hub:ORG/REPO.",
        )
    return name


def load_into(network: nn.Module, source: TeacherSource) -> None:
    """Read a teacher's weights into its network.

    Nothing but numbers is read of a file. The one exception are OpenAI's own archives, which are TorchScript:
    their checksums tell them.

    Raises
    ------
    UserError
        If the file may hold code.
    Exception
        Of many kinds, where it is broken or of another network.
    """
    if source.weights.suffix == ".npz":  # of big_vision: numpy's plain arrays
        load_big_vision_weights(network, str(source.weights))  # type: ignore[arg-type]
        return
    state = convert_state_dict(network, _state_dict(source.weights, source.weights_sha256))  # type: ignore[arg-type]
    model: Any = network
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):  # a number, or one in a row
        own = getattr(model, name, None)
        if name in state and own is not None:
            state[name] = state[name].reshape(own.shape)
    if getattr(model, "logit_bias", None) is not None and "logit_bias" not in state:
        state["logit_bias"] = torch.zeros_like(state["logit_scale"])
    unused = "text.transformer.embeddings.position_ids"
    if unused in state and not hasattr(model, unused):
        del state[unused]
    resize_pos_embed(state, network)
    resize_text_pos_embed(state, network)
    network.load_state_dict(state)


def _state_dict(path: Path, sha256: str) -> dict[str, Tensor]:
    state: Any
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(path)
    elif is_torchscript(path):
        check_torchscript(path, sha256)
        state = torch.jit.load(path, map_location="cpu").state_dict()
        state = {name: value for name, value in state.items() if name not in SIZES}
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError("it holds no state dict")
    # What DistributedDataParallel puts before every name.
    return {key.removeprefix("module."): value for key, value in state.items()}


def is_torchscript(path: Path) -> bool:
    """Say whether a file may be a TorchScript archive, which torch runs when it loads it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())


def check_torchscript(path: Path, sha256: str) -> None:
    """Raise a UserError unless a TorchScript archive is one of OpenAI's, by its checksum."""
    # They stand in the addresses that open_clip has of them.
    if sha256 not in {Path(url).parent.name for url in _urls() if "/openaipublic." in url}:
        raise UserError(
            f"{path} looks like a TorchScript archive, which is a program, and is none of OpenAI's own "
            f"(sha256 {sha256[:16]}...)",
            fix="save the model's state dict as .safetensors where you trust it, and give that.",
        )


def _urls() -> frozenset[str]:
    configs = (open_clip.get_pretrained_cfg(model, tag) for model, tag in open_clip.list_pretrained())
    return frozenset(config["url"] for config in configs if config.get("url"))


def _checked_sha256(file: Path) -> str:
    """Return the SHA-256 of weights that hold no program, having compared it with what their name says of it.

    The hub keeps a file under its checksum, and open_clip's releases carry the first digits in their names.
    """
    sha256 = sha256_of(file)
    blob = file.resolve().name
    is_release = any(Path(url).name == file.name for url in _urls())
    released = re.search(r"-([0-9a-f]{8})\.pth?$", file.name) if is_release else None
    wanted = blob if re.fullmatch(r"[0-9a-f]{64}", blob) else released[1] if released else ""
    if not sha256.startswith(wanted):
        raise UserError(
            f"the weights {file} differ from their checksum ({sha256[:16]}..., expected {wanted[:16]})",
            fix="remove the file and fetch it again.",
        )
    if is_torchscript(file):
        check_torchscript(file, sha256)
    return sha256


def _from_name(name: str, pretrained: str | None) -> TeacherSource:
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not pretrained:
        raise UserError(f"{name} needs weights", fix=f"give --pretrained with {_tags_or_file(tags)}.")
    config: dict[str, Any] = {}
    if Path(pretrained).is_file():
        weights = Path(pretrained)
        if weights.suffix not in ENDINGS:
            raise UserError(f"{weights} is no weights file", fix=f"give one of {', '.join(ENDINGS)}.")
        sha256 = _checked_sha256(weights)
        _check_activation(name, _file_wants_quick_gelu(weights), str(weights))
    else:
        config = open_clip.get_pretrained_cfg(name, pretrained)
        if not config:
            _refuse_weights_name(name, pretrained, tags)
        _check_activation(name, bool(config.get("quick_gelu", False)), f"{pretrained!r}")
        try:
            with quiet_open_clip():
                weights = Path(open_clip.download_pretrained(config))
        # The download goes through urllib or the hub's client; each has its own family of errors.
        except Exception as error:
            raise UserError(
                f"the weights {pretrained!r} of {name} could not be downloaded ({reason_of(error)})",
                fix="connect to the network, or give a checkpoint file with --pretrained.",
            ) from error
        sha256 = _checked_sha256(weights)
    return TeacherSource(
        name=name,
        weights=weights,
        weights_sha256=sha256,
        architecture=name,
        config=dict(get_model_config(name)),
        preprocessing=config,
    )


def _tags_or_file(tags: Sequence[str]) -> str:
    return f"a checkpoint file or one of {', '.join(tags)}" if tags else "a checkpoint file"


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
    config = folder / CONFIG
    if not config.is_file():
        raise UserError(
            f"{folder} {f'has no {CONFIG}' if folder.is_dir() else 'does not exist'}",
            fix=f"give a folder with {CONFIG} and its weights.",
        )
    with quiet_open_clip():
        weights = open_clip.factory._find_checkpoint_in_dir(folder)
    if weights is None:
        raise UserError(
            f"{folder} has no weights file (*.safetensors, *.bin or *.pth)",
            fix=f"put open_clip_model.safetensors beside its {CONFIG}.",
        )
    return _with_own_config(model, config, Path(weights), folder=folder)


def _from_hub(model: str) -> TeacherSource:
    from open_clip.pretrained import download_pretrained_from_hf

    repository = model.removeprefix(HF_HUB)
    try:
        with quiet_open_clip():
            weights = Path(download_pretrained_from_hf(repository))
            config = Path(download_pretrained_from_hf(repository, filename=CONFIG))
    except Exception as error:  # the hub's client has a family of errors of its own
        raise UserError(
            f"{model} could not be fetched ({reason_of(error)})",
            fix="check the name and the network, or download the folder and give local-dir:FOLDER.",
        ) from error
    return _with_own_config(model, config, weights, folder=None)


def _with_own_config(model: str, config: Path, weights: Path, *, folder: Path | None) -> TeacherSource:
    """Return a source whose config is read here, once: what is checked is what is built."""
    try:
        value = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{config} is not valid JSON ({reason_of(error)})", fix="save the model's config again."
        ) from error
    sha256 = _checked_sha256(weights)
    given = value.get("model_cfg", value) if isinstance(value, dict) else value
    checked = checked_config(given, where=str(config), weights_bytes=weights.stat().st_size)
    return TeacherSource(
        name=model,
        weights=weights,
        weights_sha256=sha256,
        architecture=digest(given),
        config=checked,
        preprocessing=value.get("preprocess_cfg") or {},
        own_config=True,
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
