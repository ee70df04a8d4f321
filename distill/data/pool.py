"""A pool: images without a label, which take a share of every batch; none of them is a test image.

They are the split ``pool``, and the images of train that have no label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import EmbeddingCache
from cache.runtime.errors import UserError, some_of
from cache.sources.splits import POOL, TESTS
from cache.store.split_rows import SplitRows
from distill.config import RunConfig
from distill.config_fields import require

# 65,536 rows x 32 bytes = 2 MB.
CONTENTS_AT_ONCE = 65_536
NAMED = 3
# Losses that ask for no label.
WITHOUT_LABELS = ("mse", "mse_raw", "im_cst", "vlalign", "cap")


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolSource:
    """Where images without a label come from: how many of a ``split``, ``given`` as which sources."""

    split: str
    images: int
    given: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """The images without a label that a run learns from, and what share of a batch they are.

    ``test_images`` is 0, None where the cache does not know the content of its images.
    """

    share: float
    sources: tuple[PoolSource, ...]
    test_images: int | None

    @property
    def images(self) -> int:
        """How many there are."""
        return sum(source.images for source in self.sources)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        value = {"images": self.images, "share": round(self.share, 4)}
        sources = [{**asdict(source), "given": list(source.given)} for source in self.sources]
        return {**value, "sources": sources, "test_images": self.test_images}


def pool_words(pool: Mapping[str, Any]) -> str:
    """Return what :meth:`Pool.to_json` says, in words and without a path; '' of nothing."""
    if not pool:
        return ""
    of = ", ".join(f"{one['images']:,} of {one['split']}" for one in pool["sources"])
    known = pool["test_images"] == 0
    none = "none of them is a test image" if known else "whether one is a test image is not known"
    return f"{pool['images']:,} images without a label ({of}), {pool['share']:.0%} of a batch; {none}"


def takes_pool(config: RunConfig) -> bool:
    """Say whether a run of this config learns from images without a label, where there are any.

    Not where ``data.pool_share`` is 0, or no loss is on that such an image has a part in.
    """
    by_ridge = config.train.head_only == "closed-form"  # which asks for no loss
    sees = by_ridge or any(getattr(config.loss, name) for name in WITHOUT_LABELS)
    return bool(config.data.pool_share) and sees and not config.train.closed_set


def learnt_splits(config: RunConfig, cache: EmbeddingCache, splits: Sequence[str]) -> tuple[str, ...]:
    """Return those of the data's ``splits`` that a run learns from."""
    pool = (POOL,) if takes_pool(config) and not cache.holds_episodes else ()
    return tuple(name for name in ("train", *pool) if name in splits and name in cache.split_names)


def has_pool(cache: EmbeddingCache) -> bool:
    """Say whether a cache has images without a label to learn from."""
    return not cache.holds_episodes and bool(unlabelled_rows(cache))


def is_pool_alone(cache: EmbeddingCache) -> bool:
    """Say whether a cache has images to learn from of which none has a label; the first label ends it."""
    if cache.holds_episodes or any((labels >= 0).any() for labels in _labels_of_train(cache)):
        return False
    return any(cache.journal.rows(name) for name in ("train", POOL) if name in cache.split_names)


def unlabelled_rows(cache: EmbeddingCache) -> dict[str, int]:
    """Return how many images without a label each split that is learnt from has, where it has some."""
    counts = {"train": sum(int((labels < 0).sum()) for labels in _labels_of_train(cache))}
    if POOL in cache.split_names:
        counts[POOL] = cache.journal.rows(POOL)
    return {name: count for name, count in counts.items() if count}


def _labels_of_train(cache: EmbeddingCache) -> Iterator[NDArray[np.int64]]:
    """Yield the labels of train group by group, -1 for an image without one."""
    if "train" in cache.split_names:
        groups = cache.split("train").groups
        for group in groups.groups:
            keys = groups.keys_of(group)
            yield keys.labels(keys.class_names, several=False)[group.live_rows]


def pool_places(share: float, *, labelled: int, pool: int, batch_size: int) -> int:
    """Return how many images of a batch are of the pool.

    ``share`` of them, or where that is below 0 by the numbers of both; where there are both one at least is
    of each kind, and none is twice in a batch.
    """
    if not pool or not share:
        return 0
    if not labelled:
        return batch_size
    share = share if share > 0 else pool / (labelled + pool)
    return min(pool, batch_size - 1, max(1, round(share * batch_size)))


def pool_sources(counts: dict[str, int], given: Sequence[str]) -> tuple[PoolSource, ...]:
    """Return where the images of these splits come from; ``given`` are the sources as a user names them."""
    named = {
        name: tuple(one for one in given if one.partition("=")[0] in names)
        for name, names in ((POOL, (POOL, "unlabelled", "unlabeled")), ("train", ("train",)))
    }
    return tuple(
        PoolSource(split=name, images=count, given=named[name] or tuple(given))
        for name, count in counts.items()
        if count
    )


