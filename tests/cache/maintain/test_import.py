from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import EMBED_DIM

from cache import EmbeddingCache
from cache.maintain.import_embeddings import import_embeddings
from cache.maintain.import_files import ImportOptions, import_files
from cache.maintain.imported import Imported
from cache.maintain.verify import verify_cache
from cache.runtime.errors import UserError, WrongOption
from cache.sources.accounts import LeftOut
from cache.sources.data import open_data
from cache.store.manifest import Manifest
from cli import main


@pytest.fixture
def arrays(tmp_path, photos):
    rng = np.random.default_rng(0)
    train = [image.key for image in open_data([photos]).split("train").all()]
    rows = rng.normal(size=(len(train), EMBED_DIM)).astype("float32")
    np.save(tmp_path / "rows.npy", rows)
    torch.save(torch.from_numpy(rows), tmp_path / "clip_image_feats.pt")
    torch.save(torch.from_numpy(rows[::-1].copy()), tmp_path / "clip_caption_feats.pt")
    (tmp_path / "keys.txt").write_text("\n".join(f"train/{key}" for key in train))
    np.savez(tmp_path / "all.npz", e=rows, k=np.array([f"train/{key}" for key in train]))
    return train, rows


@pytest.mark.parametrize(
    "source", [{"images": "rows.npy", "keys": "keys.txt"}, {"images": "all.npz:e", "keys": "all.npz:k"}]
)
def test_plain_arrays_with_keys_become_a_cache(tmp_path, arrays, source):
    train, rows = arrays
    given = {name: str(tmp_path / value) for name, value in source.items()}
    import_files(tmp_path / "cache", ImportOptions(**given, dtype="float32"))
    split = EmbeddingCache.open(tmp_path / "cache").split("train")
    assert sorted(split.keys) == train
    np.testing.assert_array_equal(split.embeddings[split.find(train)], rows)


