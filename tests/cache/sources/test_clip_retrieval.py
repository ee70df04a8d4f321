"""What clip-retrieval writes: numbered arrays, and the metadata of their rows."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from conftest import EMBED_DIM

from cache import EmbeddingCache
from cache.maintain.import_files import ImportOptions, import_files
from cache.maintain.verify import verify_cache
from cache.runtime.errors import UserError
from cache.sources.data import open_data

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


class Retrieved:
    """A folder as clip-retrieval writes it, of some files of two rows each."""

    def __init__(self, folder, *, files=12, texts=False):
        self.folder, self.files = folder, files
        rng = np.random.default_rng(0)
        self.rows = rng.normal(size=(files, 2, EMBED_DIM)).astype("float32")
        for number in range(files):
            self.write("img_emb", number, self.rows[number])
            if texts:
                self.write("text_emb", number, -self.rows[number])
            paths = [f"/photos/{number}-{row}.jpg" for row in range(2)]
            self.describe(number, image_path=paths, caption=["a", "b"])

    def write(self, folder, number, rows):
        (self.folder / folder).mkdir(parents=True, exist_ok=True)
        np.save(self.folder / folder / f"{folder}_{number}.npy", rows)

    def describe(self, number, **columns):
        (self.folder / "metadata").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), self.folder / "metadata" / f"metadata_{number}.parquet")

    def bring(self, out, **options):
        manifest = import_files(out, ImportOptions(images=str(self.folder), dtype="float32", **options))
        assert not any(check.problem for check in verify_cache(out))
        return manifest, EmbeddingCache.open(out)


@pytest.fixture
def retrieved(tmp_path):
    return Retrieved(tmp_path / "retrieved")


def test_files_are_read_by_their_number_and_rows_without_a_label_are_the_pool(tmp_path, retrieved):
    manifest, cache = retrieved.bring(tmp_path / "cache")
    assert manifest.rows == {"pool": 24}
    pool = cache.split("pool")
    at = pool.find(["photos/9-0.jpg", "photos/10-1.jpg", "photos/2-0.jpg"])
    np.testing.assert_array_equal(pool.embeddings[at], retrieved.rows[[9, 10, 2], [0, 1, 0]])
    assert (pool.labels == -1).all()


def test_numbers_with_zeros_before_them_and_embeddings_of_captions_are_read(tmp_path):
    retrieved = Retrieved(tmp_path / "retrieved", files=11, texts=True)
    for file in retrieved.folder.glob("*/*"):
        stem, _, number = file.stem.rpartition("_")
        file.rename(file.with_name(f"{stem}_{int(number):03d}{file.suffix}"))
    _, cache = retrieved.bring(tmp_path / "cache")
    pool = cache.split("pool")
    np.testing.assert_array_equal(pool.caption_embeddings[:], -pool.embeddings[:])


def test_labels_and_splits_are_those_of_columns_and_rows_without_either_are_the_pool(tmp_path, retrieved):
    for number in range(12):
        paths = [f"/photos/{number}-{row}.jpg" for row in range(2)]
        label, split = ["cat" if number % 2 else "dog", ""], ["val" if number > 9 else "", ""]
        retrieved.describe(number, image_path=paths, label=label, split=split)
    manifest, cache = retrieved.bring(tmp_path / "cache")
    assert manifest.rows == {"train": 10, "pool": 12, "id_test": 2}
    train = cache.split("train")
    assert train.class_names == ("cat", "dog")
    assert train.labels[train.position["photos/3-0.jpg"]] == 0
    manifest, _ = retrieved.bring(tmp_path / "all", split="pool")
    assert manifest.rows == {"pool": 22, "ood_test": 2}


def test_rows_find_their_images_by_the_ends_of_their_paths(tmp_path, photos):
    folder = open_data([photos])
    keys = [sample.key for sample in folder.split("train").all()]
    retrieved = Retrieved(tmp_path / "retrieved", files=2)
    retrieved.describe(0, image_path=[f"/old/place/train/{key}" for key in keys[:2]])
    retrieved.describe(1, image_path=[f"/old/place/train/{keys[2]}", "/old/place/train/apple/gone.jpg"])
    manifest, cache = retrieved.bring(tmp_path / "cache", data=photos)
    assert manifest.rows == {"train": 3}
    train = cache.split("train")
    assert sorted(train.keys) == keys[:3]
    assert train.files.content[:].any(axis=1).all()
    assert manifest.left_out["train"]["rows without an image"].names == ("/old/place/train/apple/gone.jpg",)
    assert manifest.left_out["train"]["images without a row"].count == len(keys) - 3


def test_of_a_path_that_is_there_twice_the_first_row_is_taken_and_the_other_counted(tmp_path, retrieved):
    retrieved.describe(3, image_path=["/photos/0-0.jpg", "/photos/3-1.jpg"])
    manifest, cache = retrieved.bring(tmp_path / "cache")
    assert manifest.rows == {"pool": 23}
    pool = cache.split("pool")
    np.testing.assert_array_equal(pool.embeddings[pool.position["photos/0-0.jpg"]], retrieved.rows[0, 0])
    assert manifest.left_out["pool"]["of a key that is taken"].names == ("pool/photos/0-0.jpg",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: (r.folder / "img_emb/img_emb_2.npy").unlink(), r"lacks img_emb_N\.npy of the numbers 2"),
        (lambda r: (r.folder / "metadata/metadata_11.parquet").unlink(), r"metadata lacks the numbers 11"),
        (lambda r: r.write("img_emb", 4, np.ones((2, 3), "float32")), r"img_emb_4\.npy has rows \(2, 3\)"),
        (lambda r: r.write("img_emb", 4, np.ones((2, EMBED_DIM))), r"of float64, and .* of float32"),
        (lambda r: r.write("img_emb", 5, r.rows[0, :1]), r"metadata_5\.parquet has 2 rows, and .*_5\.npy 1"),
        (lambda r: r.describe(1, image_path=["a.jpg", ""]), r"metadata_1\.parquet, row 1 says no image"),
        (lambda r: r.describe(0, width=[1, 2]), r"metadata_0\.parquet has no column of pictures or paths"),
        (lambda r: (r.folder / "metadata/metadata_6.parquet").write_bytes(b"PAR1"), r"_6\.parquet is cut"),
        (
            lambda r: (r.folder / "img_emb/img_emb_3.npy").rename(r.folder / "img_emb/img_emb_04.npy"),
            r"img_emb has img_emb_04\.npy and img_emb_4\.npy",
        ),
        (lambda r: r.write("text_emb", 0, r.rows[0]), r"text_emb lacks the numbers 1"),
        (
            lambda r: np.save(r.folder / "img_emb/img_emb_1.npy", np.array([{}]), allow_pickle=True),
            r"img_emb_1\.npy holds no plain array",
        ),
    ],
)
def test_a_folder_that_is_not_whole_is_a_clear_error_and_nothing_is_written(
    tmp_path, retrieved, change, message
):
    change(retrieved)
    with pytest.raises(UserError, match=message):
        retrieved.bring(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_without_pyarrow_the_error_says_what_to_install(tmp_path, retrieved, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        UserError, match=r"pyarrow is not installed\. Fix: run 'pip install \"\.\[parquet\]\"'"
    ):
        retrieved.bring(tmp_path / "cache")