def check_pool_apart(cache: EmbeddingCache, splits: Sequence[str] = (POOL,)) -> int | None:
    """Make sure that no image without a label is a test image, by what files held when they were embedded.

    Parameters
    ----------
    splits
        Where those images are: all of ``pool``, and those of another split that have no label.

    Returns
    -------
    int or None
        0; None where the content of none of them is known (rows that were made elsewhere).

    Raises
    ------
    UserError
        If one is; the message names both.
    """
    tests = {name: _contents(cache.split(name)) for name in TESTS if name in cache.split_names}
    pairs, count, known = list[str](), 0, not tests
    for split in (name for name in splits if name in cache.split_names):
        rows = cache.split(split)
        for start, content in _blocks(rows):
            if split != POOL:  # what has a label is none of the pool
                content = np.where(rows.labels[start : start + len(content)] < 0, content, b"")
            known |= bool((content != b"").any())
            for name, of_test in tests.items():
                hits = np.flatnonzero(np.isin(content, of_test) & (content != b""))
                count += len(hits)
                for hit in hits[: max(0, NAMED - len(pairs))].tolist():
                    test = int(np.flatnonzero(of_test == content[hit])[0])
                    pairs.append(f"{split}/{rows.keys[start + hit]} is {name}/{cache.split(name).keys[test]}")
    if count:
        raise UserError(
            f"{count:,} images without a label of {cache.path} are test images as well: "
            f"{some_of(pairs, NAMED, of=count)}",
            fix="take them out of the pool, or out of the test, and run cache-features again.",
        )
    return 0 if known else None


def _blocks(rows: SplitRows) -> Iterator[tuple[int, NDArray[np.bytes_]]]:
    """Yield the SHA-256 of rows block by block, as texts of 32 bytes; what nobody knows is '' of them."""
    for start in range(0, len(rows), CONTENTS_AT_ONCE):
        content = np.ascontiguousarray(rows.files.content[start : start + CONTENTS_AT_ONCE])
        yield start, content.view("S32")[:, 0]


def _contents(rows: SplitRows) -> NDArray[np.bytes_]:
    return np.concatenate([np.empty(0, dtype="S32"), *(content for _, content in _blocks(rows))])


def check_learnable_alone(config: RunConfig, cache: EmbeddingCache) -> None:
    """Refuse what needs labels where a cache has a pool alone; UserError names the first."""
    data, add = config.data, "or add labelled images (train/CLASS/FILE), and run cache-features again."
    needs = (
        ("data.pool_share", not data.pool_share, "which has no other images: leave it at -1"),
        ("train.closed_set", config.train.closed_set, "take a recipe with a teacher"),
        ("loss.cls", config.loss.cls, "set loss.cls=0"),
        ("loss.vlalign_filter", config.loss.vlalign_filter, "set loss.vlalign_filter=false"),
        ("data.id_val", data.id_val, "set data.id_val=0"),
        ("data.class_val", data.class_val, "set data.class_val=0"),
        ("data.balanced", data.balanced, "set data.balanced=false"),
        ("few-shot finetuning", config.fewshot.shots, "finetune a run of labelled images"),
    )
    for name, asked, way_out in needs:
        verb = "is 0" if name == "data.pool_share" else "needs labels"
        require(not asked, f"{name} {verb}, and {cache.path} has a pool alone", f"{way_out}, {add}")
    require(
        takes_pool(config),
        f"every loss that takes images without a label has weight 0, and {cache.path} has a pool alone",
        f"switch one on: loss.mse=1; {add}",
    )


def check_share_of_none(config: RunConfig, cache: EmbeddingCache, *, unused: int) -> None:
    """Refuse a share of every batch for images without a label where there are none, not even ``unused``."""
    share = config.data.pool_share
    require(
        share <= 0 or unused > 0,
        f"data.pool_share is {share:g}, and {cache.path} has no images without a label",
        "leave it at -1, or add them (cache-features ... pool=PHOTOS).",
    )


def classes_of_texts(cache: EmbeddingCache, bank: str) -> tuple[str, ...]:
    """Return the classes that a student of a pool alone is aligned with: those of a text bank, sorted.

    Of no bank, '', there are none. UserError if the bank has none.
    """
    if not bank:
        return ()
    names = tuple(sorted(set(cache.text_bank(bank).class_folders)))
    require(
        bool(names),
        f"the text bank {bank!r} of {cache.path} has no classes, and a pool has none of its own",
        "choose a bank of class texts with text=BANK, or add one: distill cache add-texts.",
    )
    return names
