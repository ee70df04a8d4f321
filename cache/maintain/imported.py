"""Rows that were embedded elsewhere, as one value, and whether they can be meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cache.build.distinct_texts import check_bank_rows
from cache.maintain.imported_banks import ImportedTexts
from cache.runtime.errors import UserError
from cache.sources.arrays import Rows
from cache.sources.kept_sources import KeptSources
from cache.sources.names import is_plain_name
from cache.sources.samples import DataFolder
from cache.teacher.sanity import stored

# 65,536 rows x 768 x 4 bytes = 200 MB at most.
ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """Rows that were embedded elsewhere, and what they are of.

    ``embeddings`` and ``caption_embeddings`` are [N, D], raw, in the order of ``keys``: ``SPLIT/CLASS/FILE``
    with either name of a split, ``pool/KEY``, or ``KEY``, of ``split`` where ``folder`` does not decide it.
    ``folder`` has the images, and so the classes; without it they are those of ``labels``, the class names of
    each row, or where these are not given the first folders of the keys. With ``paths`` the keys are paths:
    the image of one in ``folder`` is told by its end, and of a path that is there twice the first row counts.
    ``teacher`` is a name for whoever reads the manifest, which keeps ``sources`` to open the images again.
    """

    keys: Sequence[str]
    embeddings: Rows
    texts: Sequence[ImportedTexts] = ()
    folder: DataFolder | None = None
    caption_embeddings: Rows | None = None
    labels: Sequence[tuple[str, ...]] | None = None
    paths: bool = False
    split: str = "train"
    teacher: str = "imported"
    dtype: str = "float16"
    format: str = "hdf5"
    sources: KeptSources | None = None

    def check(self) -> None:
        """Make sure that shapes fit each other, and that every row can be meant and kept.

        Raises
        ------
        UserError
            If they do not fit, or rows are not finite, zero, lost in ``dtype``, or one for all images.
        """
        _check_shapes(self)
        _check_rows("image", self.embeddings, self.dtype)
        if self.caption_embeddings is not None:
            _check_rows("caption", self.caption_embeddings, self.dtype)
        for bank in self.texts:
            _check_real(f"text ({bank.name})", bank.embeddings)
            check_bank_rows(bank.name, bank.classes, bank.embeddings, by_teacher=bank.texts is not None)


def _check_shapes(given: Imported) -> None:
    embeddings, captions, keys = given.embeddings, given.caption_embeddings, given.keys
    if embeddings.ndim != 2 or len(embeddings) != len(keys) or not len(keys):
        raise UserError(
            f"the image embeddings have shape {embeddings.shape} for {len(keys)} keys",
            fix="give an array of one row a key: (keys, embed_dim).",
        )
    if captions is not None and captions.shape != embeddings.shape:
        raise UserError(
            f"the caption embeddings have shape {captions.shape}, expected {embeddings.shape}",
            fix="give one row an image, of the same teacher.",
        )
    for bank in given.texts:
        if not is_plain_name(bank.name):
            raise UserError(
                f"the bank {bank.name!r:.60} cannot name a file", fix="use letters, digits, '.', '_' and '-'."
            )
        expected = (len(bank.classes), embeddings.shape[1])
        if bank.embeddings.shape != expected:
            raise UserError(
                f"the text embeddings {bank.name!r} have shape {bank.embeddings.shape}, expected {expected}",
                fix="give one row a class, of the same teacher as the images.",
            )


def _check_rows(what: str, rows: Rows, dtype: str) -> None:
    """Make sure that rows [N, D] can be meant, and can be kept in ``dtype``; UserError names the first."""
    _check_real(what, rows)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        block = rows[start : start + ROWS_AT_ONCE]
        stored(block, dtype, lambda i, start=start: f"row {start + i} of the {what} embeddings")  # type: ignore[misc]
    first = rows[0]
    starts = range(0, len(rows), ROWS_AT_ONCE)
    if len(rows) > 1 and all((rows[start : start + ROWS_AT_ONCE] == first).all() for start in starts):
        raise UserError(
            f"all {len(rows):,} {what} embeddings are the same row",
            fix="embed the images again, each by itself.",
        )


def _check_real(what: str, rows: Rows) -> None:
    if rows.dtype.kind not in "iuf":
        raise UserError(
            f"the {what} embeddings are of type {rows.dtype}, expected real numbers",
            fix="save what the teacher gave, as float32.",
        )
