"""An image folder as sorted records, and how one image is decoded.

Layout: ``DATA/train/CLASS/FILE``, ``DATA/val_on_train/CLASS/FILE`` (optional) and
``DATA/val/CLASS/FILE``. A key is ``CLASS/FILE``; a class's label is its position among the sorted
folder names of its split.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ClassVar

from PIL import (
    Image,
    WebPImagePlugin,  # noqa: F401 (which makes WEBP known; Pillow alone looks for it only where all else fails)
)

from cache.runtime.atomic_files import sha256_of
from cache.runtime.errors import UserError
from cache.runtime.system_errors import is_the_systems
from cache.sources.samples import RecordFolder, RecordSplit, UnreadableImage
from cache.sources.splits import FOLDERS, SPLITS

if TYPE_CHECKING:
    from torch import Tensor

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
# What those endings promise. Pillow would try all it knows, PostScript too.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRecord:
    """One image file: its key, the folder of its split, and its label there."""

    key: str
    root: Path
    label: int
    views: ClassVar[tuple[str, ...]] = ("image",)

    @property
    def path(self) -> Path:
        """The file. Made when asked for: a Path takes several times the memory of the rest."""
        return self.root / self.key

    @property
    def where(self) -> str:
        """The file."""
        return str(self.path)

    def pictures(self) -> tuple[Image.Image, ...]:
        """Return the decoded file; see :func:`load_rgb`."""
        return (load_rgb(self.path),)

    def identity(self) -> tuple[str, int, int]:
        """Return (SHA-256, bytes, modification time in ns) of the file; an unreadable one has the hash ''."""
        try:
            status = self.path.stat()
            return sha256_of(self.path), status.st_size, status.st_mtime_ns
        except OSError as error:
            if is_the_systems(error):
                raise
            return "", 0, 0


class ImageFolder(RecordFolder):
    """The image files of one data folder."""

    split_is = "folder {!r}"
    layout = "train/CLASS/FILE, val_on_train/CLASS/FILE (optional) and val/CLASS/FILE"

    @classmethod
    def scan(cls, path: Path, *, require: Iterable[str] = ("train", "ood_test")) -> ImageFolder:
        """List every image of every split below ``path``.

        Raises
        ------
        UserError
            If the folder or a required split is missing, or a class folder is empty or holds two
            images of one name.
        """
        path = Path(path)
        if not path.is_dir():
            raise UserError(
                f"the data folder {path} does not exist", fix="give the folder that holds train/."
            )
        folders = {name: path / FOLDERS[name] for name in SPLITS if (path / FOLDERS[name]).is_dir()}
        for name in require:
            if name not in folders:
                raise cls.missing(path, name)
        return cls(path=path, splits={name: _scan_split(name, where) for name, where in folders.items()})


def _scan_split(name: str, where: Path) -> RecordSplit:
    folders = sorted(
        child.name for child in where.iterdir() if child.is_dir() and not child.name.startswith(".")
    )
    if not folders:
        raise UserError(f"{where} has no class folders", fix=f"lay the images out as {where}/CLASS/FILE.")
    images = [
        ImageRecord(key=f"{folder}/{name}", root=where, label=label)
        for label, folder in enumerate(folders)
        for name in _files_of_class(where / folder)
    ]
    return RecordSplit(
        name=name, class_names=tuple(folders), images=tuple(sorted(images, key=lambda image: image.key))
    )


def _files_of_class(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:  # which knows a file from a folder without asking the disk again
        names = sorted(entry.name for entry in entries if is_image_name(entry.name) and entry.is_file())
    if not names:
        raise UserError(
            f"the class folder {folder} holds no image",
            fix=f"add images ({', '.join(sorted(ENDINGS))}) or remove the folder.",
        )
    by_stem: dict[str, str] = {}
    for name in names:
        # Rows of a WebDataset shard are named by the stem, so two endings of one stem would collide.
        stem = os.path.splitext(name)[0]
        if stem in by_stem:
            raise UserError(
                f"two images in {folder} have one name: {by_stem[stem]} and {name}",
                fix="rename or remove one of them.",
            )
        by_stem[stem] = name
    return names


def is_image_name(name: str) -> bool:
    """Say whether a file of this name is taken as an image: a known ending, not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in ENDINGS


def load_rgb(path: Path | BinaryIO) -> Image.Image:
    """Decode one image, a file or an open one, to 8-bit RGB, as torchvision's ImageFolder does.

    Transparency is dropped, not blended; EXIF orientation is not applied; a truncated file is an
    error. One departure: 16-bit grey is scaled to 8 bits, where Pillow's conversion would clip
    nearly all of it to white.

    Raises
    ------
    UnreadableImage
        If the file cannot be opened or decoded, is of another format, or has more pixels than Pillow allows
        (90 million).
    OSError
        If the system is the reason, not the file.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of transparent palettes and odd EXIF; neither changes the RGB result.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                # Pillow only warns up to twice its limit, and warnings are a matter of all threads at once.
                most = Image.MAX_IMAGE_PIXELS
                if most is not None and image.width * image.height > most:
                    size = f"{image.width:,} x {image.height:,}"
                    raise Image.DecompressionBombError(f"{size} pixels are more than {most:,}")
                if image.mode.startswith("I"):
                    return (
                        image.convert("I").point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
                    )
                return image.convert("RGB")
    # Pillow's decoders raise nearly anything on a broken file (OSError, SyntaxError, ValueError,
    # struct.error, ...); each of them means the same to us.
    except Exception as error:
        if isinstance(error, OSError) and is_the_systems(error):
            raise  # other images will fail as well: to skip this one would be to lose them all, quietly
        name = path.name if isinstance(path, Path) else "given"
        reason = str(error).replace(str(path), name) or type(error).__name__
        raise UnreadableImage(reason.splitlines()[0]) from error


def squashed(path: Path, side: int) -> Tensor:
    """Return an image file squashed to ``side`` x ``side`` (bilinear), uint8 [3, side, side].

    Raises
    ------
    UnreadableImage
        If the file cannot be opened or decoded.
    """
    import numpy as np
    import torch

    picture = load_rgb(path).resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
