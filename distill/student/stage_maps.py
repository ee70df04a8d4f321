"""The maps of a trunk's stages: of timm's models as they give them, of others by torchvision's extractor."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.proxy import TraceError

from distill.student.parts import head_of

# Fewer blocks than these, and those of the largest are looked at instead.
FEW = 4
_NO_STAGES = (nn.Dropout, nn.Identity, nn.Flatten)

# What torch.fx says of a network that branches on its values, and timm's of one that gives no maps.
_UNTRACEABLE = (TraceError, TypeError, ValueError, RuntimeError, AssertionError)

Taken = Callable[[nn.Module, Tensor], Sequence[Tensor]]
"""Gives the maps of every stage of a trunk for images."""


@dataclass(frozen=True, kw_only=True)
class StageMaps:
    """A trunk without its head, and the maps of its stages: [B, C, H, W], [B, H, W, C] or tokens [B, N, C].

    ``positions`` are the axes of each that are no channels, ``widths`` its channels.
    """

    trunk: nn.Module
    taken: Taken
    positions: tuple[tuple[int, ...], ...]
    widths: tuple[int, ...]


@dataclass(frozen=True)
class _Timm:
    """Stages as timm gives them; ``first`` are left out, ``last`` says whether what comes last is another."""

    options: dict[str, Any]
    first: int
    last: bool

    def __call__(self, trunk: Any, images: Tensor) -> Sequence[Tensor]:
        """Return the maps."""
        final, maps = trunk.forward_intermediates(images, **self.options)
        return [*maps[self.first :], *([final] if self.last else [])]


def _extracted(trunk: nn.Module, images: Tensor) -> Sequence[Tensor]:
    return list(trunk(images).values())


def maps_of(student: nn.Module, image_size: int) -> StageMaps | None:
    """Return the maps of a student's stages, and its trunk; None where it gives none.

    The student is not to be used afterwards: its trunk is taken out of it.
    """
    training = student.training
    generator = torch.Generator().manual_seed(0)
    # Not zeros: two maps that differ would look the same.
    images = torch.rand(1, 3, image_size, image_size, generator=generator)
    try:
        with torch.no_grad():
            student.eval()
            if hasattr(student, "forward_intermediates"):
                return _of_timm(student, images)
            return _of_any(student, images)
    finally:
        student.train(training)


def _of_timm(student: Any, images: Tensor) -> StageMaps | None:
    student.reset_classifier(0)
    known = inspect.signature(student.forward_intermediates).parameters
    # Of EfficientNets and their kin every block; the first is the stem there.
    options = {"extra_blocks": True} if "extra_blocks" in known else {}
    try:
        final, maps = student.forward_intermediates(images, **options)
    except _UNTRACEABLE:
        return None
    last = final.shape != maps[-1].shape or not torch.equal(final, maps[-1])
    taken = _Timm(options, first=len(options), last=last)
    return _described(student, taken, [*maps[taken.first :], *([final] if last else [])])


def _of_any(student: nn.Module, images: Tensor) -> StageMaps | None:
    from cache.runtime.torchvision_compat import torchvision  # here, because it takes a second

    names = _stage_names(student, images)
    if not names:
        return None
    try:
        trunk = torchvision.models.feature_extraction.create_feature_extractor(
            student, {name: f"stage{i}" for i, name in enumerate(names)}
        )
        maps = _extracted(trunk, images)
    except _UNTRACEABLE:
        return None
    return _described(trunk, _extracted, maps)


def _described(trunk: nn.Module, taken: Taken, maps: Sequence[Tensor]) -> StageMaps:
    last = [_channels_last(stage) for stage in maps]
    return StageMaps(
        trunk=trunk,
        taken=taken,
        positions=tuple(
            tuple(range(1, stage.dim() - 1)) if at_end else tuple(range(2, stage.dim()))
            for stage, at_end in zip(maps, last, strict=True)
        ),
        widths=tuple(stage.shape[-1 if at_end else 1] for stage, at_end in zip(maps, last, strict=True)),
    )


def _channels_last(stage: Tensor) -> bool:
    """Say whether a map's channels come last: tokens' do, and those of a map that is square before them."""
    if stage.dim() == 3:
        return True
    return stage.shape[1] == stage.shape[2] != stage.shape[3]


def _stage_names(student: nn.Module, images: Tensor) -> list[str]:
    """Return the modules that end the stages of any network: its blocks and what gives the last map.

    Blocks are modules with modules of their own, side by side; of a network without, the last module of every
    resolution.
    """
    names = _side_by_side(student)
    shapes = _shapes_of(student, names, images)
    blocks = [name for name in shapes if _is_block(student.get_submodule(name))]
    if len(blocks) < 2:
        blocks = list({shape[2:]: name for name, shape in shapes.items()}.values())
    last = next(reversed(shapes), None)
    return blocks if last is None or last in blocks else [*blocks, last]


def _is_block(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


def _side_by_side(student: nn.Module) -> list[str]:
    """Return the names of modules that lie side by side, the head's left out."""
    head = head_of(student)
    names = [name for name, _ in student.named_children()]
    while True:
        blocks = [
            name
            for name in names
            if _is_block(part := student.get_submodule(name))
            and all(one is not head for one in part.modules())
        ]
        names = [name for name in names if name in blocks or not _is_block(student.get_submodule(name))]
        if len(blocks) >= FEW or not blocks:
            return names
        largest = max(blocks, key=lambda name: _size(student.get_submodule(name)))
        at = names.index(largest)
        inside = [f"{largest}.{name}" for name, _ in student.get_submodule(largest).named_children()]
        names[at : at + 1] = inside


def _size(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())


def _shapes_of(student: nn.Module, names: Sequence[str], images: Tensor) -> dict[str, torch.Size]:
    """Return the shapes of the maps that modules give, in the order in which they are called."""
    shapes: dict[str, torch.Size] = {}
    hooks = []
    for name in names:
        module = student.get_submodule(name)
        if isinstance(module, _NO_STAGES) or "Pool" in type(module).__name__:
            continue

        def note(_: nn.Module, __: Any, output: Any, name: str = name) -> None:
            if isinstance(output, Tensor) and output.dim() in (3, 4):
                shapes[name] = output.shape

        hooks.append(module.register_forward_hook(note))
    try:
        student(images)
    finally:
        for hook in hooks:
            hook.remove()
    return shapes
