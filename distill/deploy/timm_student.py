"""A student as a network of timm's, which is what open_clip and timm load; or why it is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cache.runtime.errors import UserError, reason_of
from distill.deploy.info import ModelInfo
from distill.deploy.onnx_files import UnitEmbedding
from distill.settings import parsed_value
from distill.student.build import build_student
from distill.student.names import OWN, TIMM, TORCHVISION, resolve, timm_module, timm_names
from distill.student.stages import LINEAR

OPEN_CLIP = "open_clip"
LIBRARIES = (OPEN_CLIP, TIMM)
TFLITE = "tflite"
# Between a network of timm's and the student that its weights are of.
SAME = 1e-4
LEAVE_OUT = "leave {} out of --formats"
# What the last features in place of all stages cost on Oxford Flowers-102 (docs/concepts/method.md, "What a
# student's start and data are worth").
STAGES_COST = "on Flowers-102 that cost 5.1 points of ID and 9.7 of OOD accuracy"


@dataclass(frozen=True, kw_only=True)
class TimmStudent:
    """A student's embedding as timm builds it: images [B, 3, S, S] -> raw embeddings [B, D].

    ``name`` is timm's, without the tag of published weights; ``arguments`` are ``create_model``'s;
    ``pool`` is how the last features become one row, in timm's word.
    """

    name: str
    arguments: dict[str, Any]
    network: nn.Module
    pool: str

    @property
    def own(self) -> dict[str, Any]:
        """What timm says of the network (its ``pretrained_cfg``)."""
        network: Any = self.network
        return dict(network.pretrained_cfg)

    @property
    def own_side(self) -> int:
        """The side that timm builds the network for unless it is told another, pixels."""
        known = timm_module().get_pretrained_cfg(self.name, allow_unregistered=True)
        return int((known.input_size if known else (3, 224, 224))[-1])

    @property
    def takes_one_size(self) -> bool:
        """Whether the network is built for one size of images."""
        return bool(self.own.get("fixed_input_size"))


def timm_student(embedding: UnitEmbedding, info: ModelInfo, formats: Sequence[str]) -> TimmStudent:
    """Return a student as a network of timm's, checked to give the same.

    ``formats`` are those that it is for, for messages. UserError if timm has no such network.
    """
    them = " and ".join(formats)
    leave_out = LEAVE_OUT.format(them)
    if info.objects is not None:
        raise UserError(f"{them} hold students of photos, and this one is of episodes", fix=f"{leave_out}.")
    check_head(info, formats)
    library, name = resolve(info.arch)
    if library == OWN or (library == TORCHVISION and name not in timm_names()):
        whose = "is your own code" if library == OWN else "is torchvision's, and no network of timm's"
        raise UserError(
            f"{info.arch} {whose}: {them} build networks of timm",
            fix=f"train with --arch timm:NAME, or {leave_out}; --formats onnx and safetensors take any.",
        )
    try:
        network = build_student(
            f"{TIMM}:{name}", embed_dim=info.embed_dim, kwargs=info.kwargs, image_size=info.image_size
        )
        network.load_state_dict(_state_of(embedding, network, info))
    except (UserError, RuntimeError) as error:
        raise _another(info, them, reason_of(error), leave_out) from error
    network.eval()
    if (far := _distance(embedding, network, info.preprocessing.crop)) > SAME:
        raise _another(info, them, f"its embeddings differ by {far:.2g}", leave_out)
    arguments = {key: parsed_value(value) for key, _, value in (one.partition("=") for one in info.kwargs)}
    known: Any = network
    architecture = str(known.pretrained_cfg.get("architecture") or name)
    return TimmStudent(name=architecture, arguments=arguments, network=network, pool=_pool_of(network))


def check_head(info: ModelInfo, formats: Sequence[str]) -> None:
    """Make sure that a student's head reads the last features alone, as a network of timm's; UserError."""
    them = " and ".join(formats)
    if info.head != LINEAR:
        raise UserError(
            f"this student's head (student.head={info.head}) reads every stage of its trunk, and {them} have "
            "no place for that: their head reads the last features alone",
            fix=f"train with --set student.head={LINEAR} ({STAGES_COST}), or {LEAVE_OUT.format(them)}.",
        )


def _another(info: ModelInfo, them: str, why: str, leave_out: str) -> UserError:
    return UserError(
        f"{info.arch} is another network in timm than this student ({why}), and {them} build it there",
        fix=f"train with --arch timm:NAME, or {leave_out}.",
    )


def _state_of(embedding: UnitEmbedding, network: nn.Module, info: ModelInfo) -> dict[str, torch.Tensor]:
    """Return the student's weights; of several teachers' heads the rows of the one that is shipped."""
    state, wanted = dict(embedding.student.state_dict()), network.state_dict()
    if info.outputs == info.embed_dim:
        return state
    return {
        key: value[embedding.start : embedding.stop]
        if key in wanted and value.shape != wanted[key].shape
        else value
        for key, value in state.items()
    }


@torch.no_grad()
def _distance(embedding: UnitEmbedding, network: nn.Module, side: int) -> float:
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    rows = nn.functional.normalize(network(images).float(), dim=1)
    return float((rows - embedding(images)).abs().max())


def _pool_of(network: nn.Module) -> str:
    """Return timm's word for how a network pools, ``avg`` where it does not say; what loads it is checked."""
    for place in (network, getattr(network, "head", None)):
        pool = getattr(place, "global_pool", None)
        word = pool if isinstance(pool, str) else getattr(pool, "pool_type", None)
        if isinstance(word, str) and word:
            return word
    return "avg"
