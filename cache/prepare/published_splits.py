"""Published split lists, and where the six data sets' archives keep the images that the lists name.

A list is a text file of ``SPLIT/CLASS/FILE`` lines, one for each split: ``train_data.txt``,
``val_on_train_data.txt`` and ``val_data.txt``. The archives hold the same files in other folders.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cache.runtime.errors import UserError, nearest_names
from cache.runtime.progress import Progress, counting
from cache.sources.class_texts import read_lines
from cache.sources.decoding import ENDINGS
from cache.sources.folder_walk import is_picture_name, joined
from cache.sources.splits import FOLDERS, LABELLED

# Of images that are listed so many are told of at once.
COUNTED = 1000
# Maps a list's class and file to the image's path below the archive's image folder.
Finder = Callable[[str, str], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where an archive keeps its images: ``folders`` are tried in turn, ``marker`` must be in it."""

    folders: tuple[str, ...]
    finder: Callable[[Path], Finder]
    marker: str = ""


def _by_class(root: Path) -> Finder:
    return lambda class_name, file: f"{class_name}/{file}"


def _flat(root: Path) -> Finder:
    return lambda class_name, file: file


def _by_scene(root: Path) -> Finder:
    """Look class names up in ClassName.txt: its lines read ``/a/abbey`` or ``/o/office/home``.

    ``office_building`` and ``office/building`` are one name in a list, so the name alone does not give
    the path. The letter is a folder, but no part of the name.
    """
    path = root / "ClassName.txt"
    folders = [line.strip().strip("/") for line in read_lines(path) if line.strip()]
    path_of = {folder.partition("/")[2].replace("/", "_"): folder for folder in folders}

    def find(class_name: str, file: str) -> str:
        if class_name not in path_of:
            raise UserError(
                f"{path} has no class {class_name!r}, which the lists name",
                fix=f"{nearest_names(class_name, path_of)}use the lists of this data set.",
            )
        return f"{path_of[class_name]}/{file}"

    return find


LAYOUTS: dict[str, Layout] = {
    "CaltechBirds": Layout(folders=("CUB_200_2011/images",), finder=_by_class),
    "Flower102": Layout(folders=("jpg",), finder=_flat),
    "Food101": Layout(folders=("images", "food-101/images"), finder=_by_class),
    "SUN397": Layout(folders=(".", "SUN397"), finder=_by_scene, marker="ClassName.txt"),
    # Some copies of this archive hold the folder within a folder of the same name.
    "StanfordCars": Layout(folders=("cars_train/cars_train", "cars_train"), finder=_flat),
    "tiered-ImageNet": Layout(folders=("tiered_imagenet/train", "train"), finder=_by_class),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """One data set's extracted archive: its published name, its image folder, how to find an image."""

    name: str
    root: Path
    find: Finder


def open_archive(source: Path, dataset: str) -> Archive:
    """Find the image folder of ``dataset``, whose name may be in any case, below ``source``.

    Raises
    ------
    UserError
        If the data set is unknown or its folder is missing.
    """
    by_folded = {name.casefold(): name for name in LAYOUTS}
    name = by_folded.get(dataset.casefold())
    if name is None:
        raise UserError(
            f"{dataset!r} is not a data set with published lists",
            fix=f"{nearest_names(dataset, LAYOUTS)}choose from {', '.join(LAYOUTS)}.",
        )
    layout = LAYOUTS[name]
    places = (source / folder for folder in layout.folders)
    root = next((place for place in places if place.is_dir() and (place / layout.marker).exists()), None)
    if root is None:
        marked = f" with {layout.marker} in it" if layout.marker else ""
        wanted = " or ".join(str(source / folder) for folder in layout.folders)
        raise UserError(
            f"{source} does not hold {name}: expected the folder {wanted}{marked}",
            fix="extract the archive there, or give the folder that it was extracted into.",
        )
    return Archive(name=name, root=root, find=layout.finder(root))


def list_path(lists: Path, split: str) -> Path:
    """Return the path of one split's list."""
    return lists / f"{FOLDERS[split]}_data.txt"


def read_lists(lists: Path) -> dict[str, list[str]]:
    """Return ``{split: [CLASS/FILE, ...]}`` from a folder of the three lists.

    Raises
    ------
    UserError
        If a list is missing or empty, or a line is not ``SPLIT/CLASS/FILE``.
    """
    for split in LABELLED:
        if not list_path(lists, split).is_file():
            raise UserError(
                f"{lists} has no {list_path(lists, split).name}",
                fix="give the folder that holds train_data.txt, val_on_train_data.txt and val_data.txt.",
            )
    return {split: _read_list(list_path(lists, split), FOLDERS[split]) for split in LABELLED}


def _read_list(path: Path, folder: str) -> list[str]:
    keys = []
    for number, line in enumerate(read_lines(path), start=1):
        line = line.strip()
        if not line:
            continue
        parts = line.split("/")
        # A leading dot is a hidden file, and '..' would lead out of the data folder.
        well_formed = len(parts) == 3 and parts[0] == folder and not any(p[:1] in ("", ".") for p in parts)
        if not well_formed or not is_picture_name(parts[2]):
            raise UserError(
                f"{path}, line {number}: {line[:80]!r} is not {folder}/CLASS/FILE of an image",
                fix=f"write one {folder}/CLASS/FILE a line; images end in {', '.join(sorted(ENDINGS))}.",
            )
        keys.append(f"{parts[1]}/{parts[2]}")
    if not keys:
        raise UserError(f"{path} names no image", fix=f"write one {folder}/CLASS/FILE a line.")
    return keys


def images_below(root: Path) -> Iterator[str]:
    """Yield the paths of all images below ``root``, relative to it, with ``/``.

    Hidden files and folders are left out; links to folders are followed, for big sets are often linked
    together from several disks.
    """
    for where, folders, files in os.walk(root, followlinks=True):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        below = Path(where).relative_to(root).as_posix()
        yield from (joined("" if below == "." else below, file) for file in files if is_picture_name(file))


def sort_out(
    archive: Archive, lists: Mapping[str, list[str]], progress: Progress
) -> tuple[dict[str, dict[str, str]], list[str], list[str]]:
    """Return ``{split: {CLASS/FILE: path below the image folder}}``, the missing and the surplus images.

    Missing ones are ``SPLIT/CLASS/FILE``, surplus ones paths below the image folder that no list names.
    """
    progress.start(None)
    there = set(counting(progress, images_below(archive.root), at_once=COUNTED))
    placed: dict[str, dict[str, str]] = {split: {} for split in lists}
    missing, named = [], set()
    for split, keys in lists.items():
        for key in keys:
            path = archive.find(*key.split("/"))
            if path in named:
                raise UserError(
                    f"the lists name the image {path} twice (again as {FOLDERS[split]}/{key})",
                    fix="remove one of the two lines: no image may be in two splits.",
                )
            named.add(path)
            if path in there:
                placed[split][key] = path
            else:
                missing.append(f"{FOLDERS[split]}/{key}")
    return placed, missing, sorted(there - named)
