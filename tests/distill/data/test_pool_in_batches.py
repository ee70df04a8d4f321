"""A pool: images without labels take their share of every batch, and none of them is a test image."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import make_cache, make_photos
from helpers.pools import add_unlabelled
from helpers.runs import SMALL, lines
from helpers.tar_caches import as_tars

from cache import EmbeddingCache
from cache.build.distinct_texts import bank_remarks
from cache.maintain.import_embeddings import import_embeddings
from cache.maintain.imported import Imported
from cache.maintain.imported_banks import ImportedTexts
from cache.runtime.errors import CacheMismatch, UserError
from cache.sources.data import open_data
from cli import main
from distill.config import RunConfig
from distill.data.pool import Pool, check_pool_apart, has_pool, pool_places
from distill.deploy.export import export_run
from distill.judge.open_run import evaluate_run
from distill.report.page import report
from distill.settings import with_settings
from distill.sweep.plan import PlannedRun
from distill.sweep.together import groups_of, what_parts
from distill.train.session import open_session
from distill.train.start import train

ONE = [*SMALL, "train.epochs=1", "loss.cap=0"]


def config(*settings):
    return with_settings(RunConfig(), [*ONE, *settings])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """``photos`` of train, both tests and a pool of 9, and the ``cache`` of all, to be read."""
    root = tmp_path_factory.mktemp("pool")
    photos = make_photos(root / "photos", train=4, test=2)
    other = make_photos(root / "other", train=3, test=1)
    for path in (other / "train").rglob("*.jpg"):  # with keys that train has as well
        copy = photos / "pool" / path.parent.name / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        # Each picture is another: pixels of the same seed are not.
        shutil.copy(path, copy)
        copy.write_bytes(copy.read_bytes() + b"pool")
    make_cache(root / "cache", photos)
    return root


def session_of(place, *settings, cache="cache"):
    return open_session(config(*settings), cache_dir=place / cache, data_dir=place / "photos")


@pytest.mark.parametrize("share", [-1.0, 0.5, 0.2])
def test_every_batch_has_its_share_of_the_pool_and_each_labelled_image_comes_once(place, share):
    session = session_of(place, f"data.pool_share={share}")
    joined, size = session.data.joined, session.config.train.batch_size
    assert (joined.labelled, joined.pool) == (12, {"pool": 9})
    places = {-1.0: round(9 / 21 * size), 0.5: size // 2, 0.2: 1}[share]
    batches = session.batches_of(0)
    every = Counter(np.concatenate(batches).tolist())
    for batch in batches:
        assert len(set(batch.tolist())) == len(batch)
        assert (batch >= 12).sum() == places
    assert [every[i] for i in range(12)] == [1] * 12
    of_pool = [every[i] for i in range(12, 21)]
    assert max(of_pool) - min(of_pool) <= 1
    assert session.data.pool_of(size).share == places / size


def test_an_image_of_the_pool_has_its_own_pixels_and_row_and_no_label(place):
    session, cache = session_of(place), EmbeddingCache.open(place / "cache")
    data = session.data
    chosen = np.arange(21)
    (_, images), *_ = data.pixels.batches([chosen])
    batch = data.batch(chosen, images)
    assert (batch.label_B >= 0).tolist() == [True] * 12 + [False] * 9
    for split, own in (("train", slice(0, 12)), ("pool", slice(12, 21))):
        keys = [image.key for image in data.joined.images[own]]
        rows = cache.split(split)
        expected = torch.from_numpy(rows.embeddings[rows.find(keys)]).float()
        assert torch.equal(batch.targets[0].teacher_BD[own], expected)
        read = torch.stack([session.model.augment.decode(one) for one in data.joined.images[own]])
        assert torch.equal(images[own], read)


def test_a_run_says_how_many_images_of_which_source_its_pool_has(place, tmp_path):
    summary = train(config(), cache_dir=place / "cache", data_dir=place / "photos", out=tmp_path / "run")
    assert summary["pool"] == {
        "images": 9,
        "share": 0.5,
        "sources": [{"split": "pool", "images": 9, "given": [str(place / "photos")]}],
        "test_images": 0,
    }
    assert (summary["images"]["train"], summary["images"]["pool"]) == (12, 9)
    assert [line["pool_images"] for line in lines(tmp_path / "run")] == [9]
    assert summary["data"]["learnt_from"]["pool"]["images"] == 9
    assert evaluate_run(tmp_path / "run").keys() == {"id_test", "ood_test"}
    told = "9 images without a label (9 of pool), 50% of a batch; none of them is a test image"
    report(tmp_path / "run", tmp_path / "report.html")
    assert told in (tmp_path / "report.html").read_text()
    words = ["export", str(tmp_path / "run"), "--out", str(tmp_path / "model"), "--formats", "safetensors"]
    assert CliRunner().invoke(main, words).exit_code == 0
    assert f"It learnt from {told}." in (tmp_path / "model" / "README.md").read_text()


@pytest.mark.parametrize(
    "settings", [["data.pool_share=0"], ["loss.mse=0", "loss.im_cst=0", "loss.vlalign=0"]]
)
def test_without_a_share_or_a_loss_that_takes_it_a_pool_changes_no_batch(place, settings):
    session = session_of(place, *settings)
    assert (session.data.count, session.data.unused) == (12, 9)
    assert session.pool is None
    assert sorted(np.concatenate(session.batches_of(0)).tolist()) == list(range(12))


def test_a_test_image_in_the_pool_is_an_error_that_names_both(place, tmp_path):
    tars = as_tars(EmbeddingCache.open(place / "cache"), place / "photos", tmp_path / "tars")
    cache = add_unlabelled(tars, place / "photos" / "val")
    named = r"4 images without a label .*: pool/\w+/val_\d\.jpg is ood_test/\w+/val_\d\.jpg"
    with pytest.raises(UserError, match=named):
        check_pool_apart(cache)
    with pytest.raises(UserError, match=named):
        open_session(config(), cache_dir=tars, data_dir=None)
    assert open_session(config("data.pool_share=0"), cache_dir=tars, data_dir=None).pool is None
    with pytest.raises(UserError, match=named):
        open_session(config(), cache_dir=tars, data_dir=place / "photos")


def test_a_test_image_among_those_of_train_without_a_label_is_an_error_too(place, tmp_path):
    tars = as_tars(EmbeddingCache.open(place / "cache"), place / "photos", tmp_path / "tars")
    cache = add_unlabelled(tars, place / "photos" / "val", "train")
    assert check_pool_apart(cache) == 0
    with pytest.raises(UserError, match=r"4 images without a label .*: train/\w+/val_\d\.jpg is ood_test/"):
        check_pool_apart(cache, ["train", "pool"])
    with pytest.raises(UserError, match="4 images without a label"):
        open_session(config(), cache_dir=tars, data_dir=None)


def test_a_pool_that_changed_is_refused_where_it_is_learnt_from(place, tmp_path):
    shutil.copytree(place / "photos", tmp_path / "photos")
    shutil.copytree(place / "cache", tmp_path / "cache")
    (tmp_path / "photos/pool/apple/train_0.jpg").write_bytes(b"another")
    with pytest.raises(CacheMismatch, match="1 images of pool"):
        session_of(tmp_path)
    session_of(tmp_path, "data.pool_share=0")


@pytest.fixture(scope="module")
def alone(place):
    """The same ``photos`` and ``cache`` without train."""
    root = place / "alone"
    shutil.copytree(place / "photos", root / "photos")
    shutil.rmtree(root / "photos" / "train")
    make_cache(root / "cache", root / "photos")
    return root


def test_a_student_learns_from_a_pool_alone(alone, tmp_path):
    settings = config("loss.cls=0", "optim.lr=0.003")
    summary = train(settings, cache_dir=alone / "cache", data_dir=alone / "photos", out=tmp_path / "run")
    assert summary["pool"]["images"] == 9
    assert summary["pool"]["share"] == 1
    assert "ood_test_accuracy" in summary
    assert "train_accuracy" not in summary
    assert summary["classes"]["train"] == 5
    assert evaluate_run(tmp_path / "run").keys() >= {"ood_test"}


def test_photos_alone_teach_with_and_without_texts(alone, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(alone / "photos" / "pool", photos / "pool")
    folder, rng = open_data([photos]), np.random.default_rng(0)
    keys = [f"pool/{image.key}" for image in folder.split("pool").all()]
    given = Imported(keys=keys, embeddings=rng.normal(size=(len(keys), 8)), texts=[], folder=folder)
    settings = config("loss.cls=0", "loss.vlalign=0")
    import_embeddings(tmp_path / "cache", given)
    without = train(settings, cache_dir=tmp_path / "cache", data_dir=photos, out=tmp_path / "none")
    assert without["pool"]["images"] == 9
    assert not [name for name, value in without.items() if name.endswith("accuracy") and value]
    bank = ImportedTexts(name="labels", classes=["kiwi", "plum"], embeddings=rng.normal(size=(2, 8)))
    assert bank_remarks(bank.bank(), folder.class_names) == []
    import_embeddings(tmp_path / "cache", replace(given, texts=[bank]))
    summary = train(settings, cache_dir=tmp_path / "cache", data_dir=photos, out=tmp_path / "run")
    assert (summary["pool"]["images"], summary["classes"]["train"]) == (9, 2)
    with pytest.raises(UserError, match=r"run has no labelled image.* Fix: add test images"):
        export_run(tmp_path / "run", tmp_path / "model")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([], "loss.cls needs labels"),
        (["loss.cls=0", "loss.vlalign_filter=true"], "loss.vlalign_filter needs labels"),
        (["loss.cls=0", "data.id_val=0.2"], "data.id_val needs labels"),
        (["loss.cls=0", "data.balanced=true"], "data.balanced needs labels"),
        (["train.closed_set=true"], "train.closed_set needs labels"),
        (["data.pool_share=0"], "data.pool_share is 0"),
    ],
)
def test_what_needs_labels_says_so_of_a_pool_alone(alone, settings, said):
    with pytest.raises(UserError, match=f"{said}.* has a pool alone"):
        session_of(alone, *settings)


def test_few_shot_images_and_the_pool_share_every_batch(place):
    session = session_of(place, "fewshot.shots=1", "train.batch_size=8")
    joined = session.data.joined
    assert (joined.labelled, joined.pool, joined.support) == (12, {"pool": 9}, 2)
    for batch in session.batches_of(0):
        assert (batch >= 21).sum() == 2
        assert ((batch >= 12) & (batch < 21)).sum() == round(9 / 21 * 6)
    labels = session.data.batch(np.arange(23), torch.zeros(23, 3, 1, 1)).label_B
    assert (labels[12:21] == -1).all()
    assert labels[21:].tolist() == [3, 4]


def test_images_set_aside_are_labelled_ones(place):
    session = session_of(place, "data.id_val=0.3")
    aside = len(session.splits["id_val"].pixels.samples)
    assert session.data.joined.labelled + aside == 12
    assert session.data.joined.pool == {"pool": 9}


def test_every_teacher_and_every_caption_has_its_own_rows_of_the_pool(place, tmp_path):
    cache = make_cache(tmp_path / "cache", place / "photos", captions=True)
    learnt = with_settings(RunConfig(), [*ONE, "loss.cap=1"])
    session = open_session(learnt, cache_dir=cache.path, data_dir=place / "photos")
    keys = [image.key for image in session.data.joined.images]
    targets = session.data.batch(np.arange(21), torch.zeros(21, 3, 1, 1)).targets[0]
    rows = cache.split("pool")
    captions = torch.from_numpy(rows.caption_embeddings[rows.find(keys[12:])]).float()
    assert torch.equal(targets.caption_BD[12:], captions)
    # As a second teacher's rows are: the same rows of another cache of the same images.
    other = session.data.joined.of(make_cache(tmp_path / "other", place / "photos", seed=1))
    assert not np.array_equal(other.rows.embeddings[:], session.data.joined.rows.embeddings[:])
    assert np.array_equal(other.labels, session.data.joined.labels)


def test_tars_of_a_pool_are_mixed_with_trains(place, tmp_path):
    tars = as_tars(EmbeddingCache.open(place / "cache"), place / "photos", tmp_path / "tars")
    summary = train(config(), cache_dir=tars, data_dir=None, out=tmp_path / "run")
    assert summary["pool"]["images"] == 9
    assert summary["pool"]["share"] == pytest.approx(9 / 21, abs=1e-4)
    assert summary["images"]["train"] == 12
    whole = json.loads(json.dumps(summary["data"]["learnt_from"]))
    plain = session_of(place).identity.to_json()["learnt_from"]
    assert {name: one["content"] for name, one in whole.items()} == {
        name: one["content"] for name, one in plain.items()
    }
    for setting in ("data.pool_share=0.5", "data.class_val=0.5", "data.balanced=true"):
        with pytest.raises(UserError, match="is a WebDataset, which is streamed"):
            open_session(config(setting), cache_dir=tars, data_dir=None)


def test_places_of_a_pool_leave_one_of_each_kind():
    assert pool_places(-1, labelled=1000, pool=1, batch_size=8) == 1
    assert pool_places(-1, labelled=1, pool=1000, batch_size=8) == 7
    assert pool_places(0.5, labelled=100, pool=3, batch_size=8) == 3
    assert pool_places(0.5, labelled=0, pool=30, batch_size=8) == 8
    assert pool_places(0, labelled=10, pool=30, batch_size=8) == 0
    assert Pool(share=0.5, sources=(), test_images=None).to_json()["test_images"] is None


def test_runs_that_take_no_pool_have_a_stream_of_their_own_where_there_is_one(place):
    runs = [
        PlannedRun(name="", point="", settings={}, seed=0, config=config(*more))
        for more in ([], ["loss.mse=0", "loss.im_cst=0", "loss.vlalign=0"])
    ]
    pool = has_pool(EmbeddingCache.open(place / "cache"))
    assert [len(group) for group in groups_of(runs, pool=pool)] == [1, 1]
    assert what_parts(runs, pool=pool) == ["images without a label"]
    assert [len(group) for group in groups_of(runs)] == [2]


def test_images_of_train_without_a_label_are_pool_too(place, tmp_path):
    tars = as_tars(EmbeddingCache.open(place / "cache"), place / "photos", tmp_path / "tars")
    add_unlabelled(
        tars, place / "photos" / "pool", "train"
    )  # of keys that train has, and so other rows of them
    session = open_session(config("data.pool_share=0"), cache_dir=tars, data_dir=None)
    labels = [rows.label_b for rows, _ in session.data.images(session.batches_of(0))]
    assert (torch.cat(labels) >= 0).all()
    assert session.data.unused == 18
    summary = train(config(), cache_dir=tars, data_dir=None, out=tmp_path / "run")
    assert [(one["split"], one["images"]) for one in summary["pool"]["sources"]] == [
        ("train", 9),
        ("pool", 9),
    ]