def test_the_original_codes_tensors_are_imported_in_its_order(tmp_path, photos, arrays):
    train, rows = arrays
    first = photos / "train" / train[-1]
    first.rename(first.with_suffix(".JPEG"))
    import_files(
        tmp_path / "cache",
        ImportOptions(
            images=str(tmp_path / "clip_image_feats.pt"),
            captions=str(tmp_path / "clip_caption_feats.pt"),
            data=photos,
            dtype="float32",
        ),
    )
    split = EmbeddingCache.open(tmp_path / "cache").split("train")
    last = split.position[train[-1].replace(".jpg", ".JPEG")]
    # All .JPEG paths come first.
    np.testing.assert_array_equal(split.embeddings[last], rows[0])
    np.testing.assert_array_equal(split.embeddings[split.position[train[0]]], rows[1])
    np.testing.assert_array_equal(split.caption_embeddings[last], rows[-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": None}, "nothing says which images"),
        ({"images": "missing.npy"}, "does not exist"),
        ({"images": "keys.txt"}, "holds no plain array (it is no .npy, .npz or .pt file)"),
        ({"images": "all.npz:x"}, "has no array 'x'"),
        ({"texts": "rows.npy"}, "belong together"),
        ({"captions": "short.npy"}, "caption embeddings have shape (3, 16)"),
        ({"keys": "two.txt"}, "for 2 keys"),
        ({"texts": "short.npy", "classes": "two.txt"}, "expected (2, 16)"),
        ({"images": "nan.npy"}, "row 4 of the image embeddings is not finite"),
        ({"keys": "twice.txt"}, "is there twice"),
        ({"images": "pickle.npy"}, "holds no plain array"),
        ({"images": "zero.npy"}, "row 2 of the image embeddings is all zeros"),
        ({"images": "small.npy"}, "row 5 of the image embeddings is too small for float16"),
        ({"images": "large.npy"}, "row 6 of the image embeddings is too large for float16"),
        ({"images": "complex.npy"}, "the image embeddings are of type complex64, expected real numbers"),
        (
            {"texts": "complex.npy", "classes": "classes.txt"},
            "the text (labels) embeddings are of type compl",
        ),
        ({"images": "one.npy"}, "all 24 image embeddings are the same row"),
        ({"captions": "nan.npy"}, "row 4 of the caption embeddings is not finite"),
        ({"captions": "zero.npy"}, "row 2 of the caption embeddings is all zeros"),
        ({"captions": "one.npy"}, "all 24 caption embeddings are the same row"),
        (
            {"texts": "zero.npy", "classes": "classes.txt"},
            "row 2 of the text (labels) embeddings, 'c2', is all",
        ),
        (
            {"texts": "nan.npy", "classes": "classes.txt"},
            "row 4 of the text (labels) embeddings, 'c4', is not fin",
        ),
        ({"texts": "twins.npy", "classes": "classes.txt"}, "of 'c3' and 'c7' are the same row"),
        (
            {"keys": "untrained.txt"},
            "in the ID test (val_on_train/) but not in train: 'aple'. Fix: did you mean 'apple'",
        ),
    ],
)
def test_wrong_imports_are_clear_errors_and_write_nothing(tmp_path, arrays, change, message):
    train, rows = arrays
    np.save(tmp_path / "short.npy", rows[:3])
    bad = rows.copy()
    bad[4, 1] = np.nan
    np.save(tmp_path / "nan.npy", bad)
    zero, small, large, twins = (rows.copy() for _ in range(4))
    zero[2], twins[7] = 0, 3 * rows[3]
    small[5] *= 1e-8
    large[6] *= 1e6
    for name, array in (("zero", zero), ("small", small), ("large", large), ("twins", twins)):
        np.save(tmp_path / f"{name}.npy", array)
    np.save(tmp_path / "complex.npy", rows.astype("complex64"))
    np.save(tmp_path / "one.npy", np.repeat(rows[:1], len(rows), axis=0))
    (tmp_path / "classes.txt").write_text("".join(f"c{i}\n" for i in range(len(rows))))
    (tmp_path / "untrained.txt").write_text(
        "\n".join([*(f"train/{key}" for key in train[1:]), "val_on_train/aple/x.jpg"])
    )
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "two.txt").write_text("train/apple/a.jpg\ntrain/apple/b.jpg\n")
    (tmp_path / "twice.txt").write_text("\n".join([f"train/{train[0]}"] * len(train)))
    given = {"images": "rows.npy", "keys": "keys.txt", **change}
    with pytest.raises(UserError) as error:
        import_files(
            tmp_path / "cache",
            ImportOptions(**{n: str(tmp_path / v) if v else None for n, v in given.items()}),
        )
    assert message in str(error.value)
    assert not (tmp_path / "cache").exists()


def test_other_rows_do_not_replace_an_import_and_the_error_names_no_option_that_is_not_there(
    tmp_path, arrays
):
    given = {"images": str(tmp_path / "rows.npy"), "keys": str(tmp_path / "keys.txt")}
    before = import_files(tmp_path / "cache", ImportOptions(**given))
    np.save(tmp_path / "rows.npy", arrays[1][::-1])
    with pytest.raises(UserError, match=r"of another make .*another --out, or move that folder away\.$"):
        import_files(tmp_path / "cache", ImportOptions(**given))
    assert Manifest.load(tmp_path / "cache") == before


def test_rows_without_an_image_and_images_without_a_row_are_counted_and_named(tmp_path, photos, arrays):
    train, _ = arrays
    (photos / "train" / "apple" / "train_0.jpg").unlink()
    given = {"images": str(tmp_path / "rows.npy"), "keys": str(tmp_path / "keys.txt"), "data": photos}
    manifest = import_files(tmp_path / "cache", ImportOptions(**given))
    assert manifest.rows == {"train": len(train) - 1}
    assert manifest.left_out["train"] == {
        "rows without an image": LeftOut(count=1, names=("train/apple/train_0.jpg",))
    }
    without = manifest.left_out["id_test"]["images without a row"]
    assert without.count == 9
    assert len(without.names) == 3
    told = CliRunner().invoke(main, ["cache", "info", str(tmp_path / "cache")]).output
    assert "left out of train: 1 rows without an image: train/apple/train_0.jpg" in told


