"""How a CLIP or SigLIP of transformers prepares pictures, done without transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from cache.runtime.errors import UserError
from cache.runtime.torchvision_compat import torchvision
from cache.teacher.any_shape import AnyShape
from cache.teacher.transformers_config import WRITTEN, read_json

# The newer file holds all processors of a model, each under its name.
WHOLE, ALONE = "processor_config.json", "preprocessor_config.json"
# What its processors do where the file does not say.
CLIP = {
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
SIGLIP = {
    "size": {"height": 224, "width": 224},
    "do_center_crop": False,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
BOTH = {"do_resize": True, "do_rescale": True, "do_normalize": True, "resample": 3, "rescale_factor": 1 / 255}
USUAL = {"clip": CLIP | BOTH, "siglip": SIGLIP | BOTH}
RESAMPLING = {2: "bilinear", 3: "bicubic"}
MOST_SIDE = 4096


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """All that is done to a picture: it is resized, its middle cut out, its numbers shifted and scaled.

    ``resized`` are height and width with the mode ``squash``; with ``shortest`` both are what the shorter
    side becomes. ``mean`` and ``std`` are of pixels between 0 and 1.
    """

    mode: str
    resized: tuple[int, int]
    image_size: tuple[int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, picture: Image.Image) -> Tensor:
        """Return what the teacher takes of a picture, float32 [3, H, W]."""
        functional = torchvision.transforms.functional
        height, width = self.resized
        if self.mode == "shortest":
            short = min(picture.size)
            height, width = (int(height * side / short) for side in (picture.height, picture.width))
        picture = picture.convert("RGB").resize((width, height), self.resampling)
        # Rounded down, as transformers does; torchvision's CenterCrop may be a pixel beside it.
        top, left = (height - self.image_size[0]) // 2, (width - self.image_size[1]) // 2
        picture = picture.crop((left, top, left + self.image_size[1], top + self.image_size[0]))
        return functional.normalize(functional.to_tensor(picture), list(self.mean), list(self.std))

    @property
    def resampling(self) -> Image.Resampling:
        """Pillow's own word for the interpolation."""
        return Image.Resampling.BILINEAR if self.interpolation == "bilinear" else Image.Resampling.BICUBIC

    def transform(self) -> AnyShape:
        """Return what does it to pictures of any shape."""
        return AnyShape(then=self, sides=self.resized, mode=self.mode, resampling=self.resampling)


def read_pictures(folder: Path, kind: str, *, image_size: int) -> Pictures:
    """Return how a model's folder prepares pictures; ``image_size`` is the side that its image tower takes.

    Raises
    ------
    UserError
        If the folder does not say, says something that no CLIP or SigLIP does, or makes another size.
    """
    file = folder / WHOLE
    given = read_json(file).get("image_processor") if file.is_file() else None
    if given is None:  # the older file, which the newer one need not repeat
        file = folder / ALONE
        if not file.is_file():
            raise UserError(
                f"{folder} has no {ALONE}, so nobody knows how it prepares pictures",
                fix="put the file of the model that it was made from beside its config.json.",
            )
        given = read_json(file)
    if not isinstance(given, dict):
        raise UserError(f"{file}: its image_processor is no table of settings", fix=WRITTEN)
    made = _pictures(given, kind, str(file))
    if made.image_size != (image_size, image_size):
        sides = " x ".join(map(str, made.image_size))
        raise UserError(
            f"{file} makes images of {sides} px, and the image tower takes {image_size} x {image_size}",
            fix="give the preprocessor_config.json that belongs to this config.json.",
        )
    return made


def _pictures(given: dict[str, Any], kind: str, where: str) -> Pictures:
    called = given.get("image_processor_type") or given.get("feature_extractor_type")
    of = _kind(str(called), where) if called else kind
    asked = USUAL[of] | {name: given[name] for name in given if given[name] is not None}
    for name, must in (("do_resize", True), ("do_pad", False)):
        if bool(asked.get(name, must)) != must:
            raise _odd(where, name, asked[name])
    if asked["resample"] not in RESAMPLING:
        raise _odd(where, "resample", asked["resample"])
    mode, resized = _size(asked["size"], where)
    image_size = resized
    if asked["do_center_crop"]:
        image_size = _sides(asked["crop_size"], "crop_size", where)
    elif mode == "shortest":
        raise _odd(where, "do_center_crop", False)
    if image_size[0] > resized[0] or image_size[1] > resized[1]:
        raise _odd(where, "crop_size", asked["crop_size"])
    mean, std = _numbers(asked, where)
    return Pictures(
        mode=mode,
        resized=resized,
        image_size=image_size,
        interpolation=RESAMPLING[asked["resample"]],
        mean=mean,
        std=std,
    )


def _kind(called: str, where: str) -> str:
    """Return which of the two processors a file means by its class."""
    for ending in ("Pil", "Fast", "ImageProcessor", "FeatureExtractor"):
        called = called.removesuffix(ending)
    if called.lower() not in USUAL:
        raise UserError(
            f"{where} is of a {called} processor; what is taken are those of CLIP and SigLIP", fix=WRITTEN
        )
    return called.lower()


def _size(given: Any, where: str) -> tuple[str, tuple[int, int]]:
    """Return how a picture is resized, and to what; older files say one number and mean the shorter side."""
    if isinstance(given, dict) and set(given) == {"shortest_edge"}:
        given = given["shortest_edge"]
    if isinstance(given, dict):
        return "squash", _sides(given, "size", where)
    return "shortest", _sides(given, "size", where)


def _sides(given: Any, name: str, where: str) -> tuple[int, int]:
    height: Any = given
    width: Any = given
    if isinstance(given, dict):
        height, width = (given.get("height"), given.get("width")) if len(given) == 2 else (None, None)
    for side in (height, width):
        if type(side) is not int or not 0 < side <= MOST_SIDE:
            raise _odd(where, name, given)
    return height, width


def _numbers(asked: dict[str, Any], where: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std of pixels between 0 and 1, whatever the file scales them by."""
    factor = asked["rescale_factor"] if asked["do_rescale"] else 1
    if not isinstance(factor, int | float) or not 0 < factor <= 1:
        raise _odd(where, "rescale_factor", factor)
    mean, std = (asked["image_mean"], asked["image_std"]) if asked["do_normalize"] else ([0] * 3, [1] * 3)
    for name, values in (("image_mean", mean), ("image_std", std)):
        fits = isinstance(values, list) and len(values) == 3
        fits = fits and all(isinstance(one, int | float) and 0 <= one <= 255 for one in values)
        if not fits or (name == "image_std" and not all(values)):
            raise _odd(where, name, values)
    scale = 255 * factor
    # As usual, 1 / 255: not a digit of the file's numbers may change.
    scale = 1 if abs(scale - 1) < 1e-9 else scale
    return tuple(one / scale for one in mean), tuple(one / scale for one in std)


def _odd(where: str, name: str, value: Any) -> UserError:
    return UserError(f"{where} has a {name} of {value!r:.60}, which no CLIP or SigLIP has", fix=WRITTEN)
