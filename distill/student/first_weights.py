"""First weights, found before any work is done: that they can be had, and where they come from."""

from __future__ import annotations

from pathlib import Path

from cache.runtime.errors import UserError
from distill.config import PRETRAINED, SCRATCH, StudentConfig
from distill.student.architecture import Architecture, no_weights
from distill.student.build import Origin
from distill.student.names import OWN, TORCHVISION, timm_module, torchvision_models
from distill.student.weights_files import OTHER_START

# Of a hub that does not answer: its client's own tries take a minute.
SECONDS = 10.0
# What timm loads of a repository, the first that is there.
FILES = ("model.safetensors", "pytorch_model.bin")


def find_first_weights(config: StudentConfig, origin: Origin) -> str:
    """Return where a student's first weights come from, in words; of one that was made before ''.

    Those that are published are fetched, unless they lie here already. UserError where they cannot be had:
    another start is never taken in their place.
    """
    if origin.made is not None:
        return ""
    if config.start == SCRATCH:
        return "random weights (scratch)"
    if config.start != PRETRAINED:
        if not Path(config.start).is_file():
            raise UserError(f"the weights file {config.start} does not exist", fix=OTHER_START)
        return f"the file {config.start}"
    architecture = Architecture.of(config.arch, config.kwargs, config.image_size, code=origin.code, hub=None)
    if architecture.library == OWN:
        raise no_weights(config.arch, ValueError("your own code publishes none"))
    if architecture.library == TORCHVISION:
        architecture.download()
        url = torchvision_models().get_model_weights(architecture.name).DEFAULT.url
        return f"the pretrained weights of {config.arch}, {url}"
    repository = _repository(architecture)
    if repository:
        _check_hub(config.arch, repository)
    architecture.build_pretrained(1)
    return f"the pretrained weights of {config.arch}" + (f", {repository} on the hub" if repository else "")


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
