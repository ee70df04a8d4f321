"""An import that is run again: rows, banks and captions that come, change and go; pools and labels."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.whole_caches import files_of

from cache import EmbeddingCache
from cache.maintain.import_embeddings import import_embeddings
from cache.maintain.imported import Imported
from cache.maintain.imported_banks import ImportedTexts
from cache.maintain.verify import verify_cache
from cache.runtime.errors import UserError
from cache.runtime.progress import Silent


class Imports(Silent):
    """Imports of some keys, whose row is a function of the key, into one folder."""

    def __init__(self, out):
        self.out, self.notes = out, []

    def __call__(self, keys, *, other=(), texts=(), **more):
        seeds = [sum(key.encode()) + 1000 * (key in other) for key in keys]
        rows = np.stack([np.random.default_rng(seed).normal(size=8) for seed in seeds]).astype("float32")
        given = {"keys": list(keys), "embeddings": rows, "texts": list(texts), "dtype": "float32", **more}
        return import_embeddings(self.out, Imported(**given), progress=self)

    def note(self, message):
        self.notes.append(message)

    @property
    def keys(self):
        cache = EmbeddingCache.open(self.out)
        return sorted(f"{name}/{key}" for name in cache.split_names for key in cache.split(name).keys)


KEYS = [f"train/{name}/{i}.jpg" for name in ("a", "b") for i in range(4)] + ["val/z/0.jpg"]


@pytest.fixture
def imports(tmp_path):
    return Imports(tmp_path / "cache")


def bank(name, classes, *, scale=1.0):
    rows = [scale * np.random.default_rng(sum(one.encode())).normal(size=8) for one in classes]
    return ImportedTexts(name=name, classes=classes, embeddings=np.stack(rows).astype("float32"))


def test_an_import_grows_and_shrinks_with_what_it_is_given(imports):
    first = imports(KEYS)
    imports([*KEYS, "train/c/0.jpg", "val_on_train/a/9.jpg"])
    assert imports.keys == sorted(
        key.replace("val/", "ood_test/").replace("val_on_train", "id_test")
        for key in [*KEYS, "train/c/0.jpg", "val_on_train/a/9.jpg"]
    )
    imports(KEYS[2:], other=KEYS[3:4])
    assert [line.partition(": ")[2] for line in imports.notes] == [
        "2 added, 0 removed, 0 replaced",
        "0 added, 4 removed, 1 replaced",
    ]
    cache = EmbeddingCache.open(imports.out)
    assert cache.fingerprint == first.spec.fingerprint()
    rows = cache.split("train")
    expected = np.random.default_rng(sum(KEYS[3].encode()) + 1000).normal(size=8).astype("float32")
    np.testing.assert_array_equal(rows.embeddings[rows.position["a/3.jpg"]], expected)
    assert rows.class_names == ("a", "b")
    assert not any(check.problem for check in verify_cache(imports.out))
    before = {file: raw for file, raw in files_of(imports.out).items() if not file.startswith("journal")}
    imports(KEYS[2:], other=KEYS[3:4])
    assert before.items() <= files_of(imports.out).items()


@pytest.mark.parametrize(
    ("keys", "other", "message"),
    [
        (KEYS, KEYS[:6], r"6 of 9 rows that both have differ"),
        (["train/a/100.jpg"], (), r"they have no row in common"),
    ],
)
def test_rows_of_another_teacher_are_refused_and_nothing_is_changed(imports, keys, other, message):
    imports(KEYS)
    before = files_of(imports.out)
    with pytest.raises(UserError, match=rf"of another make \({message}\).*another --out, or move that"):
        imports(keys, other=other)
    assert files_of(imports.out) == before


def test_rows_of_another_length_are_refused_and_nothing_is_changed(imports):
    imports(KEYS)
    before = files_of(imports.out)
    texts = ImportedTexts(name="labels", classes=["a"], embeddings=np.ones((1, 3)))
    rows = np.random.default_rng(0).normal(size=(len(KEYS), 3))
    with pytest.raises(UserError, match=r"have 3 numbers a row, and those of .* \d+\. Fix"):
        import_embeddings(imports.out, Imported(keys=KEYS, embeddings=rows, texts=[texts]))
    assert files_of(imports.out) == before


def test_a_bank_joins_those_that_are_there_and_grows_with_its_classes(imports):
    imports(KEYS, texts=[bank("labels", ["a", "b"])])
    imports(KEYS, texts=[bank("other", ["a", "b", "z"], scale=2)])
    imports(KEYS, texts=[bank("labels", ["a", "b", "z"])])
    imports(KEYS)
    cache = EmbeddingCache.open(imports.out)
    assert cache.bank_names == ("labels", "other")
    assert cache.text_bank("labels").class_folders == ("a", "b", "z")
    before = files_of(imports.out)
    odd = ImportedTexts(name="labels", classes=["a", "b"], embeddings=np.eye(2, 8, dtype="float32"))
    with pytest.raises(
        UserError, match=r"'labels' of .* has other rows of a, b\. Fix: choose another --bank"
    ):
        imports(KEYS, texts=[odd])
    assert files_of(imports.out) == before


def test_captions_join_rows_that_are_there_and_new_rows_need_theirs(imports):
    imports(KEYS)
    captions = np.random.default_rng(0).normal(size=(len(KEYS), 8)).astype("float32")
    imports(KEYS, caption_embeddings=captions)
    imports(KEYS, texts=[bank("labels", ["a", "b"])])
    rows = EmbeddingCache.open(imports.out).split("train")
    at = rows.find([key.partition("/")[2] for key in KEYS[:8]])
    np.testing.assert_array_equal(rows.caption_embeddings[at], captions[:8])
    with pytest.raises(UserError, match=r"keeps captions of train, and 1 new rows have none.*--captions"):
        imports([*KEYS, "train/c/0.jpg"])


def test_rows_of_a_pool_have_no_label_and_their_keys_any_depth(imports):
    imports([*KEYS, "pool/x.jpg", "unlabelled/a/b/y.jpg", "train/a/deep/er/1.jpg"])
    cache = EmbeddingCache.open(imports.out)
    assert set(cache.split("pool").keys) == {"x.jpg", "a/b/y.jpg"}
    assert (cache.split("pool").labels == -1).all()
    train = cache.split("train")
    assert train.labels[train.position["a/deep/er/1.jpg"]] == train.class_names.index("a")


def test_a_pool_alone_is_imported(imports):
    imports(["x.jpg", "a/y.jpg"], split="pool")
    assert EmbeddingCache.open(imports.out).rows == 2
    assert imports.keys == ["pool/a/y.jpg", "pool/x.jpg"]


def test_labels_that_are_given_are_those_of_the_rows_and_follow_when_they_change(imports):
    keys, labels = [f"{i}.jpg" for i in range(4)], [("a",), ("b",), ("a",), ("b",)]
    imports(keys, labels=labels)
    imports(keys, labels=[("c",), *labels[1:]])
    train = EmbeddingCache.open(imports.out).split("train")
    assert [train.class_names[train.labels[train.position[key]]] for key in keys] == ["c", "b", "a", "b"]
    with pytest.raises(UserError, match="labels are wrong"):
        imports(keys, labels=[("a/b",), *labels[1:]])
