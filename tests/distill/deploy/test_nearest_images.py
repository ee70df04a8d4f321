"""Training images beside an answer: which, in what order, called what."""

from __future__ import annotations

import base64
import io
import shutil

import numpy as np
import pytest
from conftest import COLOURS
from helpers.exported import val_photos
from helpers.services import serving
from PIL import Image

from cache import EmbeddingCache
from cache.sources.decoding import load_rgb
from distill.deploy.model import Model
from distill.deploy.nearest_images import NearestImages, nearest_images_of
from distill.deploy.run_texts import class_sets_of
from distill.judge.open_run import open_trained


def test_the_nearest_come_first_each_with_its_own_cosine():
    rows = np.array([[0.6, 0.8], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=np.float16)
    shown = NearestImages(keys=tuple("abcd"), labels=tuple("wxyz"), embeddings=rows, pictures=(b"",) * 4)
    nearest = shown.nearest(np.array([1.0, 0.0], dtype=np.float32), 3)
    assert [shown.keys[place] for place, _ in nearest] == ["b", "a", "c"]
    np.testing.assert_allclose([cosine for _, cosine in nearest], [1, 0.6, 0], atol=1e-3)


def test_each_image_that_goes_along_has_its_own_label_row_and_picture(trained, plain):
    shown = NearestImages.load(plain / "nearest_images.npz")
    rows = EmbeddingCache.open(trained / "cache").split("train")
    assert sorted(shown.keys) == sorted(rows.keys)
    for key, label, row, picture in zip(
        shown.keys, shown.labels, shown.embeddings, shown.pictures, strict=True
    ):
        assert label == key.split("/")[0]
        theirs = rows.embeddings[np.array([rows.position[key]])][0].astype(np.float64)
        np.testing.assert_allclose(row, theirs / np.linalg.norm(theirs), atol=2e-3)
        small = np.array(Image.open(io.BytesIO(picture)).convert("RGB"), dtype=float)
        np.testing.assert_allclose(small.mean(axis=(0, 1)), COLOURS[label], atol=20)


def test_the_service_shows_the_nearest_first_under_their_own_names(trained, plain):
    model, photo = Model.open(plain), val_photos(trained)[0]
    shown = NearestImages.load(plain / "nearest_images.npz")
    embedding = model.embed(model.prepare(load_rgb(photo))[None])[0]
    cosines = shown.embeddings.astype(np.float64) @ embedding
    order = np.argsort(-cosines, kind="stable")[:20]  # of 24: each of the three classes is there
    with serving(plain) as ask:
        status, answer = ask("/predict?nearest_images=20", photo.read_bytes())
    assert status == 200
    told = answer["nearest_images"]
    np.testing.assert_allclose([one["similarity"] for one in told], cosines[order], atol=1e-3)
    for one in told:  # near cosines may change places with the batch that they are computed in
        place = shown.keys.index(one["key"])
        assert one["similarity"] == pytest.approx(cosines[place], abs=1e-3)
        assert one["label"] == shown.labels[place]
        assert base64.b64decode(one["picture"].partition(",")[2]) == shown.pictures[place]


def test_training_images_that_changed_since_are_not_shown_as_what_the_teacher_saw(trained, tmp_path):
    photos = shutil.copytree(trained / "photos", tmp_path / "photos")
    shutil.copy(photos / "train" / "cherry" / "train_1.jpg", photos / "train" / "apple" / "train_0.jpg")
    opened = open_trained(trained / "run", data_dir=photos, device="cpu")
    banks, own = class_sets_of(opened, opened.heads[0])
    images = nearest_images_of(opened, opened.heads[0], banks[own], most=200)
    assert images is not None
    assert len(images.keys) == 23
    assert not any(key.endswith("apple/train_0.jpg") for key in images.keys)