def test_keys_of_which_none_is_of_an_image_are_refused_when_the_data_is_given(tmp_path, photos, arrays):
    train, _ = arrays
    (tmp_path / "keys.txt").write_text("\n".join(key.replace("train_", "trian_") for key in train))
    given = {"images": str(tmp_path / "rows.npy"), "keys": str(tmp_path / "keys.txt"), "data": photos}
    with pytest.raises(
        UserError, match=r"apple/trian_0\.jpg' is no image .* did you mean 'apple/train_0\.jpg'"
    ):
        import_files(tmp_path / "cache", ImportOptions(**given))
    assert not (tmp_path / "cache").exists()


def test_a_teacher_at_hand_gives_imported_images_their_class_texts(tmp_path, photos, arrays, teacher_dir):
    given = {"images": str(tmp_path / "rows.npy"), "keys": str(tmp_path / "keys.txt"), "data": photos}
    import_files(tmp_path / "cache", ImportOptions(**given, model=f"local-dir:{teacher_dir}"))
    cache = EmbeddingCache.open(tmp_path / "cache")
    assert cache.bank_names == ("labels", "descriptions")
    from cache.teacher.load import load_teacher

    expected = load_teacher(f"local-dir:{teacher_dir}").embed_texts(["a photo of banana"])[0][0]
    np.testing.assert_allclose(
        cache.text_bank("labels").class_texts(["banana"])[0], expected, rtol=1e-4, atol=1e-5
    )


def test_an_import_says_what_it_took_and_how_good_the_teacher_is(tmp_path, photos, monkeypatch):
    rng = np.random.default_rng(0)
    folder = open_data([photos])
    texts = {name: rng.normal(size=EMBED_DIM) for name in folder.class_names}
    keys = [f"{name}/{image.key}" for name, split in folder.splits.items() for image in split.all()]
    rows = np.stack([texts[key.split("/")[1]] for key in keys]).astype("float32")
    rows[2:] += rng.normal(size=(len(rows) - 2, EMBED_DIM)) / 10
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "texts.npy", np.stack(list(texts.values())))
    (tmp_path / "keys.txt").write_text("\n".join(keys))
    (tmp_path / "classes.txt").write_text("\n".join(texts))
    monkeypatch.chdir(tmp_path)
    words = "cache import --images rows.npy --keys keys.txt --texts texts.npy --classes"
    output = (
        CliRunner()
        .invoke(main, [*words.split(), "classes.txt", "--captions", "rows.npy", "--out", "good"])
        .output
    )
    assert "texts labels: 5, rows of texts.npy, by the names in classes.txt" in output
    assert (
        "captions: rows of rows.npy: train 24 of 24, id_test 9 of 9, ood_test 6 of 6 images have their own"
        in output
    )
    assert output.count("100.0%") == 3
    assert "train: 2 of 24 rows are the same as another's" in output
    assert "near chance" not in output
    (tmp_path / "classes.txt").write_text("\n".join([*list(texts)[1:], "apple"]))
    output = CliRunner().invoke(main, [*words.split(), "classes.txt", "--out", "shifted"]).output
    assert "look at labels: with these texts the teacher is near chance (train 0.0%" in output
    told = json.loads(CliRunner().invoke(main, ["cache", "info", "good", "--json"]).output)
    assert [split["own_captions"] for split in told["splits"] if split["split"] == "train"] == [24]
    assert "own captions" in CliRunner().invoke(main, ["cache", "info", "good"]).output


@pytest.mark.parametrize(("option", "named"), [({"bank": "../x"}, "--bank"), ({"split": "test"}, "--as")])
def test_an_option_that_is_none_is_named(option, named):
    with pytest.raises(WrongOption, match=f"{named} '"):
        ImportOptions(images="rows.npy", **option)


