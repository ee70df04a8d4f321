"""Training from a cache's own tars: no data folder, every image once, and exact after a stop."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from dataclasses import asdict, replace

import pytest
import torch
from click.testing import CliRunner
from conftest import ROOT, make_cache, make_photos
from helpers.processes import distill, loses_second, torchrun
from helpers.runs import BASE, SMALL, StopAt, numbers, same_run, weights
from helpers.tar_caches import as_tars, damage_tar

from cache import EmbeddingCache
from cache.runtime.errors import CacheMismatch, UserError
from cache.sources.samples import labels_of
from cache.store.journal import Journal, JournalWriter
from cache.store.journal_lines import RemovedRows
from cache.store.row_group import read_keys
from cli import main
from distill.config import RunConfig
from distill.data.streams import open_stream
from distill.fewshot.run import FewShotOptions, few_shot
from distill.judge.open_run import evaluate_run, open_trained, space_of_run
from distill.settings import load_recipe, with_settings
from distill.train.session import open_session
from distill.train.start import train as run
from distill.train.stopping import Stopped


def config(*settings: str) -> RunConfig:
    return with_settings(RunConfig(), [*SMALL, *settings])


@pytest.fixture
def tars(cached, photos, tmp_path):
    """The cache of ``photos`` in tars of five rows."""
    return as_tars(cached, photos, tmp_path / "tars")


@pytest.fixture
def train(tars, photos, tmp_path):
    """A function that trains a very small student from the tars; the folder of photos is gone."""
    shutil.move(photos, tmp_path / "elsewhere")

    def run_it(out="run", *settings, **options):
        return run(config(*settings), cache_dir=tars, data_dir=None, out=tmp_path / out, **options)

    return run_it


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run from tars alone that was never stopped, to be read."""
    root = tmp_path_factory.mktemp("whole")
    photos = make_photos(root / "photos")
    tars = as_tars(make_cache(root / "cache", photos, captions=True), photos, root / "tars")
    shutil.rmtree(photos)
    run(config(), cache_dir=tars, data_dir=None, out=root / "run")
    return root / "run"


def epoch_of(cache, *settings, epoch=0):
    """The keys and labels of an epoch as its batches have them."""
    session = open_session(config(*settings), cache_dir=cache, data_dir=None)
    keys, labels, targets = [], [], []
    for chosen, images in session.data.images(session.batches_of(epoch)):
        batch = session.data.batch(chosen, images)
        assert len(images) == len(chosen)
        labels += batch.label_B.tolist()
        targets.append(batch.targets[0].teacher_BD)
    for step in range(len(session.batches_of(epoch))):
        keys += session.data.keys_of(session.batches_of(epoch), step)
    return keys, labels, torch.cat(targets)


def test_a_run_needs_no_data_folder_and_is_judged_without_one(train, tmp_path):
    summary = train("run", "data.id_val=0.3")
    assert summary["images"]["train"] + summary["images"]["id_val"] == 24
    assert (summary["images"]["id_test"], summary["images"]["ood_test"]) == (9, 6)
    assert {f"loss_{name}" for name in ("cls", "mse", "im_cst", "vlalign", "cap")} <= set(
        numbers(tmp_path / "run")[0]
    )
    results = evaluate_run(tmp_path / "run", device="cpu", splits=["id_val", "id_test", "ood_test"])
    last = numbers(tmp_path / "run")[-1]
    assert results["ood_test"].accuracy == pytest.approx(last["ood_test_accuracy"])
    assert results["id_val"].accuracy == pytest.approx(last["id_val_accuracy"])
    assert space_of_run(tmp_path / "run", device="cpu").keys() == {"id_test", "ood_test"}
    assert summary["teacher_images"] == {"id_test": 9, "ood_test": 6}


def test_training_lowers_the_loss(train, tmp_path):
    train("run", "train.epochs=8")
    totals = [line["loss_total"] for line in numbers(tmp_path / "run")]
    assert totals[-1] < 0.8 * totals[0]


def test_an_epoch_has_every_image_once_with_its_own_row_and_label(tars, cached):
    settings = ("train.batch_size=3",)  # of which all keys are remembered
    keys, labels, targets = epoch_of(tars, *settings)
    rows = cached.split("train")
    at = rows.find(keys)
    assert Counter(keys) == Counter(rows.keys)
    assert labels == rows.labels[at].tolist()
    assert torch.equal(targets, torch.from_numpy(rows.embeddings[at]))
    assert epoch_of(tars, *settings, epoch=1)[0] != keys
    assert epoch_of(tars, *settings)[0] == keys


