"""What a cache is made from. Two caches with one fingerprint hold the same numbers for one image."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from cache.runtime.atomic_files import digest
from cache.runtime.own_code import own_code_in
from cache.sources.decoding import PLAIN, Decoding
from cache.sources.episode_keys import EpisodeKeys

# Kinds of model names that bring their own weights.
LOCAL_DIR, HF_HUB = "local-dir:", "hf-hub:"
# What goes before a name of timm's.
TIMM = "timm:"
# What stands for weights where rows were made elsewhere.
IMPORTED = "imported"
# 256 pixels a side whatever the picture's shape: what the original research code fed its teacher.
SQUASH, SQUASH_SIZE = "squash", 256
PRECISIONS = ("float32", "bfloat16", "float16")
DTYPES = ("float16", "float32")
WEBDATASET = "webdataset"
FORMATS = ("hdf5", WEBDATASET)


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherSpec:
    """A teacher and how it is run.

    ``model`` and ``pretrained`` are the words the user gave. They are not part of the identity:
    weights keep their meaning when their file is moved, and a name is another model in another version of
    open_clip. The weights' checksum is, with the digests of the model's config (``architecture``) and of its
    ``tokenizer``, and all that is done to a picture: ``image_size`` is its height and width, and
    ``fill_color`` what it is padded with. Rows that were made elsewhere have no ``image_size``.
    """

    model: str
    pretrained: str
    architecture: str
    weights_sha256: str
    tokenizer: str
    preprocessing: str
    image_size: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    resize_mode: str
    fill_color: int
    precision: str

    def __post_init__(self) -> None:
        if len(self.image_size) not in (0, 2):
            raise ValueError(f"image_size is {self.image_size!r:.40}, expected a height and a width")

    def identity(self) -> dict[str, Any]:
        """Return every field that can change an embedding."""
        return {name: value for name, value in asdict(self).items() if name not in ("model", "pretrained")}

    def called(self, name: str) -> str:
        """Return what a field is in a message: one's own code is its own architecture."""
        return "code" if name == "architecture" and own_code_in(self.model) else name


def in_words(teacher: dict[str, Any]) -> dict[str, Any]:
    """Return a teacher's spec as JSON, without the folders that it lies in on this machine."""
    model, pretrained = teacher["model"], PurePath(teacher["pretrained"]).name
    if own := own_code_in(model):
        model = f"{own[0].name}:{own[1]}"
    prefix = LOCAL_DIR if model.startswith(LOCAL_DIR) else ""
    if prefix or PurePath(model).is_absolute():  # open_clip's own names may have a slash
        model = f"{prefix}{PurePath(model.removeprefix(prefix)).name}"
    return {**teacher, "model": model, "pretrained": pretrained}


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheSpec:
    """A teacher and how its rows are stored: ``dtype`` float16 or float32, ``format`` hdf5 or webdataset.

    ``regions``: every picture's region embeddings are kept beside its embedding. ``decoding``: how pictures
    are decoded, for the teacher and for all that learn from its rows. ``episode_keys``: what the files of
    episodes call their parts, where they are not the research code's.
    """

    teacher: TeacherSpec
    dtype: str = "float16"
    format: str = "hdf5"
    regions: bool = False
    decoding: Decoding = PLAIN
    episode_keys: EpisodeKeys | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES or self.format not in FORMATS:
            raise ValueError(f"rows are stored as {self.dtype!r:.40}, {self.format!r:.40}")

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that name the teacher, its preprocessing, the dtype and the cameras.

        Whether pictures are turned by EXIF is among them. The file format, further columns and what is too
        large are left out: they change no number.
        """
        cameras = {"episode_keys": asdict(self.episode_keys)} if self.episode_keys else {}
        turned = {} if self.decoding.exif else {"exif": False}
        return digest({"teacher": self.teacher.identity(), "dtype": self.dtype, **cameras, **turned})[:16]

    def differences(self, other: CacheSpec) -> list[str]:
        """Return one ``field: here -> there`` line for everything that separates two caches."""
        mine, theirs = self.teacher.identity(), other.teacher.identity()
        lines = [
            f"{other.teacher.called(n)}: {_short(mine[n])} -> {_short(theirs[n])}"
            for n in mine
            if mine[n] != theirs[n]
        ]
        for name in ("dtype", "format", "regions"):
            here, there = getattr(self, name), getattr(other, name)
            if here != there:
                lines.append(f"{name}: {here} -> {there}")
        for name in ("exif", "max_pixels"):
            here, there = getattr(self.decoding, name), getattr(other.decoding, name)
            if here != there:
                lines.append(f"{name}: {here} -> {there}")
        if self.episode_keys != other.episode_keys:
            lines.append("episode keys: of another mapping file")
        return lines


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."
