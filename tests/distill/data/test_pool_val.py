"""Images of a pool alone that are set aside: the teacher says what they are, and nothing is learnt from them."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import ID_CLASSES
from helpers.pools import import_pool_cache

from cache.runtime.errors import UserError
from cache.sources.pictures import PictureSample
from distill.config import RunConfig
from distill.data.pool_val import as_teacher_says, pool_aside
from distill.data.training_rows import join_images
from distill.settings import with_settings


def images(count):
    return [PictureSample(key=f"found/{i}.jpg", place=f"/nowhere/{i}.jpg") for i in range(count)]


def test_a_share_is_set_aside_the_same_whatever_is_added_and_one_at_least():
    some, more = images(200), images(300)
    aside = pool_aside(some, 0.1)
    assert 5 <= aside.sum() <= 40
    assert np.array_equal(pool_aside(more, 0.1)[:200], aside)
    assert pool_aside(some, 0.0).sum() == 0
    assert pool_aside(images(3), 1e-9).sum() == 1


def test_an_image_is_of_the_class_whose_text_is_nearest_to_its_row(tmp_path):
    cache = import_pool_cache(tmp_path / "cache", labelled=(), pool=8)
    rows, bank = cache.split("pool"), cache.text_bank("labels")
    said = as_teacher_says(cache, RunConfig(), images(8), np.arange(8))
    texts = bank.class_texts(ID_CLASSES)
    texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    expected = [(ID_CLASSES[i],) for i in (rows.embeddings[:] @ texts.T).argmax(axis=1)]
    assert [image.labels for image in said] == expected
    assert [(image.key, image.where) for image in said] == [(i.key, i.place) for i in images(8)]


def test_it_is_for_a_pool_alone(cached, photos):
    from cache.sources.data import open_data
    from distill.data.identity_reader import IdentityReader

    identities = IdentityReader(cache=cached, folder=open_data([photos]))
    with pytest.raises(UserError, match=r"data\.pool_val is 0\.2, and .* has other images than a pool"):
        join_images(identities, with_settings(RunConfig(), ["data.pool_val=0.2"]))