def test_images_are_those_of_the_folder(tars, cached, photos):
    streamed = open_session(config("train.batch_size=3"), cache_dir=tars, data_dir=None)
    steps = streamed.batches_of(0)
    images = torch.cat([own for _, own in streamed.data.images(steps)])
    keys = [key for step in range(len(steps)) for key in streamed.data.keys_of(steps, step)]
    plain = open_session(config(), cache_dir=cached.path, data_dir=photos)
    place = {sample.key: i for i, sample in enumerate(plain.data.joined.images)}
    (_, own), *_ = plain.data.pixels.batches([torch.arange(24).numpy()])
    assert torch.equal(images, own[[place[key] for key in keys]])


def test_what_a_run_is_made_from_is_the_same_from_a_folder_and_from_tars(tars, cached, photos):
    streamed = open_session(config("data.id_val=0.3"), cache_dir=tars, data_dir=None)
    plain = open_session(config("data.id_val=0.3"), cache_dir=cached.path, data_dir=photos)
    assert streamed.identity.learnt_from == plain.identity.learnt_from
    assert streamed.identity.judged_on == plain.identity.judged_on
    ours, theirs = (one.splits["id_val"].pixels.samples for one in (streamed, plain))
    assert [sample.key for sample in ours] == [sample.key for sample in theirs]
    assert (
        labels_of(ours, plain.model.class_names).tolist()
        == labels_of(theirs, plain.model.class_names).tolist()
    )


def test_the_same_seed_gives_the_same_numbers_whatever_reads(whole, train, tmp_path):
    train("two")
    train("workers", "data.workers=2")
    train("other", "train.seed=1")
    assert numbers(whole) == numbers(tmp_path / "two") == numbers(tmp_path / "workers")
    assert numbers(whole) != numbers(tmp_path / "other")
    one, workers = weights(whole), weights(tmp_path / "workers")
    assert all(torch.equal(one[name], workers[name]) for name in one)


@pytest.mark.parametrize("images", [18, 40])
def test_a_run_stopped_in_mid_epoch_and_resumed_equals_an_uninterrupted_one(whole, train, tmp_path, images):
    with pytest.raises(Stopped):
        train("cut", progress=StopAt(images))
    train("cut", resume_run=True)
    same_run(tmp_path / "cut", whole)


def test_a_checkpoint_says_which_tars_of_the_epoch_are_done(train, tmp_path):
    with pytest.raises(Stopped):
        train("cut", progress=StopAt(18))
    state = torch.load(tmp_path / "cut" / "last.pt", weights_only=True)
    assert state["stream"]["ranks"] == 1
    assert set(state["stream"]["done"]) < {f"train-{i:05d}" for i in range(5)}
    assert state["stream"]["done"]


def test_a_run_goes_on_with_the_tars_and_processes_that_it_stopped_with(
    train, tars, photos, cached, tmp_path
):
    with pytest.raises(Stopped):
        train("cut", progress=StopAt(18))
    other = as_tars(cached, tmp_path / "elsewhere", tmp_path / "other", rows=4)
    with pytest.raises(CacheMismatch, match="stopped within an epoch, of which other tars"):
        run(config(), cache_dir=other, data_dir=None, out=tmp_path / "cut", resume_run=True)
    with pytest.raises(CacheMismatch, match="streamed from tars"):
        run(config(), cache_dir=tars, data_dir=tmp_path / "elsewhere", out=tmp_path / "cut", resume_run=True)


def test_removed_rows_are_not_seen(tars, tmp_path):
    cache = EmbeddingCache.open(tars)
    group = cache.journal.groups("train")[1]
    gone = read_keys(tars, group.keys).taken([0, 3])
    JournalWriter(tars).add(RemovedRows(group=group.name, rows=(0, 3), digests=asdict(gone.digests())))
    replace(cache.manifest, rows=Journal.load(tars).rows_of_splits).save(tars)
    keys, _, _ = epoch_of(tars, "train.batch_size=3")
    assert len(keys) == 21  # of 22 rows, which leave a batch of one
    assert not set(keys) & set(gone.keys)
    stream = open_stream(config(), cache_dir=tars, data_dir=None)
    assert stream.data_of(config(), ["main"]).count == 22


def test_captions_in_the_tars_are_those_beside_them(cached, photos, tmp_path):
    losses = []
    for where in ("beside", "inside"):
        tars = as_tars(cached, photos, tmp_path / where, captions=where)
        run(config("train.epochs=1"), cache_dir=tars, data_dir=None, out=tmp_path / f"run-{where}")
        losses.append(numbers(tmp_path / f"run-{where}"))
    assert losses[0] == losses[1]


def test_a_cache_without_captions_says_so(photos, tmp_path):
    tars = as_tars(make_cache(tmp_path / "plain", photos), photos, tmp_path / "tars")
    with pytest.raises(UserError, match="no captions of the training images"):
        open_session(config(), cache_dir=tars, data_dir=None)


def test_one_caption_for_all_images_stops_loss_cap(photos, tmp_path):
    one = make_cache(tmp_path / "one", photos, captions=True)
    same = as_tars(one, photos, tmp_path / "same", captions="same")
    with pytest.raises(UserError, match=r"all 24 training images of .* have the same caption"):
        open_session(config(), cache_dir=same, data_dir=None)
    open_session(config("loss.cap=0"), cache_dir=same, data_dir=None)