def test_an_import_with_its_images_keeps_what_they_are(tmp_path, photos, arrays):
    given = {"images": str(tmp_path / "rows.npy"), "keys": str(tmp_path / "keys.txt"), "dtype": "float32"}
    import_files(tmp_path / "cache", ImportOptions(**given))
    assert not EmbeddingCache.open(tmp_path / "cache").split("train").files.content[:].any()
    import_files(tmp_path / "cache", ImportOptions(**given, data=photos))
    files = EmbeddingCache.open(tmp_path / "cache").split("train").files
    assert files.content[:].any(axis=1).all()
    again = import_files(tmp_path / "cache", ImportOptions(**given))
    assert again.complete
    assert EmbeddingCache.open(tmp_path / "cache").split("train").files.content[:].any(axis=1).all()


def test_an_import_as_a_webdataset_holds_its_pictures(tmp_path, photos, arrays):
    train, rows = arrays
    given = {"images": str(tmp_path / "rows.npy"), "keys": str(tmp_path / "keys.txt"), "dtype": "float32"}
    captions = str(tmp_path / "rows.npy")
    options = ImportOptions(**given, data=photos, format="webdataset", captions=captions)
    import_files(tmp_path / "cache", options)
    split = EmbeddingCache.open(tmp_path / "cache").split("train")
    np.testing.assert_array_equal(split.embeddings[split.find(train)], rows)
    np.testing.assert_array_equal(split.caption_embeddings[split.find(train)], rows)
    assert not any(check.problem for check in verify_cache(tmp_path / "cache"))


def test_sources_of_any_kind_are_the_images_of_an_import(tmp_path, photos, arrays):
    train, rows = arrays
    (tmp_path / "list.csv").write_text("path\n" + "\n".join(f"photos/train/{key}" for key in train))
    (tmp_path / "keys.txt").write_text("\n".join(f"photos/train/{key}" for key in train))
    given = {"images": str(tmp_path / "rows.npy"), "keys": str(tmp_path / "keys.txt"), "dtype": "float32"}
    data = [f"pool={tmp_path / 'list.csv'}", f"id_test={photos / 'val_on_train'}"]
    manifest = import_files(tmp_path / "cache", ImportOptions(**given, data=data, split="pool"))
    assert manifest.rows == {"pool": len(train)}
    pool = EmbeddingCache.open(tmp_path / "cache").split("pool")
    np.testing.assert_array_equal(pool.embeddings[pool.find([f"photos/train/{train[3]}"])[0]], rows[3])
    assert pool.files.content[:].any(axis=1).all()


def test_an_image_of_the_pool_that_is_a_tests_is_an_error(tmp_path, photos):
    (photos / "pool").mkdir()
    test = next((photos / "val").glob("*/*.jpg"))
    shutil.copy(test, photos / "pool" / "x.jpg")
    keys = [str(test.relative_to(photos)), "pool/x.jpg"]
    rows = np.random.default_rng(0).normal(size=(2, EMBED_DIM))
    with pytest.raises(UserError, match=r"1 images of the pool are test images as well: pool/x\.jpg is ood"):
        import_embeddings(tmp_path / "c", Imported(keys=keys, embeddings=rows, folder=open_data([photos])))
    assert not (tmp_path / "c").exists()


def test_a_key_that_begins_as_a_split_is_found_in_another_where_that_has_it(tmp_path, photos, arrays):
    train, _ = arrays
    (tmp_path / "photos" / "list.csv").write_text("path\n" + "\n".join(f"train/{key}" for key in train))
    given = {"images": str(tmp_path / "rows.npy"), "keys": str(tmp_path / "keys.txt")}
    data = [f"pool={photos / 'list.csv'}", f"train={photos / 'val'}"]
    manifest = import_files(tmp_path / "cache", ImportOptions(**given, data=data))
    assert manifest.rows == {"pool": len(train)}
