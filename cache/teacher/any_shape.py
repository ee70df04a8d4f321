"""What a teacher does to pictures of any shape: a thin one costs no more than others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from cache.runtime.errors import UserError
from cache.runtime.torchvision_compat import torchvision
from cache.sources.resizing import is_thin, middle, resized
from cache.store.spec import SQUASH, SQUASH_SIZE


@dataclass(frozen=True, kw_only=True)
class AnyShape:
    """Does to a thin picture first what ``then`` would do at a price; all others it leaves as they are.

    ``sides`` are the height and width that ``then`` makes, ``mode`` says how: shortest, longest or squash.
    """

    then: Callable[[Image.Image], Tensor]
    sides: tuple[int, int]
    mode: str
    resampling: Image.Resampling

    def __call__(self, picture: Image.Image) -> Tensor:
        """Return what the teacher takes of a picture, float32 [3, H, W]."""
        return self.then(self._wider(picture) if is_thin(picture) else picture)

    def _wider(self, picture: Image.Image) -> Image.Image:
        height, width = self.sides
        if self.mode == "shortest":
            # Of 60,000 x 4 pixels it would make 3 million x 224. What it shrinks stays as it is.
            enlarged = picture.width < width or picture.height < height
            return middle(picture, width, height, self.resampling) if enlarged else picture
        if self.mode == "longest":  # whose shorter side would become nothing
            ratio = max(picture.width / width, picture.height / height)
            width, height = max(1, round(picture.width / ratio)), max(1, round(picture.height / ratio))
        return resized(picture, width, height, self.resampling)


def squashed(side: int, *, mean: Sequence[float], std: Sequence[float]) -> AnyShape:
    """Return what ``--preprocess squash`` does: 256 x 256 first, as the original code, then ``side``."""
    transforms = torchvision.transforms
    then = transforms.Compose(
        [
            transforms.Resize((SQUASH_SIZE, SQUASH_SIZE)),
            transforms.Resize(side, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(side),
            transforms.ToTensor(),
            transforms.Normalize(mean=mean, std=std),
        ]
    )
    both = (SQUASH_SIZE, SQUASH_SIZE)
    return AnyShape(then=then, sides=both, mode=SQUASH, resampling=Image.Resampling.BILINEAR)


def check_squash(model: str, sides: tuple[int, int]) -> None:
    """Raise a UserError unless a model takes square images."""
    if sides[0] != sides[1]:
        raise UserError(
            f"{model} takes images of {sides[0]} x {sides[1]} px, and --preprocess squash makes square ones",
            fix="leave --preprocess out: the model's own takes both sides.",
        )
