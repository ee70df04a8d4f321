"""Episodes of a robot in HDF5: what its cameras saw, with depth or without, and the objects in the scene.

Layout: ``DATA/train.h5``, ``DATA/val_on_train.h5`` (optional) and ``DATA/val.h5``, one group an episode. What
lies where in an episode :class:`cache.sources.episode_keys.EpisodeKeys` says; unless told otherwise there are
``dict_str_base_camera`` and ``dict_str_hand_camera``, each with ``dict_str_rgb`` [H, W, 3] uint8 and
``dict_str_depth`` [H, W, 1] float32, and ``model_ids``, byte texts such as ``011_banana``. What ``train``
shows are the in-distribution (ID) objects; ``val`` may show those and others.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.runtime.errors import UserError
from cache.runtime.hdf5_safety import open_hdf5
from cache.sources.accounts import Account
from cache.sources.decoding import UnreadableImage
from cache.sources.episode_files import check_cameras, open_episodes, read_picture, read_texts
from cache.sources.episode_keys import RESEARCH_KEYS, WHITE, CameraKeys, EpisodeKeys
from cache.sources.key_chunks import KeyChunks
from cache.sources.key_hashes import hashes_of
from cache.sources.names import check_class_names, check_inner
from cache.sources.samples import Chunk, DataFolder, Listed
from cache.sources.splits import FOLDERS, LABELLED

ENDING = ".h5"
# Of YCB's objects, such as 011_banana and 063-a_marbles.
_NUMBER = re.compile(r"\d+(-[a-z])?_")


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraFrame:
    """What one camera saw: RGB uint8 [H, W, 3] and depth float32 [H, W, 1], where it has depth."""

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeSample:
    """One episode: its key in its file, and the objects that it shows, in the order of its split's classes.

    The losses compare the student with what the teacher says of the main camera, so that is its ``image``.
    """

    key: str
    path: Path
    labels: tuple[str, ...]
    keys: EpisodeKeys = RESEARCH_KEYS
    caption: ClassVar[None] = None

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
        rgb = read_picture(file, self.keys.place(self.key, camera.rgb), camera.axes, step)
        if camera.white != WHITE:
            # Resizing overshoots a little; what is far above was scaled otherwise, and would all be white.
            if not rgb.max() <= 2 * camera.white:
                raise ValueError(f"{camera.rgb} is up to {rgb.max():g}, and white is {camera.white:g}")
            rgb = (rgb * (WHITE / camera.white)).round().clip(0, WHITE)
        depth = None
        if camera.depth:
            depth = read_picture(file, self.keys.place(self.key, camera.depth), camera.axes_of_depth, step)
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

    def content(self) -> bytes:
        """Return that there is no file of a picture."""
        return b""

    def identity(self) -> tuple[str, int, int]:
        """Return (SHA-256 of what the cameras saw, bytes and modification time in ns of the file)."""
        try:
            frames, status = self.frames(), self.status()
        except (OSError, UnreadableImage):
            return "", 0, 0
        content = sha256()
        for frame in frames.values():
            content.update(frame.rgb.tobytes())
            # The teacher does not see it, but the student does.
            content.update(b"" if frame.depth is None else frame.depth.tobytes())
        return content.hexdigest(), *status

    def status(self) -> tuple[int, int]:
        """Return bytes and modification time in ns of the file; OSError where there is none."""
        status = self.path.stat()
        return status.st_size, status.st_mtime_ns


class EpisodeSource:
    """The episodes of one file, in chunks by the hash of their keys.

    A process reads which episodes there are, and their objects, when it first has to; ``episodes`` are those
    that the scan found, by key. The size and time of an episode are its file's.
    """

    multi_label = True

    def __init__(
        self,
        split: str,
        path: Path,
        classes: tuple[str, ...],
        keys: EpisodeKeys,
        *,
        episodes: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.split, self.path, self.classes, self.keys = split, path, classes, keys
        self._given = episodes

    def __reduce__(self) -> tuple[Any, ...]:
        return EpisodeSource, (self.split, self.path, self.classes, self.keys)

    def __len__(self) -> int:
        return len(self._by_key)

    def chunks(self) -> Sequence[Chunk]:
        """Return the chunks, with the size and time of the file in their identity."""
        status = self.path.stat()
        return self._chunks.chunks(np.tile([status.st_size, status.st_mtime_ns], (len(self), 1)))

    def list(self, chunk: str) -> Iterator[Listed]:
        """Yield the episodes of a chunk by key."""
        status = self.path.stat()
        for sample in self.read(chunk):
            yield Listed(sample.key, sample.labels, status.st_size, status.st_mtime_ns)

    def read(self, chunk: str, keys: Container[str] | None = None) -> Iterator[EpisodeSample]:
        """Yield the episodes of a chunk by key, of ``keys`` alone where there are any."""
        samples = self.all()
        for place in sorted(self._chunks.keys(chunk).tolist()):
            if keys is None or samples[place].key in keys:
                yield samples[place]

    def account(self) -> Account:
        """Return that nothing is left out: an episode that is none is an error."""
        return Account()

    def samples(self, keys: Sequence[str]) -> Iterator[EpisodeSample]:
        """Yield episodes in the order of keys; KeyError for one that is not in the file."""
        return (self._by_key[key] for key in keys)

    def all(self) -> tuple[EpisodeSample, ...]:
        """Return every episode, sorted by key."""
        return tuple(self._by_key.values())

    @cached_property
    def _by_key(self) -> dict[str, EpisodeSample]:
        episodes = dict(_objects(self.path, self.keys)) if self._given is None else self._given
        return {
            key: EpisodeSample(
                key=key,
                path=self.path,
                labels=tuple(one for one in self.classes if one in objects),
                keys=self.keys,
            )
            for key, objects in sorted(episodes.items())
        }

    @cached_property
    def _chunks(self) -> KeyChunks:
        return KeyChunks.of(hashes_of(self._by_key))


@dataclass(frozen=True, kw_only=True)
class EpisodeFolder(DataFolder):
    """The episode files of one data folder; a split's objects are ID ones sorted, then OOD ones sorted."""

    split_is = f"file {{}}{ENDING}"
    layout = "train.h5, val_on_train.h5 and val.h5 (both optional)"
    keys: EpisodeKeys = RESEARCH_KEYS

    @classmethod
    def scan(
        cls, path: Path, keys: EpisodeKeys | None = None, *, require: Iterable[str] = ("train",)
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
        files = {name: path / f"{FOLDERS[name]}{ENDING}" for name in LABELLED}
        for name in require:
            if not files[name].is_file():
                raise cls.missing(path, name)
        present = {name: dict(_objects(file, keys)) for name, file in files.items() if file.is_file()}
        classes = _classes(path, present)
        splits = {
            name: EpisodeSource(name, files[name], classes[name], keys, episodes=episodes)
            for name, episodes in present.items()
        }
        return cls(path=path, splits=splits, keys=keys)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Every object, ID ones sorted, then OOD ones sorted."""
        return max((split.classes for split in self.splits.values()), key=len)


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


def unlabelled(path: Path, keys: EpisodeKeys) -> Iterator[tuple[EpisodeSample, str]]:
    """Yield every episode of a file whatever its objects, and why its cameras cannot be read, else ''.

    Raises
    ------
    UserError
        If the file cannot be read, or holds no episode.
    """
    for file, key, where in open_episodes(path, keys):
        sample, problem = EpisodeSample(key=key, path=path, labels=(), keys=keys), ""
        try:
            check_cameras(file, key, keys, where)
        except UserError as error:
            problem = error.problem
        yield sample, problem


def _objects(path: Path, keys: EpisodeKeys) -> Iterator[tuple[str, list[str]]]:
    """Yield (key, objects) of every episode of a file, having looked at the form of its parts."""
    for file, key, where in open_episodes(path, keys):
        check_cameras(file, key, keys, where)
        yield key, _checked_objects(file, key, keys, where)


def _checked_objects(file: h5py.File, key: str, keys: EpisodeKeys, where: str) -> list[str]:
    try:
        check_inner("the episode", [key])
        names = read_texts(file, keys.place(key), keys.objects, where)
        check_class_names([object_name(name) for name in names])
    except (TypeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{where}: {keys.objects} is of {error}, expected texts", fix="write bytes like b'011_banana'."
        ) from error
    except ValueError as error:
        raise UserError(f"{where}: {error}", fix="write it in that form.") from error
    return names


def object_name(model_id: str) -> str:
    """Return the words of an object: ``banana`` for ``011_banana``; underscores are spaces."""
    return _NUMBER.sub("", model_id, count=1).replace("_", " ").strip() or model_id
