"""Columns of a cache: what a reader refuses by name, and what is no damage."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest

from cache import EmbeddingCache
from cache.runtime.errors import UserError
from cache.store import manifest as manifest_module
from cache.store import split_rows, support_views, text_banks
from cache.store.hdf5_columns import map_columns, read_array
from cache.store.journal import FileLine, Journal, JournalWriter

ROWS = "rows/train-00000/{}.h5"


def read(cache, column):
    """Read what a column says of the first training images, as training does."""
    opened = EmbeddingCache.open(cache)
    train, some, views = opened.split("train"), np.arange(4), np.arange(4) % 2
    match column:
        case "keys":
            return train.labels[some], list(train.keys)
        case "image_embedding":
            return train.embeddings[some]
        case "caption_embedding":
            return train.captions[0], train.caption_embeddings[some]
        case "crop_views":
            stored = opened.crop_views("train")
            return *stored.crops(some, views), stored.embeddings(some, views)
        case "support_views":
            return opened.support_views("train", list(train.keys)[:4])
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
        ("keys", lambda f: f.__delitem__("label"), "no column label"),
        ("keys", lambda f: put(f, "label", np.ones(24, dtype="float32")), "label is float32"),
        ("keys", lambda f: put(f, "label", h5py.ExternalLink("other.h5", "/label")), "no column label"),
        ("keys", lambda f: put(f, "label", h5py.SoftLink("/bytes")), "no column label"),
        ("keys", lambda f: put(f, "bytes", np.ones(4, dtype="int64")), "the journal says 24 rows"),
        ("keys", lambda f: compress(f, "label"), "not a plain column"),
        ("image_embedding", lambda f: put(f, "embedding", np.ones((24, 3, 16), HALF)), "3 dimensions"),
        ("image_embedding", lambda f: put(f, "embedding", np.ones((9, 16), HALF)), "9 rows of 24"),
        ("image_embedding", lambda f: put(f, "embedding", np.ones((24, 9), HALF)), "the manifest says"),
        ("image_embedding", lambda f: compress(f, "embedding"), "not a plain column"),
        ("caption_embedding", lambda f: put(f, "caption_offset", np.arange(25)), "does not divide caption"),
        ("crop_views", lambda f: put(f, "box", np.ones((24, 2, 3), "float32")), "box has the shape"),
        ("crop_views", lambda f: put(f, "flip", np.ones((24, 3), bool)), "flip has the shape"),
        ("crop_views", lambda f: put(f, "view_embedding", np.ones((24, 1, 16), HALF)), "has the shape"),
        ("support_views", lambda f: put(f, "row", np.zeros(24, "int32")), "do not rise"),
        ("support_views", lambda f: put(f, "row", np.arange(9, dtype="int32")), "9 rows"),
        ("pixels", lambda f: put(f, "pixels", np.ones((24, 3, 20, 36), "uint8")), "has the shape"),
        ("image_embedding", lambda f: f.create_dataset("new", data=np.ones(3)), None),
    ],
)
def test_columns_of_a_wrong_type_size_or_place_are_refused_by_name(whole, tmp_path, column, change, message):
    cache = tmp_path / "cache"
    shutil.copytree(whole / "hdf5", cache)
    read(cache, column)
    file = ROWS.format(column)
    with h5py.File(cache / file, "a") as opened:
        change(opened)
    relisted(cache, file)
    if message is None:
        read(cache, column)
        return
    with pytest.raises(UserError, match=message) as refused:
        read(cache, column)
    assert column in str(refused.value)


def test_a_picture_that_is_none_or_of_another_size_is_refused(whole, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(whole / "tar", cache)
    stored = EmbeddingCache.open(cache).pixels("train", side=36)
    with h5py.File(cache / ROWS.format("pixels"), "r+") as file:
        file["jpeg"][:] = 0
    with pytest.raises(UserError, match=r"jpeg pixels in .* is damaged .*cache repair"):
        stored.images(np.arange(4))


def test_a_text_bank_that_differs_beside_its_rows_is_not_read(whole, tmp_path):
    shutil.copytree(whole / "hdf5", tmp_path / "cache")
    with open(tmp_path / "cache" / "texts" / "labels.h5", "ab") as bank:
        bank.write(b"x")
    with pytest.raises(UserError, match="its checksum is not the manifest's"):
        EmbeddingCache.open(tmp_path / "cache").text_bank("labels")


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


@pytest.mark.parametrize("bug", [TypeError, AttributeError])
def test_a_bug_of_ours_keeps_its_traceback(whole, monkeypatch, bug):
    def broken(*given: object, **named: object) -> None:
        raise bug("a bug of ours")

    cache = EmbeddingCache.open(whole / "hdf5")
    keys = list(cache.split("train").keys)[:2]
    for module, name, use in (
        (split_rows, "map_columns", lambda: cache.crop_views("train")),
        (support_views, "map_columns", lambda: cache.support_views("train", keys)),
        (text_banks, "read_texts", lambda: cache.text_bank("labels")),
        (manifest_module, "value_of", lambda: EmbeddingCache.open(whole / "hdf5")),
    ):
        with monkeypatch.context() as context:
            context.setattr(module, name, broken)
            with pytest.raises(bug, match="a bug of ours"):
                use()


def test_a_column_that_claims_more_than_the_file_has_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["label"] = np.arange(1000)
    raw = (tmp_path / "x.h5").read_bytes()
    (tmp_path / "x.h5").write_bytes(raw[:-4000])
    with pytest.raises((OSError, ValueError)), h5py.File(tmp_path / "x.h5") as file:
        read_array(file, "label", kinds="i")
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["there"] = np.arange(3)
    with pytest.raises(KeyError):
        map_columns(tmp_path / "y.h5", {"absent": ("f", (2,))})
