"""Imports torchvision, also beside a torch it was not compiled for.

Every other module takes torchvision from here: ``from cache.runtime.torchvision_compat import torchvision``.
The torchvision wheels on PyPI are compiled against the CUDA torch. Beside a CPU torch their operators do
not load and ``import torchvision`` stops with "operator torchvision::nms does not exist", although
models and transforms need none of those operators. Declaring the operators that the import looks at
lets the rest work; calling one of them still fails, as it should.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

import torch

_LOOKED_AT_ON_IMPORT = ("nms", "qnms")
# Kept for the life of the process: a declaration ends with the object that made it.
_DECLARATIONS: list[torch.library.Library] = []


def _import_torchvision() -> ModuleType:
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _LOOKED_AT_ON_IMPORT:
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _DECLARATIONS.append(library)
    return importlib.import_module("torchvision")


if TYPE_CHECKING:
    import torchvision
    import torchvision.models.feature_extraction
    import torchvision.transforms.v2
else:
    torchvision = _import_torchvision()
    importlib.import_module("torchvision.transforms.v2")
    importlib.import_module("torchvision.models.feature_extraction")

__all__ = ["torchvision"]
