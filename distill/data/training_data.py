"""Images joined to cache rows by key, and the batches that training sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from cache import EmbeddingCache
from cache.runtime.distributed import current_ranks
from cache.runtime.errors import CacheMismatch, UserError, shortened
from cache.runtime.transfer import to_device
from cache.sources.key_hashes import hashes_of
from cache.sources.samples import Sample
from cache.store.mapped_arrays import MappedRows
from cache.store.split_rows import SplitRows
from distill.config import LossConfig
from distill.data.batch import Batch, Crops, Targets, own_share
from distill.data.crop_views import TrainingViews
from distill.data.id_val import SetAside
from distill.data.identity_reader import IdentityReader
from distill.data.pixels import Pixels
from distill.data.support import SupportRows

# 65,536 rows x 768 x 2 bytes = 100 MB at most.
CAPTIONS_AT_ONCE = 65_536


@dataclass(frozen=True, kw_only=True)
class TrainingRows:
    """The training images that have a teacher row, by key, and that row's number in the cache.

    ``id_val`` are images of the same classes set aside to choose on; ``left_out`` counts those without a row;
    the last ``support`` images are few-shot images of OOD classes.
    """

    rows: SplitRows | SupportRows
    images: tuple[Sample, ...]
    row_of: NDArray[np.int64]
    id_val: tuple[Sample, ...] = ()
    left_out: int = 0
    support: int = 0


def join_training_rows(identities: IdentityReader, *, id_val: float = 0.0) -> TrainingRows:
    """Join a folder's training images to a cache's rows by key.

    ``id_val`` is the share of images set aside, chosen by the hash of their key, so that the same images are
    set aside on every machine and whatever is added later; each class keeps at least one training image.
    CacheMismatch if the class folders differ, or no image has a row.
    """
    cache, folder = identities.cache, identities.folder
    split, rows = folder.split("train"), cache.split("train")
    if split.classes != rows.class_names:
        only_here = sorted(set(split.classes) - set(rows.class_names))
        only_there = sorted(set(rows.class_names) - set(split.classes))
        raise CacheMismatch(
            f"the training classes of {folder.path} and of {cache.path} differ "
            f"(only in the data: {only_here[:3] or 'none'}; only in the cache: {only_there[:3] or 'none'})",
            fix="give the data folder that the cache was made from.",
        )
    images, row_of = split.all(), identities.joined("train").row_of
    has_row = row_of >= 0
    if not has_row.any():
        raise CacheMismatch(
            f"none of the {len(images)} training images of {folder.path} has a row in {cache.path} "
            f"(images like {images[0].key!r}, rows like {rows.keys[0]!r})",
            fix="give the data folder that the cache was made from.",
        )
    aside = np.zeros_like(has_row)
    if id_val:
        hashes, labels = hashes_of(image.key for image in images), np.asarray(rows.labels)[row_of]
        with_row = [(hashes[has_row], labels[has_row])]
        aside = has_row & SetAside.drawn(id_val, len(rows.class_names), lambda: with_row).of(hashes)
    chosen = has_row & ~aside
    return TrainingRows(
        rows=rows,
        images=_taken(images, chosen),
        row_of=row_of[chosen],
        id_val=_taken(images, aside),
        left_out=int((~has_row).sum()),
    )


def _taken(images: tuple[Sample, ...], chosen: NDArray[np.bool_]) -> tuple[Sample, ...]:
    return images if chosen.all() else tuple(images[i] for i in np.flatnonzero(chosen).tolist())


def epoch_batches(
    count: int, *, batch_size: int, repeats: int, seed: int, epoch: int, least: int = 2
) -> list[NDArray[np.int64]]:
    """Return an epoch's batches of image indices: ``repeats`` permutations one after the other.

    A function of seed and epoch alone. A last batch of fewer than ``least`` images is left out: batch
    norm cannot train on one, and each of several processes needs one.
    """
    rng = np.random.default_rng([seed, epoch])
    order = np.concatenate([rng.permutation(count) for _ in range(repeats)])
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [batch for batch in batches if len(batch) >= least]


def mixed_batches(
    count: int, support: int, *, batch_size: int, repeats: int, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """Return an epoch's batches for few-shot finetuning.

    Images ``0 .. count - 1`` are in-distribution: each comes ``repeats`` times, in the order that
    :func:`epoch_batches` draws. The ``support`` few-shot images after them take half the places of every
    batch, or as many as there are: no image twice in a batch, and over an epoch each as often as any
    other (up to one). A function of seed and epoch alone.
    """
    places = min(support, batch_size // 2)
    drawn = epoch_batches(
        count, batch_size=batch_size - places, repeats=repeats, seed=seed, epoch=epoch, least=1
    )
    rng = np.random.default_rng([seed, epoch, support])
    queue: list[int] = []
    batches = []
    for batch in drawn:
        chosen = queue[:places]
        queue = queue[places:]
        if len(chosen) < places:
            fresh = rng.permutation(support).tolist()
            more = [image for image in fresh if image not in chosen][: places - len(chosen)]
            queue = [image for image in fresh if image not in more]
            chosen += more
        batches.append(rng.permutation(np.concatenate([batch, count + np.array(chosen, dtype=np.int64)])))
    return batches


class BatchColumns:
    """What the cache has of one batch's images, on the device: read and moved once, whoever asks for it."""

    def __init__(self, chosen: NDArray[np.int64], device: torch.device) -> None:
        """Of the images ``chosen``."""
        self.chosen, self.device = chosen, device
        # With the column itself, so that its id is not another's later.
        self._columns: dict[int, tuple[Any, Tensor]] = {}

    def of(self, column: Any, read: Callable[[NDArray[np.int64]], NDArray[Any]]) -> Tensor:
        """Return what ``read`` gives of ``column`` for the batch's images, in their order."""
        if id(column) not in self._columns:
            self._columns[id(column)] = column, to_device(torch.from_numpy(read(self.chosen)), self.device)
        return self._columns[id(column)][1]

    def rows(self, column: MappedRows, row_of: NDArray[np.int64]) -> Tensor:
        """Return a column's rows, of which ``row_of[i]`` is image i's."""
        return self.of(column, lambda chosen: column[row_of[chosen]])


