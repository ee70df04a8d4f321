"""Which views a run replays: of train and pool, by every teacher, wherever the cache has them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from conftest import make_photos
from helpers.runs import SMALL, StopAt, numbers
from helpers.teachers import save_clip

from cache import EmbeddingCache
from cache.build.from_folder import FeatureOptions, cache_features
from cache.runtime.errors import CacheMismatch, UserError
from cache.runtime.progress import Silent
from distill.config import RunConfig
from distill.data.replayed_views import replayed_views
from distill.settings import with_settings
from distill.sweep.plan import PlannedRun
from distill.sweep.together import groups_of
from distill.train.session import open_session
from distill.train.shared_batches import stream_generator
from distill.train.start import train
from distill.train.stopping import Stopped


class Notes(Silent):
    """Keeps what is told."""

    def __init__(self):
        self.notes = []

    def note(self, message):
        self.notes.append(message)


ONE = [*SMALL, "train.epochs=1", "loss.cap=0"]
BOTH = 'teachers=["main","second"]'


def config(*settings):
    return with_settings(RunConfig(), [*ONE, *settings])


def build(place, teacher="main", **options):
    given = {"device": "cpu", "workers": 0, "dtype": "float32", "teacher": teacher, **options}
    model = f"local-dir:{place / teacher}"
    cache_features(place / "photos", place / "cache", FeatureOptions(model=model, **given))
    return EmbeddingCache.open(place / "cache")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """``photos`` with a pool of 9, and the ``cache`` of two teachers with two views, to be read."""
    root = tmp_path_factory.mktemp("views")
    photos = make_photos(root / "photos", train=4, test=2)
    pictures = make_photos(root / "other", train=3, test=1)
    shutil.copytree(pictures / "train", photos / "pool")
    for path in (photos / "pool").rglob("*.jpg"):  # pixels of one seed are the same
        path.write_bytes(path.read_bytes() + b"pool")
    save_clip(root / "main", embed_dim=16)
    save_clip(root / "second", embed_dim=24)
    build(root, views=2, view_policy="randaugment")
    build(root, "second")
    return root


def session_of(place, *settings):
    return open_session(config(*settings), cache_dir=place / "cache", data_dir=place / "photos")


def test_a_second_teacher_has_rows_of_the_views_that_are_there_and_of_no_others(place):
    cache = EmbeddingCache.open(place / "cache")
    for split in ("train", "pool"):
        rows = np.arange(len(cache.split(split)))
        main, second = (cache.teacher_cache(name).crop_views(split) for name in ("main", "second"))
        for mine, others in zip(main.crops(rows, rows % 2), second.crops(rows, rows % 2), strict=True):
            np.testing.assert_array_equal(mine, others)
        np.testing.assert_array_equal(main.seeds(rows, rows % 2), second.seeds(rows, rows % 2))
        assert second.embeddings(rows, rows % 2).shape == (len(rows), 24)
    with pytest.raises(UserError, match=r"views of .* are 2 crops .* by the teacher second .* be 3 crops"):
        build(place, "second", views=3)


def test_a_batch_has_every_teachers_row_of_the_view_that_is_shown_also_of_the_pool(place):
    session = session_of(place, BOTH)
    images = session.data.joined.images
    chosen = np.array([0, 20, 5, 13])
    crops = session.data.crops(chosen, stream_generator(0, 0, 0))
    batch = session.data.batch(chosen, torch.zeros(4, 3, 1, 1), crops)
    for name, targets in zip(("main", "second"), batch.targets, strict=True):
        cache = EmbeddingCache.open(place / "cache").teacher_cache(name)
        for i, image in enumerate(chosen.tolist()):
            stored = cache.crop_views("pool" if image >= 12 else "train")
            row, view = stored.find([images[image].key]), crops.view_B[i : i + 1].numpy()
            torch.testing.assert_close(targets.teacher_BD[i].numpy(), stored.embeddings(row, view)[0])
            np.testing.assert_array_equal(crops.box_B4[i : i + 1], stored.crops(row, view)[0])


def test_few_shot_images_have_their_plain_rows_beside_views(place):
    session = session_of(place, "fewshot.shots=1")
    joined = session.data.joined
    last = len(joined.images) - 1
    chosen = np.array([last, 0])
    crops = session.data.crops(chosen, stream_generator(0, 0, 0))
    (targets,) = session.data.batch(chosen, torch.zeros(2, 3, 1, 1), crops).targets
    rows = EmbeddingCache.open(place / "cache").split("ood_test")
    plain = rows.embeddings[rows.find([joined.images[last].key])][0]
    np.testing.assert_array_equal(targets.teacher_BD[0], plain)
    assert crops.operation_OB[:, 0].tolist() == [0, 0]
    assert 0 < crops.box_B4[0, 2] <= 1


def test_a_run_that_crops_replays_views_unless_told_and_says_so(place, tmp_path):
    cache = EmbeddingCache.open(place / "cache")
    words = "2 crops of at least 0.3 after RandAugment(2, 9)"
    assert replayed_views(cache, config(), ["train", "pool"]).words == words
    assert replayed_views(cache, config("data.policy=randaugment"), ["train"]).words == words
    for none in (["data.replay_views=off"], ["train.closed_set=true"], ["train.head_only=trained"]):
        assert replayed_views(cache, config(*none), ["train"]).note == ""
    for policy in ("data.policy=flip", "data.per_image=false"):
        assert policy in replayed_views(cache, config(policy), ["train"]).note
    assert "no views of id_test" in replayed_views(cache, config(), ["id_test"]).note
    with pytest.raises(UserError, match=r"no views of id_test.*--views 2 --views-scale 0\.3 --view-policy r"):
        replayed_views(cache, config("data.replay_views=on"), ["id_test"])
    runs = [
        PlannedRun(name="", point="", settings={}, seed=0, config=config(*own))
        for own in ([], ["train.closed_set=true"])
    ]
    assert [len(groups_of(runs, views=views)) for views in (False, True)] == [1, 2]
    told = Notes()
    summary = train(
        config(), cache_dir=place / "cache", data_dir=place / "photos", out=tmp_path / "run", progress=told
    )
    assert summary["views"] == summary["data"]["views"] == words
    assert any(words in note for note in told.notes)


def test_teachers_whose_views_differ_are_refused_with_the_command(place, tmp_path):
    shutil.copytree(place, tmp_path / "place")
    cache = build(tmp_path / "place", views=1)
    assert "are not replayed: the views by the teacher second are 2 crops" in (
        replayed_views(cache, config(BOTH), ["train"]).note
    )
    with pytest.raises(
        CacheMismatch, match=r"--views 1 --views-scale 0\.3 --view-policy crop_flip --teacher"
    ):
        session_of(tmp_path / "place", BOTH, "data.replay_views=on")


def test_a_run_that_began_without_views_goes_on_without(place, tmp_path):
    shutil.copytree(place / "photos", tmp_path / "photos")
    shutil.copytree(place / "main", tmp_path / "main")
    cache = build(tmp_path)
    given = {"cache_dir": cache.path, "data_dir": tmp_path / "photos"}
    with pytest.raises(Stopped):
        train(config(), out=tmp_path / "cut", progress=StopAt(12), **given)
    train(config(), out=tmp_path / "whole", **given)
    build(tmp_path, views=1)
    train(config(), out=tmp_path / "cut", resume_run=True, **given)
    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole")
