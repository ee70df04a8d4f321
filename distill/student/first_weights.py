"""First weights, found before any work is done: that they can be had, and where they come from.

Those that are published are loaded for that, once for all the students of a process that begin with them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cache.runtime.downloads import hub_file
from cache.runtime.errors import UserError
from distill.config import PRETRAINED, SCRATCH, StudentConfig
from distill.student.architecture import Architecture, no_weights
from distill.student.build import Origin
from distill.student.names import TIMM, TORCHVISION, timm_module, torchvision_models
from distill.student.weights_files import OTHER_START

# Of a hub that does not answer: its client's own tries take a minute.
SECONDS = 10.0
# What timm loads of a repository, the first that is there.
FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(kw_only=True)
class FirstWeights:
    """Finds first weights, and keeps those that are published for the next student of the same network."""

    _kept: dict[Any, Any] = field(default_factory=dict)

    def find(self, config: StudentConfig, origin: Origin) -> tuple[str, Origin]:
        """Return where a student's first weights come from, in words, and what it is built from.

        Of one that was made before the words are ''. Published weights are fetched, unless they lie here
        already. UserError where they cannot be had: another start is never taken in their place.
        """
        if origin.made is not None or config.start != PRETRAINED:
            return ("" if origin.made is not None else _of_config(config)), origin
        network = (config.arch, config.kwargs, config.image_size)
        if network not in self._kept:
            self._kept[network] = _published(config, origin)
        words, weights = self._kept[network]
        return words, replace(origin, published=weights)


def _of_config(config: StudentConfig) -> str:
    if config.start == SCRATCH:
        return "random weights (scratch)"
    if not Path(config.start).is_file():
        raise UserError(f"the weights file {config.start} does not exist", fix=OTHER_START)
    return f"the file {config.start}"


def _published(config: StudentConfig, origin: Origin) -> tuple[str, Any]:
    """Return where a network's published weights come from, in words, and the weights."""
    architecture = Architecture.of(config.arch, config.kwargs, config.image_size, code=origin.code, hub=None)
    where = ""
    if architecture.library == TORCHVISION:
        where = f", {torchvision_models().get_model_weights(architecture.name).DEFAULT.url}"
    elif architecture.library == TIMM and (repository := _repository(architecture)):
        _check_hub(config.arch, repository)
        _fetch(config.arch, repository)
        where = f", {repository} on the hub"
    return f"the pretrained weights of {config.arch}{where}", architecture.published()


def _repository(architecture: Architecture) -> str:
    """Return which repository of the Hugging Face hub timm loads a network's weights from, '' of none."""
    if architecture.hub:
        return architecture.arch.partition(":")[2]
    told = timm_module().get_pretrained_cfg(architecture.name, allow_unregistered=True)
    return str((told and told.hf_hub_id) or "")


def _check_hub(arch: str, repository: str) -> None:
    """Make sure that a repository's weights lie here, or that the hub answers; UserError else."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    if any(isinstance(try_to_load_from_cache(repository, name), str) for name in FILES):
        return
    try:
        HfApi().model_info(repository, timeout=SECONDS)
    except Exception as error:  # the hub's client has a family of errors of its own
        raise no_weights(arch, error) from error


def _fetch(arch: str, repository: str) -> None:
    """Fetch a repository's weights to where timm looks for them; other files it fetches itself."""
    if "@" in repository:  # another revision than the hub's own
        return
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        hub_file(repository, *FILES)
    except LocalEntryNotFoundError as error:
        raise no_weights(arch, error) from error
    except EntryNotFoundError:
        return
    except Exception as error:  # the hub's client has a family of errors of its own
        raise no_weights(arch, error) from error