@dataclass(frozen=True, kw_only=True)
class TeacherRows:
    """One teacher's rows of the training images: row ``row_of[i]`` of every column is image i.

    With ``views``, which come without nearest texts, a batch can ask for those instead.
    """

    embeddings: MappedRows
    row_of: NDArray[np.int64]
    captions: MappedRows | None = None
    nearest: MappedRows | None = None
    similarity: MappedRows | None = None
    views: TrainingViews | None = None

    def targets(self, columns: BatchColumns, crops: Crops | None = None) -> Targets:
        """Return the targets of a batch's images, or of these crops of them."""
        captions = self.captions
        views = self.views if crops is not None else None
        embeddings = (
            columns.of(views.stored, lambda chosen: views.embeddings(chosen, crops))
            if views is not None and crops is not None
            else columns.rows(self.embeddings, self.row_of)
        )
        return Targets(
            teacher_BD=embeddings.float(),
            caption_BD=columns.rows(captions, self.row_of).float() if captions is not None else None,
            nearest_BK=columns.rows(self.nearest, self.row_of) if self.nearest is not None else None,
            similarity_BK=columns.rows(self.similarity, self.row_of) if self.similarity is not None else None,
        )


@dataclass(kw_only=True)
class TrainingData:
    """Everything a training batch is made of; targets are gathered here, in the main process."""

    joined: TrainingRows
    pixels: Pixels
    teachers: tuple[TeacherRows, ...]

    def __post_init__(self) -> None:
        self.labels = self.joined.rows.labels[self.joined.row_of]

    @property
    def count(self) -> int:
        """How many images are trained on."""
        return len(self.joined.images)

    @property
    def left_out(self) -> int:
        """How many are not, because they have no row."""
        return self.joined.left_out

    def keys_of(self, batches: Sequence[NDArray[np.int64]], step: int) -> list[str]:
        """Return the keys of some images of a step."""
        return [self.joined.images[i].key for i in batches[step][:3]]

    def columns(self, chosen: NDArray[np.int64], device: torch.device) -> BatchColumns:
        """Return what the cache has of a batch's images, on the device, for every student that takes it."""
        return BatchColumns(chosen, device)

    def crops(self, chosen: NDArray[np.int64], generator: Generator) -> Crops | None:
        """Return one of the cache's views of each of these images; None where the run replays none."""
        views = self.teachers[0].views if self.teachers else None
        return views.draw(chosen, generator) if views is not None else None

    def epoch(self, epoch: int, *, batch_size: int, repeats: int, seed: int) -> list[NDArray[np.int64]]:
        """Return the image indices of an epoch's batches; UserError where there is none."""
        support = self.joined.support
        drawn: dict[str, Any] = {"batch_size": batch_size, "repeats": repeats, "seed": seed, "epoch": epoch}
        if support:
            return mixed_batches(len(self.joined.images) - support, support, **drawn)
        least = max(2, current_ranks().world)
        batches = epoch_batches(len(self.joined.images), least=least, **drawn)
        if not batches:
            raise UserError(
                f"of {len(self.joined.images)} training images there is no batch of at least {least}",
                fix="add training images.",
            )
        return batches

    def images(self, batches: Sequence[NDArray[np.int64]]) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield every batch's image indices, and this process's share of the images, decoded."""
        shares = [chosen[own_share(len(chosen)).rows] for chosen in batches]
        for chosen, (_, images) in zip(batches, self.pixels.batches(shares), strict=True):
            yield chosen, images

    def batch(
        self,
        chosen: NDArray[np.int64],
        images: Tensor,
        crops: Crops | None = None,
        columns: BatchColumns | None = None,
    ) -> Batch:
        """Return the batch of these images, with the teachers' targets for them, or of these crops.

        ``columns`` are on the images' device, and may be shared with other students' data.
        """
        columns = columns or BatchColumns(chosen, images.device)
        return Batch(
            image_BXRR=images,
            label_B=columns.of(self.joined.rows.labels, lambda chosen: self.labels[chosen]),
            targets=tuple(teacher.targets(columns, crops) for teacher in self.teachers),
        )


def check_captions_differ(
    cache: EmbeddingCache, rows: MappedRows, row_of: NDArray[np.int64] | None = None, caption: str = ""
) -> None:
    """Refuse captions of which each is the same: UserError.

    ``rows`` are the captions' embeddings, of images ``row_of`` or of all; ``caption`` is the first's text.
    """
    count = len(rows) if row_of is None else len(row_of)
    if count < 2:
        return
    first = rows[0 if row_of is None else row_of[0]]
    # The first block answers nearly always.
    for start in range(0, count, CAPTIONS_AT_ONCE):
        part = slice(start, start + CAPTIONS_AT_ONCE)
        block = rows[part if row_of is None else row_of[part]]
        if (block != first).any():
            return
    raise UserError(
        f"loss.cap is on, but all {count:,} training images of {cache.path} have the same caption"
        + (f" ({shortened(caption)})" if caption else ""),
        fix="give a caption of its own to each image (cache-features --captions; 'distill cache info' counts "
        "them), or set loss.cap=0.",
    )


def teacher_rows(
    cache: EmbeddingCache,
    joined: TrainingRows,
    loss: LossConfig,
    *,
    text: str,
    learnt_text: bool = False,
    views: TrainingViews | None = None,
) -> TeacherRows:
    """Return one teacher's rows with the targets that ``loss`` needs.

    The nearest texts are the cache's own where it keeps them; else, with ``learnt_text`` or ``views``, which
    change them, and where few-shot classes are among the texts, each step takes them from its rows and texts.
    UserError if captions are asked for and the cache has none, or one for all images.
    """
    captions = joined.rows.caption_embeddings if loss.cap else None
    if loss.cap and captions is None:
        images = "the training and the OOD images" if joined.support else "the training images"
        raise UserError(
            f"loss.cap is on, but the cache {cache.path} has no captions of {images}",
            fix="run cache-features again with --captions, or set loss.cap=0.",
        )
    if captions is not None:
        caption = joined.rows.captions[joined.row_of[0]] if joined.rows.captions else ""
        check_captions_differ(cache, captions, joined.row_of, caption)
    fixed = loss.vlalign and not learnt_text and views is None and not joined.support
    stored = cache.neighbours("train", text, loss.vlalign_k) if fixed else None
    nearest, similarity = stored or (None, None)
    return TeacherRows(
        embeddings=joined.rows.embeddings,
        row_of=joined.row_of,
        captions=captions,
        nearest=nearest,
        similarity=similarity,
        views=views,
    )
