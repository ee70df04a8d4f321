"""Augmented views of images, kept for few-shot retrieval: ``support/SPLIT-00000.h5``.

A view is what the teacher says of a RandAugment(2, 9) copy; the plain image's row is in the image
shards already. Shards hold the keys of their images; which images they are, and how they were made, is
in the manifest, so that a build that is killed or repeated redoes only what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cache.errors import UserError
from cache.files import digest, replacing, sha256_of
from cache.images import ImageFolder, ImageRecord, UnreadableImage, load_rgb
from cache.manifest import Manifest, ShardEntry, ViewsEntry
from cache.progress import Progress
from cache.shards import FORMATS
from cache.shards_hdf5 import mapped, read_strings, write_strings

if TYPE_CHECKING:
    from cache.teacher import Teacher

FOLDER = "support"
# The training images too, because alpha and beta are chosen on ID classes.
SPLITS = ("train", "ood_test")
IMAGES_PER_SHARD = 512
OPERATIONS, MAGNITUDE = 2, 9
# Augmented before the teacher's own resize and crop, at the size the original research code did it at.
MARGIN = 256 / 224


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """``views`` an image, the plain one counted; of the first ``shots`` images of each class, 0 for all."""

    views: int
    shots: int = 0
    batch_size: int = 32
    workers: int = 1


def write_views(
    manifest: Manifest,
    out: Path,
    teacher: Teacher,
    folder: ImageFolder,
    options: ViewOptions,
    progress: Progress,
) -> Manifest:
    """Embed augmented copies of the training and OOD images that have a row; continue what is there.

    Raises
    ------
    UserError
        If an image cannot be read any more.
    """
    plans = {name: _plan(manifest, out, folder, name, options) for name in SPLITS if name in folder.splits}
    for name, chunks in plans.items():
        manifest = _keep_sound(manifest, out, name, chunks, options)
    missing = [
        (name, chunk)
        for name, chunks in plans.items()
        for chunk in chunks
        if _made_from(chunk, options) not in manifest.support[name].made_from
    ]
    progress.start(sum(len(chunk) for _, chunk in missing))
    for name, chunk in missing:
        file = _free_name(name, manifest.support[name])
        rows = _embed(teacher, [record for record, _ in chunk], options, progress.advance)
        with replacing(out / file) as temporary, h5py.File(temporary, "w") as shard:
            write_strings(shard, "key", [record.key for record, _ in chunk])
            shard["view_embedding"] = rows.astype(manifest.spec.dtype)
        entry = ShardEntry(
            file=file, rows=len(chunk), bytes=(out / file).stat().st_size, sha256=sha256_of(out / file)
        )
        known = manifest.support[name]
        known = replace(
            known,
            shards=(*known.shards, entry),
            made_from=(*known.made_from, _made_from(chunk, options)),
        )
        manifest = replace(manifest, support={**manifest.support, name: known})
        manifest.save(out)
    return manifest


Chunk = list[tuple[ImageRecord, str]]


def _free_name(split: str, entry: ViewsEntry) -> str:
    numbers = [int(Path(shard.file).stem.rpartition("-")[2]) for shard in entry.shards]
    return f"{FOLDER}/{split}-{max(numbers, default=-1) + 1:05d}.h5"


def _plan(
    manifest: Manifest, out: Path, folder: ImageFolder, split: str, options: ViewOptions
) -> list[Chunk]:
    """Return the images that want views, with their file's hash, cut into shards."""
    read = FORMATS[manifest.spec.format].read
    hashes: dict[str, str] = {}
    for shard in manifest.splits[split].shards:
        rows = read(out / shard.file)
        hashes.update(zip(rows.keys, rows.file_sha256, strict=True))
    counts: dict[int, int] = {}
    chosen: Chunk = []
    for record in folder.splits[split].images:
        if record.key not in hashes or (options.shots and counts.get(record.label, 0) >= options.shots):
            continue
        counts[record.label] = counts.get(record.label, 0) + 1
        chosen.append((record, hashes[record.key]))
    return [chosen[start : start + IMAGES_PER_SHARD] for start in range(0, len(chosen), IMAGES_PER_SHARD)]


def _made_from(chunk: Chunk, options: ViewOptions) -> str:
    return digest([[[record.key, file] for record, file in chunk], options.views, OPERATIONS, MAGNITUDE])


