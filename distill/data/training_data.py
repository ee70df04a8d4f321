"""The batches that training sees: of images, with the teachers' rows of them."""

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
from cache.runtime.errors import UserError, shortened
from cache.runtime.transfer import to_device
from cache.store.mapped_arrays import MappedRows
from cache.store.split_rows import SplitRows
from distill.config import LossConfig
from distill.data.batch import Batch, Crops, Targets, own_share
from distill.data.crop_views import TrainingViews
from distill.data.epoch_order import epoch_batches, mixed_batches
from distill.data.pixels import Pixels
from distill.data.pool import Pool, pool_places
from distill.data.training_rows import TrainingRows

# 65,536 rows x 768 x 2 bytes = 100 MB at most.
CAPTIONS_AT_ONCE = 65_536


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

    def rows_of(self, images: NDArray[np.int64]) -> Tensor:
        """Return the raw rows of some images [B, D] float32."""
        return torch.from_numpy(self.embeddings[self.row_of[images]]).float()

    def sampled(self, most: int, *, seed: int) -> Tensor:
        """Return the raw rows of at most so many images [N, D] float32, as the seed draws them."""
        images = np.arange(len(self.row_of))
        if len(images) > most:
            images = np.sort(np.random.default_rng(seed).choice(len(images), most, replace=False))
        return self.rows_of(images)

    def targets(self, columns: BatchColumns, crops: Crops | None = None) -> Targets:
        """Return the targets of a batch's images, or of these crops of them."""
        captions = self.captions
        views = self.views if crops is not None else None
        embeddings = (
            columns.of(views, lambda chosen: views.embeddings(chosen, crops))
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
    pool_share: float = -1.0
    balanced: bool = False

    def __post_init__(self) -> None:
        self.labels = self.joined.labels

    @property
    def count(self) -> int:
        """How many images are trained on, but for those of the pool."""
        return len(self.joined.images) - sum(self.joined.pool.values())

    @property
    def left_out(self) -> int:
        """How many are not, because they have no row."""
        return self.joined.left_out

    @property
    def unused(self) -> int:
        """How many are not, because they have no label."""
        return self.joined.unused

    def keys_of(self, batches: Sequence[NDArray[np.int64]], step: int) -> list[str]:
        """Return the keys of some images of a step."""
        return [self.joined.images[i].key for i in batches[step][:3]]

    def columns(self, chosen: NDArray[np.int64], device: torch.device) -> BatchColumns:
        """Return what the cache has of a batch's images, on the device, for every student that takes it."""
        return BatchColumns(chosen, device)

    def crops(self, chosen: NDArray[np.int64], generator: Generator) -> Crops | None:
        """Return one of the cache's views of each of these images; None where the run replays none.

        It is the same view whichever teacher is asked about it.
        """
        views = self.teachers[0].views if self.teachers else None
        return views.draw(chosen, generator) if views is not None else None

    def epoch(self, epoch: int, *, batch_size: int, repeats: int, seed: int) -> list[NDArray[np.int64]]:
        """Return the image indices of an epoch's batches; UserError where there is none."""
        joined, least = self.joined, max(2, current_ranks().world)
        labelled, pool, support = joined.labelled, sum(joined.pool.values()), joined.support
        few = min(support, batch_size // 2)
        places = self.places_of_pool(batch_size)
        drawn = epoch_batches(
            labelled or pool,
            batch_size=batch_size - few - (places if labelled else 0),
            repeats=repeats,
            seed=seed,
            epoch=epoch,
            least=1 if labelled and (places or few) else least,
            labels=self.labels[:labelled] if self.balanced else None,
        )
        at = {"seed": seed, "epoch": epoch, "least": least}
        if labelled and places:
            drawn = mixed_batches(drawn, labelled, pool, places=places, **at | ({"least": 1} if few else {}))
        if few:
            drawn = mixed_batches(drawn, labelled + pool, support, places=few, **at)
        if not drawn:
            raise UserError(
                f"of {len(joined.images)} training images there is no batch of at least {least}",
                fix="add training images.",
            )
        return drawn

    def places_of_pool(self, batch_size: int) -> int:
        """Return how many images of a batch are of the pool."""
        joined, few = self.joined, min(self.joined.support, batch_size // 2)
        return pool_places(
            self.pool_share,
            labelled=joined.labelled,
            pool=sum(joined.pool.values()),
            batch_size=batch_size - few,
        )

    def pool_of(self, batch_size: int) -> Pool | None:
        """Return the pool as a summary tells it; None where there is none."""
        joined = self.joined
        if not joined.pool:
            return None
        share = self.places_of_pool(batch_size) / batch_size
        return Pool(share=share, sources=joined.pool_sources, test_images=joined.test_images)

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
    change them, and where images of another split or fewer classes are learnt from, each step takes them from
    its rows and texts.
    UserError if captions are asked for and the cache has none, or one for all images.
    """
    captions = joined.rows.caption_embeddings if loss.cap else None
    if loss.cap and captions is None:
        of_pool, of_support = ("the pool's",) * bool(joined.pool), ("the OOD",) * bool(joined.support)
        images = " and ".join(("the training", *of_pool, *of_support)) + " images"
        raise UserError(
            f"loss.cap is on, but the cache {cache.path} has no captions of {images}",
            fix="run cache-features again with --captions, or set loss.cap=0.",
        )
    if captions is not None:
        texts = joined.rows.captions
        caption = texts[joined.row_of[0]] if texts else ""
        check_captions_differ(cache, captions, joined.row_of, caption)
    plain = isinstance(joined.rows, SplitRows)
    fixed = loss.vlalign and not (learnt_text or loss.center) and views is None and plain
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
