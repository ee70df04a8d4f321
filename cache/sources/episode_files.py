"""What lies in an HDF5 file of episodes, each part looked at before it is read: the file may be anybody's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import UserError
from cache.runtime.hdf5_safety import inner_dataset, is_inner, open_hdf5
from cache.sources.episode_keys import WHITE, CameraKeys, EpisodeKeys

# Of one picture, and of one episode: a compressed file may claim any size.
MOST_BYTES, MOST_OBJECTS = 2**28, 10_000


def open_episodes(path: Path, keys: EpisodeKeys) -> Iterator[tuple[h5py.File, str, str]]:
    """Yield (the open file, key, words for messages) of every episode of a file.

    Raises
    ------
    UserError
        If the file cannot be read, or holds no episode.
    """
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


def check_cameras(file: h5py.File, key: str, keys: EpisodeKeys, where: str) -> None:
    """Refuse an episode whose pictures or depth are missing or of another form than its keys say."""
    for camera in keys.cameras:
        _check_part(file, key, keys, camera, where, depth=False)
        if camera.depth:
            _check_part(file, key, keys, camera, where, depth=True)


def read_texts(file: h5py.File, place: str, name: str, where: str) -> list[str]:
    """Return the texts of a dataset or, behind an @, of an attribute; one may be a list in JSON.

    Raises
    ------
    UserError
        If there is nothing of that name.
    TypeError, ValueError
        If it holds no texts, or too many.
    """
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


def read_picture(file: h5py.File, name: str, axes: str, step: int) -> NDArray[Any]:
    """Return a picture [H, W, C] of one time, whatever the order of its axes in the file.

    Raises
    ------
    KeyError, ValueError
        If there is none, or it is of another form or too large.
    OSError
        If it cannot be decompressed.
    """
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
