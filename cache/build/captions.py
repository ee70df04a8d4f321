"""One caption an image: from JSON lines, embedded by the teacher, or from the original code's tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.runtime.atomic_files import digest, sha256_of
from cache.runtime.errors import UserError, shortened
from cache.sources.arrays import keys_in_original_order, load_array
from cache.sources.class_texts import MISSING_CAPTION, caption_key, caption_of, read_captions
from cache.sources.image_folder import ImageFolder
from cache.store.shard_rows import ShardRows
from cache.teacher.open_clip_model import Teacher
from cache.teacher.sanity import check_texts, stored


@dataclass(frozen=True, kw_only=True)
class Captions:
    """Captions by key: texts that the teacher embeds, or embeddings that are there already.

    ``sha256`` names their content: a shard that holds other captions is given these. ``source`` is their
    file; ``unused`` are its keys that are no image's.
    """

    sha256: str
    texts: Mapping[str, str]
    embeddings: Mapping[str, NDArray[Any]]
    source: str = ""
    unused: tuple[str, ...] = ()

    def only(self, split: str, keys: Sequence[str]) -> Captions:
        """Return the captions of some images of a split, with the name of the whole."""
        texts = {f"{split}/{key}": caption_of(self.texts, split, key) for key in keys}
        return Captions(
            sha256=self.sha256,
            texts={name: text for name, text in texts.items() if text is not None},
            embeddings={name: self.embeddings[name] for name in texts if name in self.embeddings},
        )

    def added_to(self, rows: ShardRows, teacher: Teacher) -> tuple[ShardRows, int, int]:
        """Return rows with captions, how many images had none of their own, and how many were truncated.

        Ready-made embeddings may cover the training images alone (the original code's do); rows of
        other splits then stay without captions.
        """
        dtype = rows.image_embedding.dtype
        if self.embeddings:
            have = [
                row for key in rows.keys if (row := self.embeddings.get(f"{rows.split}/{key}")) is not None
            ]
            if len(have) < len(rows):
                return replace(rows, captions=None, caption_embedding=None), len(rows), 0
            embedded = stored(
                np.stack(have), str(dtype), lambda i: f"the caption of {rows.split}/{rows.keys[i]}"
            )
            return replace(rows, captions=[""] * len(rows), caption_embedding=embedded), 0, 0
        own = [caption_of(self.texts, rows.split, key) for key in rows.keys]
        texts = [text or MISSING_CAPTION for text in own]
        embeddings, truncated = teacher.embed_texts(texts)
        check_texts(embeddings, texts)
        embedded = stored(embeddings.numpy(), str(dtype), lambda i: f"the caption {shortened(texts[i])}")
        return replace(rows, captions=texts, caption_embedding=embedded), own.count(None), truncated


def load_captions(path: Path, folder: ImageFolder, *, embed_dim: int) -> Captions:
    """Read JSON lines, or a tensor in the original code's order.

    Raises
    ------
    UserError
        If no key matches an image, or the tensor has not one row an image of ``embed_dim`` numbers.
    """
    if path.suffix.lower() in (".pt", ".pth", ".npy"):
        return _from_tensor(path, folder, embed_dim)
    texts = read_captions(path)
    images = [(name, image.key) for name, split in folder.splits.items() for image in split.all()]
    used = {caption_key(texts, name, key) for name, key in images}
    if used == {None}:
        raise UserError(
            f"{path}: none of its {len(texts)} keys is an image of {folder.path}",
            fix=f"write keys like {images[0][1]!r}.",
        )
    unused = tuple(key for key in texts if key not in used)
    return Captions(sha256=digest(texts), texts=texts, embeddings={}, source=path.name, unused=unused)


def _from_tensor(path: Path, folder: ImageFolder, embed_dim: int) -> Captions:
    rows = load_array(str(path))
    keys = keys_in_original_order(folder, len(rows), source=str(path))
    if rows.ndim != 2 or rows.shape[1] != embed_dim:
        raise UserError(
            f"{path} has shape {rows.shape}, expected ({len(keys)}, {embed_dim})",
            fix="give the captions that this very teacher embedded.",
        )
    return Captions(
        sha256=sha256_of(path), texts={}, embeddings=dict(zip(keys, rows, strict=True)), source=path.name
    )
