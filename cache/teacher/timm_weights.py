"""Where timm's models come from: from a name or a folder to a checked config and file of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# Before timm, which imports torchvision itself.
from cache.runtime.torchvision_compat import torchvision  # noqa: F401

# isort: split
import timm

from cache.runtime.atomic_files import digest
from cache.runtime.errors import UserError, nearest_names, some_of
from cache.store.spec import HF_HUB, LOCAL_DIR, TIMM
from cache.teacher.config_checks import MOST, sides_of
from cache.teacher.kinds import near_teachers
from cache.teacher.model_files import CONFIG, config_of, file_of
from cache.teacher.state_files import check_asked, fitting, read_state, sha256_without_code
from cache.teacher.teacher import Asked

# What timm's own tools call the weights in a folder, the first that is there.
NAMES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
# What of a network is not the affair of a config from elsewhere.
REFUSED = (
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"),
    *("features_only", "device", "dtype", "pruned"),
)
# The largest that a network of timm has, and much more: of those that take time or memory before any weight.
LARGEST = {**MOST, "img_size": 4096, "depth": 1024, "depths": 1024}
# What is by the weights and by what a teacher is: three colours in, no classes out.
OURS = ("num_classes", "in_chans")
# What of a pretrained_cfg is taken: how pictures are prepared, and where the classifier is.
PREPARED = ("input_size", "fixed_input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
TAKEN = (*PREPARED, "num_classes", "classifier", "first_conv")
INTERPOLATIONS = ("bicubic", "bilinear", "lanczos", "nearest", "box", "hamming")
CROPS = ("center", "squash", "border")
FIX = "give a folder or repository that timm's own tools wrote."


@dataclass(frozen=True, kw_only=True)
class TimmSource:
    """Where a model of timm's comes from: its ``architecture``, what that takes, and its weights.

    ``cfg`` are checked parts of timm's own config of weights, ``pretrained`` what names these.
    """

    name: str
    architecture: str
    arguments: dict[str, Any]
    cfg: dict[str, Any]
    pretrained: str
    weights: Path
    weights_sha256: str

    @property
    def digest(self) -> str:
        """What names the network, weights aside."""
        return digest({"architecture": self.architecture, "model_args": self.arguments})


def resolve_timm(asked: Asked) -> TimmSource:
    """Return where a model of timm's comes from; a tag's or repository's files are downloaded.

    Raises
    ------
    UserError
        If no model or tag has the name, weights are missing or of another checksum, or a config asks for
        what none may.
    """
    source = _named(asked) if asked.model.startswith(TIMM) else _of_folder(asked.model)
    check_asked(source.weights, source.weights_sha256, asked.weights_sha256)
    return source


def built(source: TimmSource) -> nn.Module:
    """Return the network with its weights, every one of them from the file, and without a classifier.

    Raises
    ------
    UserError
        If config and weights do not fit each other.
    """
    with fitting(source.weights, source.name):
        network = _fitted(source, read_state(source.weights))
    network.reset_classifier(0)  # type: ignore[operator]
    return network.eval().requires_grad_(False)


def _fitted(source: TimmSource, state: Mapping[str, Tensor]) -> nn.Module:
    seen, told = _classes_in(state, source.cfg), int(source.cfg.get("num_classes") or 0)
    try:
        return _loaded(source, state, seen)
    except RuntimeError:
        if told == seen:
            raise
        # Of weights in the words of another library, which timm translates, the classifier was not found.
        return _loaded(source, state, told)


def _loaded(source: TimmSource, state: Mapping[str, Tensor], classes: int) -> nn.Module:
    held = source.weights.stat().st_size
    with torch.device("meta"):  # which takes no memory
        blank = timm.create_model(source.architecture, num_classes=classes, **source.arguments)
    asked = sum(part.numel() for part in blank.parameters())
    if asked > held:
        raise UserError(
            f"the weights, {held:,} bytes, do not fit {source.name}, which asks for {asked:,} numbers",
            fix="give the weights that belong to it.",
        )
    # As many classes as the file has: timm then takes no file that lacks a weight or has one more.
    own = {**source.cfg, "num_classes": classes, "state_dict": dict(state)}
    return timm.create_model(
        source.architecture,
        pretrained=True,
        pretrained_cfg={**own, "architecture": source.architecture},
        num_classes=classes,
        **source.arguments,
    )


def _classes_in(state: Mapping[str, Tensor], cfg: Mapping[str, Any]) -> int:
    """Return how many classes the weights tell apart; 0 where they have no classifier of its usual name."""
    names = cfg.get("classifier") or ()
    first = names if isinstance(names, str) else next(iter(names), "")
    weight = state.get(f"{first}.weight")
    return 0 if weight is None else len(weight)


def _named(asked: Asked) -> TimmSource:
    given = asked.model.removeprefix(TIMM)
    name, _, tag = given.partition(".")
    if not timm.is_model(name):
        near = near_teachers(asked.model)
        raise UserError(f"timm has no model called {name!r:.80}", fix=f"{near}give timm:NAME.")
    tags = [one.partition(".")[2] for one in timm.list_pretrained(f"{name}.*")]
    pretrained = asked.pretrained or tag
    file = Path(pretrained)
    if not pretrained or (not file.is_file() and pretrained not in tags):
        lacks = f"has no weights called {pretrained!r:.80}" if pretrained else "needs weights"
        raise UserError(
            f"timm's {name} {lacks}",
            fix=f"{nearest_names(pretrained, tags)}give --pretrained with a checkpoint file"
            f"{f' or one of {some_of(tags, 8)}' if tags else ''}.",
        )
    is_tag = pretrained in tags and not file.is_file()
    # Of a file nobody says how it wants its pictures; as the weights that are named, or else the usual ones.
    whose = pretrained if is_tag else tag
    cfg: Any = timm.models.get_pretrained_cfg(f"{name}.{whose}" if whose in tags else name)
    table = cfg.to_dict() if cfg else {}
    weights = _of_tag(name, pretrained, table) if is_tag else file
    return _checked(asked.model, name, table, weights=weights, pretrained=pretrained)


def _of_tag(name: str, tag: str, cfg: Mapping[str, Any]) -> Path:
    """Return the file of published weights, which is downloaded from the hub where it is not here."""
    if not cfg.get("hf_hub_id"):
        raise UserError(
            f"the weights {tag!r} of timm's {name} are at {cfg.get('url') or 'no address'}, not on the hub",
            fix="download them and give that file with --pretrained.",
        )
    repository = f"{HF_HUB}{cfg['hf_hub_id']}"
    return _weights_in(repository, [cfg["hf_hub_filename"]] if cfg.get("hf_hub_filename") else NAMES)


def _weights_in(model: str, names: Sequence[str] = NAMES) -> Path:
    if file := file_of(model, *names):
        return file
    raise UserError(
        f"{model.removeprefix(LOCAL_DIR)} has no weights file ({', '.join(names)})",
        fix=f"put {names[0]} beside its {CONFIG}.",
    )


def _of_folder(model: str) -> TimmSource:
    config = config_of(model)[1]
    where, name = f"{model.removeprefix(LOCAL_DIR)}/{CONFIG}", config.get("architecture")
    # timm's other names are a folder, or a repository whose config says what is fetched.
    if not isinstance(name, str) or not name.isidentifier() or not timm.is_model(name):
        raise UserError(f"{where} names the architecture {name!r:.80}, which is no model of timm", fix=FIX)
    arguments, given = config.get("model_args", {}), config.get("pretrained_cfg", config)
    if not isinstance(arguments, dict) or not isinstance(given, dict):
        raise UserError(f"{where} is no config of a model of timm's", fix=FIX)
    known: Any = timm.models.get_pretrained_cfg(name)
    usual = {key: (known.to_dict() if known else {}).get(key) for key in ("classifier", "first_conv")}
    classes = config.get("num_classes", given.get("num_classes"))
    table = {**usual, **given, "num_classes": classes}
    arguments = _checked_arguments(arguments, where)
    if given.get("fixed_input_size") and (sides := sides_of(arguments.get("img_size"))):
        table["input_size"] = (3, *sides)  # which files of older versions do not say
    return _checked(model, name, table, weights=_weights_in(model), pretrained="its own", arguments=arguments)


def _checked(
    model: str, name: str, table: Mapping[str, Any], *, weights: Path, pretrained: str, arguments: Any = None
) -> TimmSource:
    cfg = {key: table[key] for key in TAKEN if table.get(key) is not None}
    _check_cfg(cfg, model)
    return TimmSource(
        name=model,
        architecture=name,
        arguments=arguments or {},
        cfg=cfg,
        pretrained=pretrained,
        weights=weights,
        weights_sha256=sha256_without_code(weights),
    )


def _checked_arguments(arguments: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return what a network may be told: words and numbers, none too large, but its inputs and outputs.

    UserError where there is anything else.
    """
    taken = {}
    for name, value in arguments.items():
        parts = value if isinstance(value, list) else [value]
        fits = name not in REFUSED and all(isinstance(one, str | int | float | bool | None) for one in parts)
        numbers = [one for one in parts if isinstance(one, int | float) and not isinstance(one, bool)]
        fits = fits and all(-1 <= one <= LARGEST.get(name, 2**14) for one in numbers)
        if not fits or (name == "in_chans" and value != 3):
            raise UserError(f"{where}: model_args has a {name} of {value!r:.60}, which is not taken", fix=FIX)
        if name not in OURS and value is not None:
            taken[name] = value
    return taken


