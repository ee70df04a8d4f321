"""``model.safetensors``: a student's weights, and in its metadata what they are of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from cache.runtime.atomic_files import replacing
from distill.data.normalisation import Normalisation
from distill.deploy.info import ModelInfo


def write_weights(
    path: Path,
    state: Mapping[str, Tensor],
    info: ModelInfo,
    *,
    normalisation: Normalisation,
    outputs: int,
    columns: tuple[int, int],
) -> None:
    """Write weights of a student of so many outputs, of which ``columns`` (start, stop) are the embedding."""
    from safetensors.torch import save

    start, stop = columns
    about = {
        "arch": info.arch,
        "outputs": str(outputs),
        "image_size": str(info.image_size),
        "kwargs": json.dumps(info.kwargs),
        "input": json.dumps(normalisation.to_json()),
        "embedding": f"{start}:{stop}",
        # What transformers and the hub ask of such a file.
        "format": "pt",
    }
    # Bytes written by us: safetensors' own files can be read by their owner alone. Clones, because tied
    # weights would be refused.
    numbers = save({name: value.clone() for name, value in state.items()}, metadata=about)
    with replacing(path) as temporary:
        temporary.write_bytes(numbers)
