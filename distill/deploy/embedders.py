"""What embeds pictures with torch, and what a cache's teacher has said of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cache import EmbeddingCache
from cache.build.add_texts import given_teacher
from cache.runtime.devices import choose_device
from cache.runtime.errors import UserError
from cache.sources.accounts import Reason
from cache.sources.decoding import UnreadableImage, content_of
from cache.sources.samples import Sample
from cache.store.split_rows import SplitRows
from distill.deploy.embedder import Embedder, EmbedOptions
from distill.deploy.row_files import RowNames
from distill.judge.open_run import open_trained

# Rows of a cache that are written at once.
BLOCK = 4096


def of_run(run: Path, options: EmbedOptions) -> Embedder:
    """Return a run's student, judged as it is; UserError where it is of episodes, or has no teacher."""
    trained = open_trained(
        run,
        checkpoint=options.checkpoint,
        device=options.device,
        cache_dir=options.cache_dir,
        code=options.code,
        rows_alone=True,
    )
    if trained.cache.holds_episodes or not trained.heads:
        kind = "of episodes" if trained.cache.holds_episodes else "a closed-set student"
        raise UserError(f"{run} is {kind}: it has no row of a photo", fix="give a run that photos taught.")
    forward, head, device = trained.model.forward(()), trained.heads[0], trained.model.device

    @torch.inference_mode()
    def embed(images: NDArray[Any]) -> NDArray[np.float32]:
        outputs = forward(torch.from_numpy(images).to(device))
        return head.embed(outputs).float().cpu().numpy()

    decode: Any = trained.model.augment.eval_decode
    return Embedder(
        embed_dim=head.stop - head.start,
        prepare=lambda sample: decode(sample).numpy(),
        embed=embed,
        decoding=trained.cache.spec.decoding,
    )


def of_teacher(folder: Path, options: EmbedOptions) -> Embedder:
    """Return the teacher of a cache, which is named; UserError where that is another."""
    assert options.teacher_model is not None
    cache = EmbeddingCache.open(folder)
    teacher: Any = given_teacher(
        cache, options.teacher_model, options.pretrained, choose_device(options.device)
    )

    def embed(images: NDArray[Any]) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = teacher.embed_images(torch.from_numpy(images)).numpy()
        return rows

    return Embedder(
        embed_dim=cache.embed_dim,
        prepare=lambda sample: teacher.transform(sample.pictures()[0]).numpy(),
        embed=embed,
        decoding=cache.spec.decoding,
    )


def of_cache(folder: Path) -> Embedder:
    """Return what looks up the rows that a cache has of pictures of the same content.

    UserError where it knows the content of none, as of rows that were made elsewhere without their pictures.
    """
    cache = EmbeddingCache.open(folder)
    splits = [cache.split(name) for name in cache.split_names]
    contents = [np.asarray(rows.files.content[:]) for rows in splits]
    known = [np.flatnonzero(content.any(axis=1)) for content in contents]
    if not sum(map(len, known)):
        raise UserError(
            f"{folder} does not know the pictures that its rows are of",
            fix="give its teacher with --teacher-model, or leave SOURCE out for all its rows.",
        )
    # 16 bytes a row: the beginning of its hash, which is looked at as a whole where that is found.
    heads = np.concatenate([_head(content[at]) for content, at in zip(contents, known, strict=True)])
    split_of = np.repeat(np.arange(len(splits)), [len(at) for at in known])
    order, row_of = np.argsort(heads, kind="stable"), np.concatenate(known)
    heads = heads[order]
    del contents

    def prepare(sample: Sample) -> NDArray[Any]:
        digest = sha256(content_of(sample.content)).digest()
        head = _head(np.frombuffer(digest, dtype=np.uint8)[None])[0]
        for at in range(int(np.searchsorted(heads, head)), len(heads)):
            if heads[at] != head:
                break
            rows, row = splits[split_of[order[at]]], int(row_of[order[at]])
            if bytes(rows.files.content[row]) == digest:
                return np.asarray(rows.embeddings[row])
        raise UnreadableImage(Reason.NO_ROW.value)

    return Embedder(
        embed_dim=cache.embed_dim,
        prepare=prepare,
        embed=lambda rows: rows.astype(np.float32),
        decoding=cache.spec.decoding,
    )


def _head(content: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the first eight bytes of hashes [n, 32] as numbers."""
    heads: NDArray[np.uint64] = np.ascontiguousarray(content[:, :8]).view(">u8")[:, 0].astype(np.uint64)
    return heads


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The rows of some splits of a cache."""

    splits: Sequence[SplitRows]
    embed_dim: int

    def __len__(self) -> int:
        return sum(map(len, self.splits))

    def blocks(self) -> Iterator[tuple[list[RowNames], NDArray[Any]]]:
        """Yield all rows, raw, some thousand at once, with what they are of."""
        for split in self.splits:
            for start in range(0, len(split), BLOCK):
                stop = min(start + BLOCK, len(split))
                names = [
                    RowNames(key=key, split=split.name, classes=_classes(split, row))
                    for row, key in enumerate(split.keys[start:stop], start)
                ]
                yield names, np.asarray(split.embeddings[start:stop])


def kept_rows(folder: Path, options: EmbedOptions) -> Kept:
    """Return the rows of a cache, or of some of its splits; UserError where it has not one of them."""
    cache = EmbeddingCache.open(folder)
    names = dict.fromkeys(options.splits or cache.split_names)
    return Kept(splits=[cache.split(name) for name in names], embed_dim=cache.embed_dim)


def _classes(split: SplitRows, row: int) -> tuple[str, ...]:
    label = split.labels[row]
    if split.labels.ndim == 1:
        return (split.class_names[label],) if label >= 0 else ()
    return tuple(split.class_names[i] for i in np.flatnonzero(label))