@pytest.mark.parametrize("setting", ["data.replay_views=on", "fewshot.shots=1", "data.device_images=on"])
def test_what_needs_images_in_any_order_asks_for_their_folder(tars, setting):
    with pytest.raises(UserError, match=r"images in any order.*--data") as error:
        open_session(config(setting), cache_dir=tars, data_dir=None)
    assert "\n" not in str(error.value)


def test_finetuning_a_streamed_run_asks_for_the_folder_and_retrieval_needs_none(whole, photos, tmp_path):
    with pytest.raises(UserError, match=r"finetuning needs images in any order.*--data"):
        few_shot(whole, tmp_path / "out", FewShotOptions(shots=(1,)))
    with pytest.raises(UserError, match=r"support.views"):  # the next thing that it wants
        few_shot(whole, tmp_path / "out", FewShotOptions(shots=(1,), method="retrieval"))
    options = FewShotOptions(shots=(1,), settings=("train.epochs=1",))
    results = few_shot(whole, tmp_path / "with-data", options, data_dir=photos)
    assert results["table"][0]["shots"] == 1


def test_with_a_data_folder_a_cache_of_tars_is_one_of_random_access(tars, cached, photos, tmp_path):
    for name, cache in (("tars", tars), ("plain", cached.path)):
        run(config("train.epochs=1"), cache_dir=cache, data_dir=photos, out=tmp_path / f"run-{name}")
    assert numbers(tmp_path / "run-tars") == numbers(tmp_path / "run-plain")


def test_a_cache_without_pictures_asks_for_their_folder(cached, tmp_path):
    with pytest.raises(UserError, match=r"no pictures.*--data"):
        open_session(config(), cache_dir=cached.path, data_dir=None)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_tar_ends_a_run_in_one_line(tars, tmp_path, workers):
    damage_tar(tars, "train", 2)
    with pytest.raises(UserError, match=r"tars/train-00002\.tar is damaged") as error:
        run(config(f"data.workers={workers}"), cache_dir=tars, data_dir=None, out=tmp_path / "run")
    assert "\n" not in str(error.value)


def test_a_moved_cache_is_judged_where_it_is_now(train, tars, tmp_path):
    train("run", "train.epochs=1")
    moved = shutil.move(tars, tmp_path / "moved")
    trained = open_trained(tmp_path / "run", cache_dir=moved, device="cpu")
    assert {split.name for split in trained.wanted([])} == {"id_test", "ood_test"}
    assert trained.other_data("id_test") == ""


def test_a_sweep_trains_students_beside_each_other_from_one_stream_of_tars(tars, photos, tmp_path):
    shutil.move(photos, tmp_path / "elsewhere")
    (tmp_path / "two.toml").write_text(
        BASE
        + "data.seed = 5\n[[runs]]\nname = 'cls'\n[[runs]]\nname = 'cap'\nloss.cap = 1\noptim.lr = 0.002\n"
    )
    words = ["sweep", tmp_path / "two.toml", "--cache", tars, "--out", tmp_path / "runs", "--together"]
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exit_code == 0, done.output
    beside = sorted(path.parent for path in (tmp_path / "runs").glob("*/summary.json"))
    assert len(beside) == 2
    for path in beside:
        alone = tmp_path / f"alone-{path.name}"
        run(load_recipe(str(path / "config.toml")), cache_dir=tars, data_dir=None, out=alone)
        assert numbers(alone) == numbers(path)
    page = tmp_path / "page.html"
    report = CliRunner().invoke(main, ["report", str(tmp_path / "runs"), "--out", str(page)])
    assert report.exit_code == 0, report.output


@pytest.mark.long
def test_two_processes_of_which_one_is_lost_go_on_to_the_same_numbers(tars, photos, tmp_path):
    shutil.move(photos, tmp_path / "elsewhere")
    chosen = [word for setting in (*SMALL, "train.checkpoint_steps=1") for word in ("--set", setting)]

    def words(out):
        return ["train", str(tars), "--out", str(out), "--recipe", "paper-resnet18", *chosen]

    one, two = tmp_path / "whole", tmp_path / "cut"
    subprocess.run(torchrun(*words(one)), cwd=ROOT, check=True)
    assert json.loads((one / "summary.json").read_text())["images"]["train"] == 24
    done = subprocess.run(loses_second("forward", 400, words(two)), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    position = torch.load(two / "last.pt", weights_only=True)["position"]
    assert position["step"] > 0
    alone = subprocess.run(distill(*words(two), "--resume"), cwd=ROOT, capture_output=True, text=True)
    assert "stopped within an epoch, of which other processes" in alone.stderr
    subprocess.run([*torchrun(*words(two)), "--resume"], cwd=ROOT, check=True)
    same_run(two, one)
