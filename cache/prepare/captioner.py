"""The captioner: any image-to-text model of transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from cache.runtime.errors import UserError, missing_package, reason_of
from cache.runtime.hub_models import (
    NO_CODE,
    check_tokenizer,
    checked_model_config,
    import_transformers,
    quiet_transformers,
)

# Before transformers, which imports torchvision itself.
from cache.runtime.torchvision_compat import torchvision  # noqa: F401  # isort: split

# As the original research code had them.
GENERATION = {"num_beams": 5, "max_new_tokens": 16, "no_repeat_ngram_size": 3, "do_sample": False}
EXAMPLE = "such as Salesforce/blip-image-captioning-base"
# Weights may lack parts that captions do not need (a pooler), but not more than this share.
MAX_SHARE_MISSING = 0.01


@dataclass(frozen=True, kw_only=True)
class Captioner:
    """A loaded image-to-text model."""

    model: Any
    image_processor: Callable[..., Any]
    tokenizer: Any
    device: torch.device

    @torch.inference_mode()
    def captions(self, pixels_B3HW: Tensor) -> list[str]:
        """Return one caption an image, on one line; it may be empty."""
        tokens = self.model.generate(pixel_values=pixels_B3HW.to(self.device), **GENERATION)
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]


def pixels_of(image: Image.Image, image_processor: Callable[..., Any]) -> Tensor:
    """Return one image [3, H, W] as the model wants it."""
    return image_processor(images=image, return_tensors="pt")["pixel_values"][0]


def load_captioner(name: str, device: torch.device) -> Captioner:
    """Load a model by folder or hub name, and let it caption two grey images.

    Raises
    ------
    UserError
        If transformers is not installed, there is no such model or it does not caption images.
    """
    try:
        transformers = import_transformers()
    except ImportError as error:
        raise missing_package(error, extra="caption") from error

    with quiet_transformers(), _explained(name):
        config = checked_model_config(name)
        image_to_text: Any = transformers.AutoModelForImageTextToText
        if type(config) not in image_to_text._model_mapping:
            raise UserError(
                f"the model {name} is a {config.model_type}, which does not make text from images",
                fix=f"give an image captioning model {EXAMPLE}.",
            )
        check_tokenizer(name)
        # float32: half precision saved in a checkpoint is slow or missing on a CPU.
        model, loading = image_to_text.from_pretrained(
            name, dtype=torch.float32, output_loading_info=True, weights_only=True, **NO_CODE
        )
        image_processor = transformers.AutoImageProcessor.from_pretrained(name, **NO_CODE)
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **NO_CODE)
    _check_weights(name, model, loading["missing_keys"])
    captioner = Captioner(
        model=model.to(device).eval(), image_processor=image_processor, tokenizer=tokenizer, device=device
    )
    _try(name, captioner)
    return captioner


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what transformers raises while loading into one line."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        what = "folder is not a whole model" if Path(name).is_dir() else "model was not found"
        fix = "give a folder that save_pretrained wrote, or a name on the Hugging Face hub and a network."
        raise UserError(f"the {what}: {name} ({reason_of(error)})", fix=fix) from error
    # A type that transformers does not know is a ValueError or KeyError, a missing package an
    # ImportError, and weights of another shape a RuntimeError.
    except Exception as error:
        raise UserError(
            f"transformers cannot load the model {name} ({reason_of(error)})",
            fix=f"give an image captioning model that this transformers knows, {EXAMPLE}.",
        ) from error


def _check_weights(name: str, model: Any, missing: Sequence[str]) -> None:
    sizes = {key: value.numel() for key, value in model.state_dict().items()}
    lacking = sum(sizes.get(key, 0) for key in missing)
    if lacking > MAX_SHARE_MISSING * sum(sizes.values()):
        raise UserError(
            f"the weights of {name} lack {len(missing)} parts of the model, such as {sorted(missing)[0]}, "
            "which would be left random",
            fix=f"give a model trained to caption images, {EXAMPLE}.",
        )


def _try(name: str, captioner: Captioner) -> None:
    # Of two shapes: a batch needs pixels of one.
    grey = [Image.new("RGB", size, (128, 128, 128)) for size in ((64, 64), (64, 48))]
    try:
        captioner.captions(torch.stack([pixels_of(image, captioner.image_processor) for image in grey]))
    # A model of another kind fails anywhere in its own code.
    except Exception as error:
        raise UserError(
            f"the model {name} does not caption an image without a question ({reason_of(error)})",
            fix=f"give an image captioning model {EXAMPLE}.",
        ) from error
