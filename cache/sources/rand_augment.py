"""RandAugment of whole batches, drawn for every image on its own (Cubuk et al., 2020).

What an image goes through is drawn as numbers first, so that a student of any size is shown what the teacher
was shown. Torchvision's operations, name for name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor

    Operation = Callable[[Tensor, float], Tensor]

# As in the original research code; torchvision counts magnitudes in 31 bins.
NUM_OPS, MAGNITUDE, BINS = 2, 9, 31


def draw_operations(draws: int, generator: Generator, *, num_ops: int = NUM_OPS) -> Tensor:
    """Return which operations each of some images goes through, int64 [num_ops, draws].

    Two numbers an operation: the even one with its magnitude, the odd one with its negative.
    """
    import torch

    drawn = []
    for _ in range(num_ops):
        operation = torch.randint(len(operations()), (draws,), generator=generator)
        negative = torch.rand(draws, generator=generator) < 0.5
        drawn.append(operation * 2 + negative.long())
    return torch.stack(drawn)


def operations_of_seeds(seeds: list[int], *, num_ops: int) -> Tensor:
    """Return what images go through whose seeds these are, as :func:`draw_operations`: [num_ops, B]."""
    import torch

    if not num_ops or not seeds:
        return torch.zeros((num_ops, len(seeds)), dtype=torch.int64)
    generator = torch.Generator()
    return torch.cat(
        [draw_operations(1, generator.manual_seed(seed), num_ops=num_ops) for seed in seeds], dim=1
    )


def rand_augment(images: Tensor, operation_OB: Tensor, *, magnitude: int = MAGNITUDE) -> Tensor:
    """Return uint8 images [B, 3, R, R] after their operations, which are on the CPU.

    Images that drew the same operation and sign go through it together.
    """
    from cache.runtime.transfer import to_device

    table = [*operations(magnitude).values()]
    for number_B in operation_OB:
        out = images.clone()
        for value in number_B.unique().tolist():
            chosen = to_device((number_B == value).nonzero()[:, 0], images.device)
            out[chosen] = table[value // 2](images[chosen], -1.0 if value % 2 else 1.0)
        images = out
    return images


def _share(magnitude: int, top: float) -> float:
    import torch

    # As torchvision has it, rounded to float32: otherwise pixels differ from its own by one level.
    return float(torch.linspace(0.0, top, BINS)[magnitude])


def _functional() -> ModuleType:
    from cache.runtime.torchvision_compat import torchvision  # here, because it takes a second

    functional: ModuleType = torchvision.transforms.v2.functional
    return functional


def _affine(
    images: Tensor, *, translate: tuple[int, int] = (0, 0), shear: tuple[float, float] = (0, 0)
) -> Tensor:
    moved: Tensor = _functional().affine(
        images,
        angle=0.0,
        translate=list(translate),
        scale=1.0,
        shear=[math.degrees(math.atan(slope)) for slope in shear],
        # torchvision shears about the corner and translates about nothing.
        center=[0.0, 0.0] if any(shear) else None,
    )
    return moved


@cache
def operations(magnitude: int = MAGNITUDE) -> dict[str, Operation]:
    """Return torchvision's operations by name; ``magnitude`` is a share of each one's own range."""
    shear, enhance, turn = (_share(magnitude, top) for top in (0.3, 0.9, 30.0))
    bits = 8 - round(magnitude / ((BINS - 1) / 4))

    def shift(images: Tensor, sign: float) -> int:
        return int(sign * _share(magnitude, 150.0 / 331.0 * images.shape[-1]))

    return {
        "Identity": lambda images, sign: images,
        "ShearX": lambda images, sign: _affine(images, shear=(sign * shear, 0)),
        "ShearY": lambda images, sign: _affine(images, shear=(0, sign * shear)),
        "TranslateX": lambda images, sign: _affine(images, translate=(shift(images, sign), 0)),
        "TranslateY": lambda images, sign: _affine(images, translate=(0, shift(images, sign))),
        "Rotate": lambda images, sign: _functional().rotate(images, sign * turn),
        "Brightness": lambda images, sign: _functional().adjust_brightness(images, 1 + sign * enhance),
        "Color": lambda images, sign: _functional().adjust_saturation(images, 1 + sign * enhance),
        "Contrast": lambda images, sign: _functional().adjust_contrast(images, 1 + sign * enhance),
        "Sharpness": lambda images, sign: _functional().adjust_sharpness(images, 1 + sign * enhance),
        "Posterize": lambda images, sign: _functional().posterize(images, bits),
        "Solarize": lambda images, sign: _functional().solarize(images, 255.0 - _share(magnitude, 255.0)),
        "AutoContrast": lambda images, sign: _functional().autocontrast(images),
        "Equalize": lambda images, sign: _functional().equalize(images),
    }