def _check_cfg(cfg: Mapping[str, Any], where: str) -> None:
    """Raise a UserError unless a config says what images can be prepared with."""

    def three(value: Any, least: float, most: float) -> bool:
        is_list = isinstance(value, list | tuple) and len(value) == 3
        return is_list and all(isinstance(one, int | float) and least <= one <= most for one in value)

    def names(value: Any) -> bool:
        return all(isinstance(one, str) for one in ([value] if isinstance(value, str) else value))

    fits = {
        "input_size": lambda value: three(value, 1, 4096) and value[0] == 3,
        "fixed_input_size": lambda value: isinstance(value, bool),
        "interpolation": lambda value: value in INTERPOLATIONS,
        "crop_pct": lambda value: isinstance(value, int | float) and 0.05 <= value <= 1,
        "crop_mode": lambda value: value in CROPS,
        "mean": lambda value: three(value, 0, 255),
        "std": lambda value: three(value, 1e-6, 255),
        "num_classes": lambda value: type(value) is int and 0 <= value <= 2**21,
        "classifier": names,
        "first_conv": names,
    }
    for name, value in cfg.items():
        try:
            good = fits[name](value)
        except TypeError:
            good = False
        if not good:
            raise UserError(f"{where}: its config has a {name} of {value!r:.60}", fix=FIX)
