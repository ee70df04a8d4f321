"""Images as a user of Python has them -> what an exported model takes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.runtime.errors import UserError
from cache.sources.dataset_source import as_rgb
from cache.sources.decoding import UnreadableImage, content_of
from cache.sources.pictures import PictureSample
from cache.sources.places import is_remote
from distill.deploy.model import Model

if TYPE_CHECKING:
    import torch

    OneImage = str | os.PathLike[str] | Image.Image | NDArray[np.uint8] | torch.Tensor
else:
    OneImage = Any  # torch is not imported where a model is only used

TAKEN = "give a path, a PIL image or uint8 [H, W, 3]."


def is_one(images: object) -> bool:
    """Say whether something is one image: a path, a PIL image, or an array of at most three dimensions."""
    if isinstance(images, (str, os.PathLike, Image.Image)):
        return True
    return hasattr(images, "dtype") and getattr(images, "ndim", 0) <= 3


def named(images: Iterable[OneImage]) -> list[tuple[str, OneImage]]:
    """Return images with their names: the path, else ``image 0``, ``image 1``, ..."""
    return [
        (os.fspath(one) if isinstance(one, (str, os.PathLike)) else f"image {i}", one)
        for i, one in enumerate(images)
    ]


def prepared(model: Model, name: str, image: OneImage) -> NDArray[Any]:
    """Return what a model takes of one image; UnreadableImage where it is none.

    A PIL image is turned as the EXIF of its file says, where the model's photos were: as the file would be.
    """
    if isinstance(image, (str, os.PathLike)):
        _check_file(name)
        sample = PictureSample(key=name, place=name)
        return model.prepare_file(content_of(sample.content), name)
    picture = as_rgb(image if isinstance(image, Image.Image) else _on_cpu(image))
    if isinstance(image, Image.Image):
        picture = model.info.preprocessing.decoding.turned(picture, image)
    return model.prepare(picture)


def _check_file(place: str) -> None:
    """Raise a UserError for a place that can be no picture: nothing, or a folder."""
    if is_remote(place):
        return
    if os.path.isdir(place):
        raise UserError(
            f"{place} is a folder",
            fix=f"give its files, sorted(Path({place!r}).rglob('*.jpg')), or use 'distill predict'.",
        )
    if not os.path.exists(place):
        raise UserError(f"{place} does not exist", fix="check the path.")


def _on_cpu(image: Any) -> Any:
    """Return an array, of a tensor on a device a copy."""
    if not hasattr(image, "dtype"):
        raise UnreadableImage(f"a {type(image).__name__} is no image")
    return image.detach().cpu().numpy() if hasattr(image, "detach") else image


def refuse_unread(name: str, reason: str) -> UserError:
    """Return the error for an image that cannot be read."""
    return UserError(
        f"{name} cannot be read ({reason})",
        fix=f"{TAKEN.rstrip('.')}; predict(..., errors='keep') goes on without it.",
    )


def as_list(images: OneImage | Iterable[OneImage]) -> list[OneImage]:
    """Return the images that are given, one or several."""
    if is_one(images):
        return [cast("OneImage", images)]
    if not isinstance(images, Iterable):
        raise UserError(f"a {type(images).__name__} is no image", fix=TAKEN)
    return list(cast("Iterable[OneImage]", images))
