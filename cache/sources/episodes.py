"""Episodes of a robot in HDF5: what its cameras saw, with depth or without, and the objects in the scene.

Layout: ``DATA/train.h5``, ``DATA/val_on_train.h5`` (optional) and ``DATA/val.h5``, one group an episode. What
lies where in an episode :class:`cache.sources.episode_keys.EpisodeKeys` says; unless told otherwise there are
``dict_str_base_camera`` and ``dict_str_hand_camera``, each with ``dict_str_rgb`` [H, W, 3] uint8 and
``dict_str_depth`` [H, W, 1] float32, and ``model_ids``, byte texts such as ``011_banana``. What ``train``
shows are the in-distribution (ID) objects; ``val`` may show those and others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.runtime.errors import UserError
from cache.runtime.hdf5_safety import inner_dataset, is_inner, open_hdf5
from cache.sources.episode_keys import RESEARCH_KEYS, WHITE, CameraKeys, EpisodeKeys
from cache.sources.names import check_class_names, check_inner
from cache.sources.samples import RecordFolder, RecordSplit, UnreadableImage
from cache.sources.splits import FOLDERS, SPLITS

ENDING = ".h5"
# Of one picture, and of one episode: a compressed file may claim any size.
MOST_BYTES, MOST_OBJECTS = 2**28, 10_000
# Of YCB's objects, such as 011_banana and 063-a_marbles.
_NUMBER = re.compile(r"\d+(-[a-z])?_")


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraFrame:
    """What one camera saw: RGB uint8 [H, W, 3] and depth float32 [H, W, 1], where it has depth."""

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeRecord:
    """One episode: its key in its file, and 0 or 1 for every object of its split.

    The losses compare the student with what the teacher says of the main camera, so that is its ``image``.
    """

    key: str
    path: Path
    label: tuple[int, ...]
    keys: EpisodeKeys = RESEARCH_KEYS

    @property
    def where(self) -> str:
        """The file and the episode."""
        return f"{self.path}, episode {self.key!r}"

    @property
    def views(self) -> tuple[str, ...]:
        """What each picture is called, the main camera's first."""
        return self.keys.views

    def frames(self) -> dict[str, CameraFrame]:
        """Read every camera, by its name and in the order of the student's channels; nothing else is read.

        Raises
        ------
        UnreadableImage
            If a part is missing, has another form, or cannot be decompressed.
        """
        # Opened for every read: handles of h5py do not survive a fork.
        try:
            with open_hdf5(self.path) as file:
                return {camera.name: self._frame(file, camera) for camera in self.keys.cameras}
        except (OSError, KeyError, ValueError) as error:
            raise UnreadableImage(str(error).strip("'\"").splitlines()[0]) from error

    def _frame(self, file: h5py.File, camera: CameraKeys) -> CameraFrame:
        step = self.keys.step
        rgb = _pixels(file, self.keys.place(self.key, camera.rgb), camera.axes, step)
        if camera.white != WHITE:
            # Resizing overshoots a little; what is far above was scaled otherwise, and would all be white.
            if not rgb.max() <= 2 * camera.white:
                raise ValueError(f"{camera.rgb} is up to {rgb.max():g}, and white is {camera.white:g}")
            rgb = (rgb * (WHITE / camera.white)).round().clip(0, WHITE)
        depth = None
        if camera.depth:
            depth = _pixels(file, self.keys.place(self.key, camera.depth), camera.axes_of_depth, step)
            depth = (
                depth.astype(np.float32)
                if camera.depth_scale == 1
                else depth * np.float32(camera.depth_scale)
            )
        return CameraFrame(rgb=np.asarray(rgb, dtype=np.uint8), depth=depth)

    def pictures(self) -> tuple[Image.Image, ...]:
        """Return every camera's RGB, the main one's first."""
        frames, main = self.frames(), self.keys.main_camera.name
        ordered = [frames.pop(main), *frames.values()]
        return tuple(Image.fromarray(frame.rgb) for frame in ordered)

    def identity(self) -> tuple[str, int, int]:
        """Return (SHA-256 of what the cameras saw, bytes and modification time in ns of the file)."""
        try:
            frames, status = self.frames(), self.path.stat()
        except (OSError, UnreadableImage):
            return "", 0, 0
        content = sha256()
        for frame in frames.values():
            content.update(frame.rgb.tobytes())
            # The teacher does not see it, but the student does.
            content.update(b"" if frame.depth is None else frame.depth.tobytes())
        return content.hexdigest(), status.st_size, status.st_mtime_ns


