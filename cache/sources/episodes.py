"""Episodes of a robot in HDF5: two cameras, each RGB and depth, and the objects that are in the scene.

Layout: ``DATA/train.h5``, ``DATA/val_on_train.h5`` (optional) and ``DATA/val.h5``. Each key of a file is an
episode with ``dict_str_base_camera`` and ``dict_str_hand_camera``, each with ``dict_str_rgb`` [H, W, 3]
uint8 and ``dict_str_depth`` [H, W, 1] float32, and ``model_ids``, byte texts such as ``011_banana``. What
``train`` shows are the in-distribution (ID) objects; ``val`` may show those and others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.runtime.errors import UserError
from cache.runtime.hdf5_safety import inner_dataset, is_inner, open_hdf5
from cache.sources.names import check_class_names, check_inner
from cache.sources.samples import UnreadableImage
from cache.sources.splits import FOLDERS, SPLITS, split_name

BASE, HAND = "dict_str_base_camera", "dict_str_hand_camera"
RGB, DEPTH = "dict_str_rgb", "dict_str_depth"
OBJECTS = "model_ids"
ENDING = ".h5"
# Of one picture, and of one episode: a compressed file may claim any size.
MOST_BYTES, MOST_OBJECTS = 2**28, 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Frames:
    """What both cameras saw: RGB uint8 [H, W, 3] and depth float32 [H, W, 1]."""

    base_rgb: NDArray[np.uint8]
    base_depth: NDArray[np.float32]
    hand_rgb: NDArray[np.uint8]
    hand_depth: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeRecord:
    """One episode: its key in its file, and 0 or 1 for every object of its split.

    The losses compare the student with what the teacher says of the hand camera, so that is its ``image``.
    """

    key: str
    path: Path
    label: tuple[int, ...]
    views: ClassVar[tuple[str, ...]] = ("image", "base")

    @property
    def where(self) -> str:
        """The file and the episode."""
        return f"{self.path}, episode {self.key!r}"

    def frames(self) -> Frames:
        """Read both cameras; nothing else of the file is read.

        Raises
        ------
        UnreadableImage
            If a part is missing, has another form, or cannot be decompressed.
        """
        # Opened for every read: handles of h5py do not survive a fork.
        try:
            with open_hdf5(self.path) as file:
                base, hand = f"{self.key}/{BASE}", f"{self.key}/{HAND}"
                return Frames(
                    base_rgb=_pixels(file, f"{base}/{RGB}", np.uint8),
                    base_depth=_pixels(file, f"{base}/{DEPTH}", np.float32),
                    hand_rgb=_pixels(file, f"{hand}/{RGB}", np.uint8),
                    hand_depth=_pixels(file, f"{hand}/{DEPTH}", np.float32),
                )
        except (OSError, KeyError, ValueError) as error:
            raise UnreadableImage(str(error).strip("'\"").splitlines()[0]) from error

    def pictures(self) -> tuple[Image.Image, ...]:
        """Return the hand and the base camera's RGB."""
        frames = self.frames()
        return Image.fromarray(frames.hand_rgb), Image.fromarray(frames.base_rgb)

    def identity(self) -> tuple[str, int, int]:
        """Return (SHA-256 of what both cameras saw, bytes and modification time in ns of the file)."""
        try:
            frames, status = self.frames(), self.path.stat()
        except (OSError, UnreadableImage):
            return "", 0, 0
        content = sha256(frames.hand_rgb.tobytes())
        # Depth too: the teacher does not see it, but the student does.
        for seen in (frames.base_rgb, frames.hand_depth, frames.base_depth):
            content.update(seen.tobytes())
        return content.hexdigest(), status.st_size, status.st_mtime_ns