def _keep_sound(
    manifest: Manifest, out: Path, split: str, chunks: Sequence[Chunk], options: ViewOptions
) -> Manifest:
    """Return the manifest less the shards of other images, other views, or a damaged file."""
    wanted = {_made_from(chunk, options) for chunk in chunks}
    known = manifest.support.get(split, ViewsEntry(views=options.views))
    kept = [
        (shard, made_from)
        for shard, made_from in zip(known.shards, known.made_from, strict=True)
        if made_from in wanted
        and (out / shard.file).is_file()
        and sha256_of(out / shard.file) == shard.sha256
    ]
    entry = ViewsEntry(
        views=options.views,
        shards=tuple(shard for shard, _ in kept),
        made_from=tuple(made_from for _, made_from in kept),
    )
    manifest = replace(manifest, support={**manifest.support, split: entry})
    manifest.save(out)
    return manifest


class _Views(Dataset[Any]):
    """Decodes an image and draws its augmented copies; runs in workers."""

    def __init__(self, records: Sequence[ImageRecord], teacher: Teacher, copies: int) -> None:
        from cache.vision import torchvision

        self.records, self.transform, self.copies = records, teacher.transform, copies
        side = round(teacher.spec.image_size * MARGIN)
        self.resize = torchvision.transforms.Resize(side)
        self.augment = torchvision.transforms.RandAugment(OPERATIONS, MAGNITUDE)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Tensor:
        record = self.records[index]
        try:
            image = self.resize(load_rgb(record.path))
        except UnreadableImage as error:
            raise UserError(
                f"{record.path} cannot be read any more ({error})", fix="bring the file back."
            ) from error
        # Torch's generator is the one that RandAugment draws from: the same copies wherever they are drawn.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(sha256(record.key.encode()).digest()[:7], "big"))
            return torch.stack([self.transform(self.augment(image)) for _ in range(self.copies)])


def _embed(
    teacher: Teacher, records: Sequence[ImageRecord], options: ViewOptions, advance: Callable[[int], None]
) -> NDArray[np.float32]:
    loader = DataLoader(
        _Views(records, teacher, options.views - 1),
        batch_size=max(1, options.batch_size // max(1, options.views - 1)),
        num_workers=options.workers,
        prefetch_factor=2 if options.workers else None,
    )
    return np.concatenate(list(_rows(teacher, loader, advance)))


def _rows(
    teacher: Teacher, loader: DataLoader[Tensor], advance: Callable[[int], None]
) -> Iterator[NDArray[np.float32]]:
    for views in loader:
        count, copies = views.shape[:2]
        rows = teacher.embed_images(views.flatten(0, 1))
        yield rows.view(count, copies, -1).numpy()
        advance(count)


def read_views(
    cache: Path, manifest: Manifest, split: str, keys: Sequence[str], views: int | None
) -> NDArray[np.float32]:
    """Return the augmented views of images, [n, V - 1, D] float32; see ``EmbeddingCache.support_views``."""
    entry = manifest.support.get(split)
    wanted = views or (entry.views if entry else 10)
    add = (
        f"add them: the same cache-features command with --support-views {wanted}, "
        "or use --views 1, which needs the plain rows alone."
    )
    if entry is None or entry.views < wanted:
        kept = f"only {entry.views}" if entry else "no"
        raise UserError(f"the cache {cache} keeps {kept} views of the images of {split}", fix=add)
    found: dict[str, NDArray[Any]] = {}
    for shard in entry.shards:
        rows, of_shard = _read_shard(cache / shard.file)
        found.update(zip(of_shard, rows, strict=True))
    missing = [key for key in keys if key not in found]
    if missing:
        raise UserError(
            f"the cache {cache} keeps no views of {len(missing)} of {len(keys)} support images of {split} "
            f"({', '.join(missing[:3])})",
            fix=f"{add.removesuffix('.')} (and a --support-shots of 0, or at least as many as the shots).",
        )
    return np.stack([found[key][: wanted - 1] for key in keys]).astype(np.float32)


def _read_shard(path: Path) -> tuple[NDArray[Any], list[str]]:
    try:
        with h5py.File(path, "r") as file:
            return mapped(path, file["view_embedding"]), read_strings(file, "key")
    except (OSError, KeyError, ValueError, AttributeError) as error:
        raise UserError(
            f"the shard {path} is damaged ({error})", fix="run the same cache-features command again."
        ) from error