def _pixels(file: h5py.File, name: str, axes: str, step: int) -> NDArray[Any]:
    """Return a picture [H, W, C] of one time, whatever the order of its axes in the file."""
    dataset = inner_dataset(file, name)
    _check_size(dataset, name, axes, step)
    pixels = np.asarray(dataset[tuple(step if axis == "T" else slice(None) for axis in axes)])
    left = axes.replace("T", "")
    pixels = pixels if "C" in left else pixels[..., None]
    order = [(left if "C" in left else f"{left}C").index(axis) for axis in "HWC"]
    return np.ascontiguousarray(pixels.transpose(order))


def _check_size(dataset: h5py.Dataset, name: str, axes: str, step: int) -> None:
    if dataset.shape is None or len(dataset.shape) != len(axes):
        raise ValueError(f"{name} has not the axes {axes}")
    times = dataset.shape[axes.index("T")] if "T" in axes else 1
    if not -times <= (step if "T" in axes else 0) < times:
        raise ValueError(f"{name} has {times} times, and step is {step}")
    if dataset.nbytes > times * MOST_BYTES:  # of which a compressed file may hold little
        raise ValueError(f"{name} is {dataset.nbytes:,} bytes large")


@dataclass(frozen=True, kw_only=True)
class EpisodeFolder(RecordFolder):
    """The episode files of one data folder; a split's objects are ID ones sorted, then OOD ones sorted."""

    keys: EpisodeKeys = RESEARCH_KEYS

    @classmethod
    def scan(
        cls, path: Path, keys: EpisodeKeys | None = None, *, require: Iterable[str] = ("train", "ood_test")
    ) -> EpisodeFolder:
        """Look at every episode of every file below ``path``, without reading a picture.

        ``keys`` say what the files call their parts, None that they are the research code's; a cache keeps
        those that it was made with.

        Raises
        ------
        UserError
            If the folder or a required file is missing, no HDF5, or empty; if an episode lacks a key or has
            one of another form (the message names it); if ``val_on_train`` shows an object that ``train``
            does not.
        """
        path, keys = Path(path), keys or RESEARCH_KEYS
        if not path.is_dir():
            raise UserError(
                f"the data folder {path} does not exist", fix="give the folder that holds train.h5."
            )
        files = {name: path / f"{FOLDERS[name]}{ENDING}" for name in SPLITS}
        for name in require:
            if not files[name].is_file():
                raise cls.missing(path, name)
        present = {name: dict(_objects(file, keys)) for name, file in files.items() if file.is_file()}
        classes = _classes(path, present)
        splits = {}
        for name, episodes in present.items():
            records = (
                EpisodeRecord(
                    key=key,
                    path=files[name],
                    label=tuple(int(one in objects) for one in classes[name]),
                    keys=keys,
                )
                for key, objects in sorted(episodes.items())
            )
            splits[name] = RecordSplit(name=name, class_names=classes[name], images=tuple(records))
        return cls(path=path, splits=splits, keys=keys)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Every object, ID ones sorted, then OOD ones sorted."""
        return max((split.class_names for split in self.splits.values()), key=len)

    @staticmethod
    def missing(path: Path, name: str) -> UserError:
        """Return the error of a data folder that has no such file; it names some that are there."""
        present = sorted(child.name for child in path.glob("*.h*5"))[:8]
        return UserError(
            f"{path} has no file {FOLDERS[name]}{ENDING}, which holds the split {name} "
            f"(files found: {', '.join(present) or 'none'})",
            fix="lay the episodes out as train.h5, val_on_train.h5 (optional) and val.h5.",
        )


def _classes(path: Path, episodes: dict[str, dict[str, list[str]]]) -> dict[str, tuple[str, ...]]:
    """Return the objects of every split: the training ones, and in ``ood_test`` the others after them."""
    shown = {name: {one for objects in split.values() for one in objects} for name, split in episodes.items()}
    trained = tuple(sorted(shown.get("train", shown.get("id_test", set()))))
    surplus = sorted(shown.get("id_test", set()) - set(trained))
    if surplus:
        raise UserError(
            f"{path / FOLDERS['id_test']}{ENDING} shows {', '.join(surplus[:3])}, train{ENDING} does not",
            fix=f"move those episodes to {FOLDERS['ood_test']}{ENDING}.",
        )
    new = tuple(sorted(shown.get("ood_test", set()) - set(trained)))
    return {name: trained + new if name == "ood_test" else trained for name in episodes}


def unlabelled(path: Path, keys: EpisodeKeys) -> Iterator[tuple[EpisodeRecord, str]]:
    """Yield every episode of a file whatever its objects, and why its cameras cannot be read, else ''.

    Raises
    ------
    UserError
        If the file cannot be read, or holds no episode.
    """
    for file, key, where in _episodes(path, keys):
        record, problem = EpisodeRecord(key=key, path=path, label=(), keys=keys), ""
        try:
            _check_cameras(file, key, keys, where)
        except UserError as error:
            problem = error.problem
        yield record, problem


def _objects(path: Path, keys: EpisodeKeys) -> Iterator[tuple[str, list[str]]]:
    """Yield (key, objects) of every episode of a file, having looked at the form of its parts."""
    for file, key, where in _episodes(path, keys):
        _check_cameras(file, key, keys, where)
        yield key, _checked_objects(file, key, keys, where)


def _episodes(path: Path, keys: EpisodeKeys) -> Iterator[tuple[h5py.File, str, str]]:
    """Yield (the open file, key, words for messages) of every episode of a file."""
    try:
        with open_hdf5(path) as file:
            group = file
            if keys.episodes:
                group = file[keys.episodes] if is_inner(file, keys.episodes) else None
                if not isinstance(group, h5py.Group):
                    raise UserError(
                        f"{path} has no group {keys.episodes} (it has {_some(file)})",
                        fix="name the group of the episodes in the file of --episode-keys, as episodes.",
                    )
            if not len(group):
                raise UserError(f"{path} holds no episode", fix="write one group an episode.")
            for key in group:
                yield file, key, f"{path}, episode {key!r}"
    except OSError as error:
        raise UserError(
            f"{path} is no readable HDF5 file ({str(error).splitlines()[0]})", fix="copy or make it again."
        ) from error


def _check_cameras(file: h5py.File, key: str, keys: EpisodeKeys, where: str) -> None:
    for camera in keys.cameras:
        _check_part(file, key, keys, camera, where, depth=False)
        if camera.depth:
            _check_part(file, key, keys, camera, where, depth=True)


def _checked_objects(file: h5py.File, key: str, keys: EpisodeKeys, where: str) -> list[str]:
    try:
        check_inner("the episode", [key])
        names = _texts(file, keys.place(key), keys.objects, where)
        check_class_names([object_name(name) for name in names])
    except (TypeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{where}: {keys.objects} is of {error}, expected texts", fix="write bytes like b'011_banana'."
        ) from error
    except ValueError as error:
        raise UserError(f"{where}: {error}", fix="write it in that form.") from error
    return names


def _texts(file: h5py.File, place: str, name: str, where: str) -> list[str]:
    """Return the texts of a dataset or, behind an @, of an attribute; one may be a list in JSON."""
    inside, _, attribute = name.partition("@")
    if attribute:
        owner = f"{place}/{inside}".strip("/")
        if not is_inner(file, owner) or attribute not in file[owner].attrs:
            raise _lacks(file, place, name, where)
        attributes = file[owner].attrs
        held = attributes.get_id(attribute)
    else:
        held = _part(file, place, inside, where)
    shape = held.shape
    if shape is None or (size := int(np.prod(shape))) > MOST_OBJECTS:
        raise ValueError(f"{name} is of {'no' if shape is None else f'{size:,}'} texts")
    if h5py.check_string_dtype(held.dtype) is None and held.dtype.kind not in "SU" and size:
        raise TypeError(str(held.dtype))
    values = np.atleast_1d(attributes[attribute] if attribute else held[()]).ravel().tolist() if size else []
    texts = [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values]
    if len(texts) == 1 and texts[0].lstrip().startswith("["):
        try:
            listed = json.loads(texts[0])
        except (ValueError, RecursionError):
            return texts
        if other := [one for one in listed if not isinstance(one, str)]:
            raise ValueError(f"{name} lists {other[0]!r:.40}, which is no text")
        return [str(text) for text in listed[:MOST_OBJECTS]]
    return texts


def _part(file: h5py.File, place: str, name: str, where: str) -> h5py.Dataset:
    try:
        return inner_dataset(file, f"{place}/{name}")
    except (KeyError, ValueError) as error:
        raise _lacks(file, place, name, where) from error


def _lacks(file: h5py.File, place: str, name: str, where: str) -> UserError:
    have: list[str] = []
    if is_inner(file, place) and isinstance(file[place], h5py.Group):
        file[place].visit(have.append)
        have += [f"@{attribute}" for attribute in file[place].attrs]
    if name in have and file[place].get(name, getclass=True) is h5py.Dataset:
        return UserError(
            f"{where}: {name} does not lie in this file (it is external, or virtual)",
            fix="write its numbers into the file.",
        )
    return UserError(
        f"{where} has no {name} (it has {', '.join(sorted(have)[:8]) or 'nothing'})",
        fix="write it (no link is followed), or say with --episode-keys FILE.toml what these files call it.",
    )


def _some(file: h5py.File) -> str:
    return ", ".join(sorted(file)[:8]) or "nothing"


def _check_part(
    file: h5py.File, key: str, keys: EpisodeKeys, camera: CameraKeys, where: str, *, depth: bool
) -> None:
    """Refuse a picture or a depth of another form than its keys say."""
    name, axes = (camera.depth, camera.axes_of_depth) if depth else (camera.rgb, camera.axes)
    part, channels = _part(file, keys.place(key), name, where), 1 if depth else 3
    try:
        _check_size(part, name, axes, keys.step)
        good, reason = min(part.shape) > 0, ""
        good = good and ("C" not in axes or part.shape[axes.index("C")] == channels)
    except ValueError as error:
        good, reason = False, f" ({error})"
    # Depth may be of another precision; bytes of another width are other pictures.
    if depth:
        right = part.dtype.kind == "f" or (camera.depth_scale != 1 and part.dtype.kind in "ui")
    else:
        right = part.dtype == np.uint8 if camera.white == WHITE else part.dtype.kind in "uif"
        if part.dtype == np.uint8 and camera.white != WHITE:
            right, reason = False, f" (bytes are {WHITE:g} where full, and white is {camera.white:g})"
    if not good or not right:
        form = ", ".join(str(channels) if axis == "C" else axis for axis in axes)
        dtype = "float32" if depth else "uint8" if camera.white == WHITE else "numbers"
        shape = "of no shape" if part.shape is None else list(part.shape)
        raise UserError(
            f"{where}: {name} is {part.dtype} {shape}, expected {dtype} [{form}]{reason}",
            fix="write it in that form, or say what form it has with --episode-keys FILE.toml.",
        )


def object_name(model_id: str) -> str:
    """Return the words of an object: ``banana`` for ``011_banana``; underscores are spaces."""
    return _NUMBER.sub("", model_id, count=1).replace("_", " ").strip() or model_id
