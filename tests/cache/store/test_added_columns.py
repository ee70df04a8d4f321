"""Columns that were added to row groups, from elsewhere or damaged: what a reader refuses by name."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest

from cache import EmbeddingCache
from cache.runtime.errors import UserError
from cache.store.journal import Journal, JournalWriter
from cache.store.journal_lines import FileLine

ROWS = "rows/train-00000/{}.h5"


def read(cache, column):
    """Read what a column says of the first training images, as training does."""
    opened = EmbeddingCache.open(cache)
    train = opened.split("train")
    some = np.arange(len(train))
    views = some % 2
    match column:
        case "keys":
            return train.labels[some], list(train.keys)
        case "caption_embedding":
            return list(train.captions), train.caption_embeddings[some]
        case "crop_views":
            stored = opened.crop_views("train")
            return *stored.crops(some, views), stored.embeddings(some, views)
        case "support_views":
            return opened.support_views("train", list(train.keys))
        case "pixels":
            return opened.pixels("train", side=36).images(some)


def relisted(cache, file):
    """List a file as it is now, as one who changed it on purpose would."""
    line = Journal.load(cache).files[file]
    JournalWriter(cache).add(
        FileLine.of(cache, file, rows=line.rows, made_from=line.made_from, about=line.about)
    )


def put(file, name, values):
    del file[name]
    file[name] = values


def compress(file, name):
    values = file[name][...]
    del file[name]
    file.create_dataset(name, data=values, compression="gzip")


HALF = "float16"


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("keys", lambda f, n: f.__delitem__("label"), "no column label"),
        ("keys", lambda f, n: put(f, "label", np.ones(n, dtype="float32")), "label is float32"),
        ("keys", lambda f, n: put(f, "label", h5py.ExternalLink("other.h5", "/label")), "no column label"),
        ("keys", lambda f, n: put(f, "label", h5py.SoftLink("/bytes")), "no column label"),
        ("keys", lambda f, n: put(f, "bytes", np.ones(4, dtype="int64")), "the journal says"),
        ("keys", lambda f, n: compress(f, "label"), "not a plain column"),
        (
            "caption_embedding",
            lambda f, n: put(f, "caption_offset", np.arange(n + 1)),
            "does not divide caption",
        ),
        ("crop_views", lambda f, n: put(f, "box", np.ones((n, 2, 3), "float32")), "box has the shape"),
        ("crop_views", lambda f, n: put(f, "flip", np.ones((n, 3), bool)), "flip has the shape"),
        ("crop_views", lambda f, n: put(f, "view_embedding", np.ones((n, 1, 16), HALF)), "has the shape"),
        ("support_views", lambda f, n: put(f, "row", np.zeros(n, "int32")), "do not rise"),
        ("support_views", lambda f, n: put(f, "row", np.arange(1, dtype="int32")), "it holds 1 rows"),
        ("pixels", lambda f, n: put(f, "pixels", np.ones((n, 3, 20, 36), "uint8")), "has the shape"),
    ],
)
def test_columns_of_a_wrong_type_size_or_place_are_refused_by_name(whole, tmp_path, column, change, message):
    cache = tmp_path / "cache"
    shutil.copytree(whole / "hdf5", cache)
    read(cache, column)
    file = ROWS.format(column)
    with h5py.File(cache / file, "a") as opened:
        change(opened, Journal.load(cache).files[file].rows)
    relisted(cache, file)
    with pytest.raises(UserError, match=message) as refused:
        read(cache, column)
    assert column in str(refused.value)


def test_a_picture_that_is_none_or_of_another_size_is_refused(whole, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(whole / "tar", cache)
    opened = EmbeddingCache.open(cache)
    stored = opened.pixels("train", side=36)
    with h5py.File(cache / ROWS.format("pixels"), "r+") as file:
        file["jpeg"][:] = 0
    with pytest.raises(UserError, match=r"jpeg pixels in .* is damaged .*cache repair"):
        stored.images(np.arange(len(opened.split("train"))))


def test_with_a_check_a_flipped_bit_is_found_when_the_file_is_first_opened(whole, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(whole / "hdf5", cache)
    path = cache / ROWS.format("crop_views")
    raw = bytearray(path.read_bytes())
    raw[-100] ^= 1
    path.write_bytes(raw)
    EmbeddingCache.open(cache).crop_views("train")
    with pytest.raises(UserError, match=r"crop_views\.h5 differs from its checksum.*cache repair"):
        EmbeddingCache.open(cache, check=True).crop_views("train")