def _pixels(file: h5py.File, name: str, dtype: type[np.generic]) -> NDArray[Any]:
    dataset = inner_dataset(file, name)
    if dataset.nbytes > MOST_BYTES:  # of which a compressed file may hold little
        raise ValueError(f"{name} is {dataset.nbytes:,} bytes large")
    return np.asarray(dataset[()], dtype=dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitEpisodes:
    """The episodes of one split, sorted by key, and its objects: ID ones sorted, then OOD ones sorted."""

    name: str
    class_names: tuple[str, ...]
    images: tuple[EpisodeRecord, ...]


@dataclass(frozen=True, kw_only=True)
class EpisodeFolder:
    """The episode files found in one data folder."""

    path: Path
    splits: dict[str, SplitEpisodes]

    @classmethod
    def scan(cls, path: Path, *, require: Iterable[str] = ("train", "ood_test")) -> EpisodeFolder:
        """Look at every episode of every file below ``path``, without reading a picture.

        Raises
        ------
        UserError
            If the folder or a required file is missing, no HDF5, or empty; if an episode lacks a key or has
            one of another form (the message names it); if ``val_on_train`` shows an object that ``train``
            does not.
        """
        path = Path(path)
        if not path.is_dir():
            raise UserError(
                f"the data folder {path} does not exist", fix="give the folder that holds train.h5."
            )
        files = {name: path / f"{FOLDERS[name]}{ENDING}" for name in SPLITS}
        for name in require:
            if not files[name].is_file():
                raise _missing(path, name)
        found = {name: dict(_objects(file)) for name, file in files.items() if file.is_file()}
        classes = _classes(path, found)
        return cls(
            path=path,
            splits={
                name: SplitEpisodes(
                    name=name,
                    class_names=classes[name],
                    images=tuple(
                        EpisodeRecord(
                            key=key,
                            path=files[name],
                            label=tuple(int(known in objects) for known in classes[name]),
                        )
                        for key, objects in sorted(episodes.items())
                    ),
                )
                for name, episodes in found.items()
            },
        )

    def split(self, name: str) -> SplitEpisodes:
        """Return one split by either of its names; UserError when DATA has no such file."""
        name = split_name(name)
        if name not in self.splits:
            raise _missing(self.path, name)
        return self.splits[name]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Every object, ID ones sorted, then OOD ones sorted."""
        return max((split.class_names for split in self.splits.values()), key=len)


def _missing(path: Path, name: str) -> UserError:
    found = sorted(child.name for child in path.glob("*.h*5"))[:8]
    return UserError(
        f"{path} has no file {FOLDERS[name]}{ENDING}, which holds the split {name} "
        f"(files found: {', '.join(found) or 'none'})",
        fix="lay the episodes out as train.h5, val_on_train.h5 (optional) and val.h5.",
    )


def _classes(path: Path, found: dict[str, dict[str, list[str]]]) -> dict[str, tuple[str, ...]]:
    """Return the objects of every split: the training ones, and in ``ood_test`` the others after them."""
    seen = {name: {known for objects in split.values() for known in objects} for name, split in found.items()}
    known = tuple(sorted(seen.get("train", seen.get("id_test", set()))))
    surplus = sorted(seen.get("id_test", set()) - set(known))
    if surplus:
        raise UserError(
            f"{path / FOLDERS['id_test']}{ENDING} shows {', '.join(surplus[:3])}, train{ENDING} does not",
            fix=f"move those episodes to {FOLDERS['ood_test']}{ENDING}.",
        )
    new = tuple(sorted(seen.get("ood_test", set()) - set(known)))
    return {name: known + new if name == "ood_test" else known for name in found}


def _objects(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (key, objects) of every episode of a file, having looked at the form of its parts."""
    try:
        with open_hdf5(path) as file:
            if not len(file):
                raise UserError(f"{path} holds no episode", fix="write one group an episode.")
            for key in file:
                yield key, _checked(file, key, f"{path}, episode {key!r}")
    except OSError as error:
        raise UserError(
            f"{path} is no readable HDF5 file ({str(error).splitlines()[0]})", fix="copy or make it again."
        ) from error


def _checked(file: h5py.File, key: str, where: str) -> list[str]:
    for camera in (BASE, HAND):
        for part, channels, dtype in ((RGB, 3, "uint8"), (DEPTH, 1, "float32")):
            _check_part(file, key, f"{camera}/{part}", channels, dtype, where)
    objects = _part(file, key, OBJECTS, where)
    try:
        check_inner("the episode", [key])
        if objects.size is None or objects.size > MOST_OBJECTS:
            raise ValueError(f"{OBJECTS} is of {objects.size} texts")
        names = np.atleast_1d(objects.asstr("utf-8")[()]).tolist() if objects.size else []
        check_class_names([object_name(str(name)) for name in names])
    except (TypeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{where}: {OBJECTS} is of {objects.dtype}, expected texts", fix="write bytes like b'011_banana'."
        ) from error
    except ValueError as error:
        raise UserError(f"{where}: {error}", fix="write it in that form.") from error
    return [str(name) for name in names]


def _part(file: h5py.File, key: str, name: str, where: str) -> h5py.Dataset:
    try:
        return inner_dataset(file, f"{key}/{name}")
    except (KeyError, ValueError) as error:
        have: list[str] = []
        if is_inner(file, key) and isinstance(file[key], h5py.Group):
            file[key].visit(have.append)
        if name in have:
            problem = f"{where}: {name} does not lie in this file (it is external, or virtual)"
            raise UserError(problem, fix="write its numbers into the file.") from error
        raise UserError(
            f"{where} has no {name} (it has {', '.join(sorted(have)[:8]) or 'nothing'})",
            fix="write both cameras with RGB and depth, and model_ids.",
        ) from error


def _check_part(file: h5py.File, key: str, name: str, channels: int, dtype: str, where: str) -> None:
    found = _part(file, key, name, where)
    good = found.shape is not None and len(found.shape) == 3 and found.shape[2] == channels
    good = good and min(found.shape) > 0 and found.nbytes <= MOST_BYTES
    # Depth may be of another precision; bytes of another width are other pictures.
    right = found.dtype.kind == "f" if dtype == "float32" else found.dtype == dtype
    if not good or not right:
        raise UserError(
            f"{where}: {name} is {found.dtype} {list(found.shape)}, expected {dtype} [H, W, {channels}]",
            fix="write it in that form.",
        )


def object_name(model_id: str) -> str:
    """Return the words of an object: ``banana`` for ``011_banana``; underscores are spaces."""
    return model_id.partition("_")[2].replace("_", " ").strip() or model_id
