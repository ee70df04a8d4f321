"""The same code on real photos, where they are at hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import REAL_PHOTOS

from cache import EmbeddingCache
from cache.build.from_folder import FeatureOptions, cache_features
from cache.maintain.import_files import ImportOptions, import_files
from cache.runtime.errors import UserError
from cache.sources.data import open_data
from distill.config import RunConfig
from distill.judge.teachers import evaluate_teacher
from distill.settings import with_settings
from distill.train.start import train as run

FLOWERS, GROCERY = REAL_PHOTOS / "flowers102", REAL_PHOTOS / "grocery"
pytestmark = [
    pytest.mark.skipif(not FLOWERS.is_dir(), reason=f"no real photos at {REAL_PHOTOS}"),
]


@pytest.fixture
def flowers(tmp_path):
    source = FLOWERS / "clip_vit_b_32.npz"
    arrays = {
        name: f"{source}:{array}"
        for name, array in (
            ("images", "image_embeddings"),
            ("keys", "keys"),
            ("texts", "class_embeddings"),
            ("classes", "class_folders"),
        )
    }
    import_files(tmp_path / "flowers", ImportOptions(**arrays, data=FLOWERS, model="ViT-B-32"))
    return EmbeddingCache.open(tmp_path / "flowers")


def test_real_clip_embeddings_of_flowers_are_imported_and_the_teacher_is_good(flowers):
    assert {name: len(flowers.split(name)) for name in flowers.split_names} == {
        "train": 1572,
        "id_test": 636,
        "ood_test": 1888,
    }
    source = np.load(FLOWERS / "clip_vit_b_32.npz")
    rows, keys = flowers.split("ood_test"), [str(key) for key in source["keys"]]
    np.testing.assert_array_equal(
        rows.embeddings[5], source["image_embeddings"][keys.index(f"val/{rows.keys[5]}")]
    )
    results = evaluate_teacher(flowers.path)
    assert results["id_test"].accuracy > 92
    assert results["ood_test"].accuracy > 94


def test_half_of_the_ood_images_become_the_pool_and_none_of_them_is_a_test_image(tmp_path):
    source = FLOWERS / "clip_vit_b_32.npz"
    keys = np.load(source)["keys"].tolist()
    pool = {*sorted(key for key in keys if key.startswith("val/"))[::2]}
    taken = {(FLOWERS / key).read_bytes() for key in pool}
    lines = ["path,label,split,key"]
    for image in sorted(FLOWERS.glob("*/*/*.jpg")):
        split, label, name = image.relative_to(FLOWERS).parts
        held = f"{split}/{label}/{name}" in pool
        if held or image.read_bytes() not in taken:
            lines.append(f"{image},{label},{'pool' if held else split},{label}/{name}")
    (tmp_path / "flowers.csv").write_text("\n".join(lines))
    own = [key.replace("val/", "pool/", 1) if key in pool else key for key in keys]
    (tmp_path / "keys.txt").write_text("\n".join(own))
    arrays = {"images": f"{source}:image_embeddings", "keys": str(tmp_path / "keys.txt")}
    manifest = import_files(
        tmp_path / "cache", ImportOptions(**arrays, data=tmp_path / "flowers.csv", model="ViT-B-32")
    )
    assert manifest.rows == {"train": 1572, "pool": 944, "id_test": 636, "ood_test": 943}
    assert manifest.splits["pool"] == ()
    assert manifest.left_out["ood_test"]["rows without an image"].names == ("val/foxglove/image_07323.jpg",)
    cache = EmbeddingCache.open(tmp_path / "cache")
    content = {name: {row.tobytes() for row in cache.split(name).files.content} for name in manifest.rows}
    assert not content["pool"] & (content["ood_test"] | content["id_test"])


@pytest.mark.parametrize("order", ["reversed", "shuffled"])
def test_texts_of_flowers_in_another_order_are_refused(tmp_path, order):
    source = FLOWERS / "clip_vit_b_32.npz"
    names = np.load(source)["class_folders"]
    other = names[::-1] if order == "reversed" else np.random.default_rng(0).permutation(names)
    (tmp_path / "classes.txt").write_text("\n".join(other))
    arrays = {"images": "image_embeddings", "keys": "keys", "texts": "class_embeddings"}
    given = {name: f"{source}:{array}" for name, array in arrays.items()}
    with pytest.raises(UserError, match=r"'labels' is in another order .* and for 92\.\d% if each class"):
        import_files(tmp_path / "cache", ImportOptions(**given, classes=str(tmp_path / "classes.txt")))
    assert not (tmp_path / "cache").exists()


@pytest.mark.long
def test_a_student_of_real_embeddings_learns_within_a_minute(flowers, tmp_path):
    settings = [
        "student.arch=timm:test_resnet",
        "student.image_size=32",
        "train.epochs=2",
        "train.batch_size=64",
        "train.device=cpu",
        "optim.lr=0.02",
        "loss.mse=1",
        "loss.im_cst=1",
        "loss.vlalign=1",
    ]
    summary = run(
        with_settings(RunConfig(), settings), cache_dir=flowers.path, data_dir=FLOWERS, out=tmp_path / "run"
    )
    assert summary["images"] == {"train": 1572, "id_test": 1303, "ood_test": 3774}
    assert summary["training_images_without_teacher_row"] == 1540
    assert summary["id_test_accuracy"] > 2 * 100 / 51


def test_grocery_goes_through_stage_one_with_its_long_descriptions(teacher_dir, tmp_path):
    summary = cache_features(
        GROCERY,
        tmp_path / "cache",
        FeatureOptions(model=f"local-dir:{teacher_dir}", device="cpu"),
    )
    folder = open_data([GROCERY])
    assert summary.rows == sum(len(split) for split in folder.splits.values())
    assert summary.truncated["descriptions"] > 0
    assert not summary.skipped
    assert (
        json.loads((tmp_path / "cache" / "manifest.json").read_text())["banks"]["descriptions"]["texts"] == 40
    )
