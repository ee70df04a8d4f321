"""Images -> the splits train, id_test and ood_test, in three ways, as a list of images.

By published lists, by a ratio with a seed, or by a list of OOD classes. OOD classes are never trained
on; of each other class some images are held out. Each way draws up a plan; ``split_list`` writes it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache.prepare.published_splits import COUNTED, open_archive, read_lists, sort_out
from cache.prepare.split_list import SplitPlan, SplitSummary, first_few, write_split
from cache.runtime.errors import UserError, nearest_names
from cache.runtime.progress import Progress, Silent, counting
from cache.sources.class_texts import read_lines
from cache.sources.data import open_data
from cache.sources.folder_listing import is_utf8
from cache.sources.image_folder import open_image_folder
from cache.sources.samples import Source
from cache.sources.source_options import AS_THEY_ARE
from cache.sources.splits import LABELLED, POOL


def split_images(source: Path, out: Path, *, progress: Progress | None = None, **given: Any) -> SplitSummary:
    """Split in the way that the arguments say: by ``lists``, by ``ood_classes``, else by a ratio.

    ``out`` is the list that is written; run again, the same command leaves it as it is. ``progress`` is told
    of the images that are sorted into splits.

    Raises
    ------
    UserError
        If the images cannot be split so, or ``out`` is something else.
    """
    by = by_lists if "lists" in given else by_classes if "ood_classes" in given else by_ratio
    return write_split(by(source, progress or Silent(), **given), out)


def by_lists(
    source: Path, progress: Progress, *, dataset: str, lists: Path, allow_missing: bool = False
) -> SplitPlan:
    """Plan the split of one of the six data sets as the published lists say.

    ``dataset`` is one of ``cache.prepare.published_splits.LAYOUTS``, in any case, and ``source`` the folder
    that its archive was extracted into. ``lists`` has the three lists; label2text.txt and chatgpt.txt in it
    are taken along. ``allow_missing`` leaves out images that a list names and ``source`` lacks.

    Raises
    ------
    UserError
        If a folder, list or image is missing.
    """
    if not source.is_dir():
        raise UserError(f"{source} is not a folder", fix="give the folder that holds the images.")
    archive = open_archive(source, dataset)
    images, missing, surplus = sort_out(archive, read_lists(lists), progress)
    if missing and not allow_missing:
        raise UserError(
            f"{archive.root} lacks images that the lists name: {first_few(missing)}",
            fix="extract the whole archive, or leave the images out with --allow-missing.",
        )
    counted = (("missing", missing), ("of no list", surplus))
    left_out = tuple(f"{what}: {first_few(names)}" for what, names in counted if names)
    return SplitPlan(root=archive.root, images=images, texts=lists, left_out=left_out)


def by_ratio(
    source: Path, progress: Progress, *, ood: float = 0.5, id_test: float = 0.3, seed: int = 0
) -> SplitPlan:
    """Plan a split of ``SOURCE/CLASS/**/FILE`` by drawing OOD classes and held-out images.

    ``ood`` is the share of the classes that are OOD, ``id_test`` the share of each other class's images that
    are held out. The same names and seed give the same split on every machine.

    Raises
    ------
    UserError
        If a share leaves a side without a class.
    """
    if not 0 < ood < 1:
        raise UserError(f"the OOD share is {ood}", fix="give a share between 0 and 1, such as 0.5.")
    images = _images_of(source, progress)
    by_class = images.by_class
    count = _share(ood, len(by_class))
    if not 0 < count < len(by_class):
        raise UserError(
            f"an OOD share of {ood} makes {count} of {len(by_class)} classes OOD",
            fix="choose the share so that at least one class is on each side.",
        )
    names = sorted(by_class)
    drawn = _generator(seed).permutation(len(names))[:count]
    return _plan(source, images, {names[i] for i in drawn}, (id_test, seed))


def by_classes(
    source: Path, progress: Progress, *, ood_classes: Path, id_test: float = 0.3, seed: int = 0
) -> SplitPlan:
    """Plan a split of ``SOURCE/CLASS/**/FILE`` with the classes named in a text file as OOD.

    ``ood_classes`` has one class folder a line; blank lines and lines that begin with ``#`` are skipped.
    For one seed the held-out images are those of :func:`by_ratio`.

    Raises
    ------
    UserError
        If a named class is unknown, none is named or none is left.
    """
    lines = [line.strip() for line in read_lines(ood_classes)]
    wanted = {line for line in lines if line and not line.startswith("#")}
    images = _images_of(source, progress)
    by_class = images.by_class
    for name in sorted(wanted - by_class.keys()):
        raise UserError(
            f"{ood_classes} names {name!r}, which is no class folder of {source}",
            fix=f"{nearest_names(name, by_class)}name class folders, one a line.",
        )
    if not wanted or len(wanted) == len(by_class):
        raise UserError(
            f"{ood_classes} names {len(wanted)} of {len(by_class)} classes",
            fix="name at least one class, and leave at least one to train on.",
        )
    return _plan(source, images, wanted, (id_test, seed))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Images:
    """``{class: the keys of its images below it, sorted}``, ``{key: path below the source}`` of the pool, and
    lines on what is in neither."""

    by_class: Mapping[str, Sequence[str]]
    pool: Mapping[str, str]
    left_out: tuple[str, ...]


def _images_of(source: Path, progress: Progress) -> _Images:
    """Return the images of class folders, and those of a pool beside them."""
    opened: Mapping[str, Source] = open_image_folder(str(source), AS_THEY_ARE, "")
    if there := [name for name in opened if name not in ("", POOL)]:
        raise UserError(
            f"{source} is split already ({', '.join(there)})",
            fix=f"give it to cache-features as it is; or give one of its folders, {source}/FOLDER.",
        )
    if "" not in opened or not opened[""].classes:  # then this says why not
        opened = {"": open_data([f"train={source}"]).split("train")}
    by_class: dict[str, list[str]] = {}
    pool: dict[str, str] = {}
    odd: list[str] = []
    progress.start(sum(map(len, opened.values())))
    for split, images in opened.items():
        for sample in counting(progress, images.all(), at_once=COUNTED):
            path = os.path.relpath(sample.where, os.path.abspath(source))
            name, _, file = sample.key.partition("/")
            if not is_utf8(path):
                odd.append(path)
            elif split == POOL:
                pool[sample.key] = path
            else:
                by_class.setdefault(name, []).append(file)
    left_out = [line for one in opened.values() for line in one.account().in_words()]
    if odd:
        left_out.append(f"of a name that is not UTF-8, as a list is: {first_few(odd)}")
    return _Images(by_class=by_class, pool=pool, left_out=tuple(left_out))


def _plan(source: Path, given: _Images, ood_classes: Collection[str], held: tuple[float, int]) -> SplitPlan:
    """Return the plan; ``held`` are the share of a trained class's images that are held out, and a seed."""
    id_test, seed = held
    if not 0 <= id_test < 1:
        raise UserError(
            f"the held-out share is {id_test}", fix="give a share from 0 to below 1, such as 0.3."
        )
    images: dict[str, dict[str, str]] = {split: {} for split in LABELLED}
    for name in sorted(given.by_class):
        files = given.by_class[name]
        held_out = set() if name in ood_classes else _held_out(name, files, share=id_test, seed=seed)
        for file in files:
            split = "ood_test" if name in ood_classes else "id_test" if file in held_out else "train"
            images[split][f"{name}/{file}"] = f"{name}/{file}"
    if given.pool:
        images[POOL] = {**given.pool}
    return SplitPlan(root=source, images=images, texts=source, left_out=given.left_out)


def _held_out(name: str, files: Sequence[str], *, share: float, seed: int) -> set[str]:
    if share == 0 or len(files) < 2:
        return set()
    count = min(max(_share(share, len(files)), 1), len(files) - 1)
    order = _generator(seed, name).permutation(len(files))
    return {files[i] for i in order[:count]}


def _generator(seed: int, name: str | None = None) -> np.random.Generator:
    """Return the seed's generator, or one class's own.

    A class has its own so that images added to one class do not move those of another. Python's hash()
    differs from process to process, so the name counts by its SHA-256.
    """
    if seed < 0:
        raise UserError(f"the seed is {seed}", fix="give a seed of 0 or more.")
    if name is None:
        return np.random.default_rng(seed)
    return np.random.default_rng([seed, *hashlib.sha256(name.encode()).digest()])


def _share(share: float, count: int) -> int:
    """Return the nearest whole number; halves go up, where round() would go to the even number."""
    return int(share * count + 0.5)
