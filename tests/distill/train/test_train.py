from __future__ import annotations

import json
import mmap
import shutil
import signal
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, Counted, make_cache, make_photos
from helpers.processes import python
from helpers.runs import RUN_FILES, SMALL, StopAt, files_of_run, lines, numbers, weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cache.maintain.import_embeddings import import_embeddings
from cache.maintain.imported import Imported
from cache.maintain.imported_banks import ImportedTexts
from cache.runtime.errors import CacheMismatch, UserError
from cache.sources.data import open_data
from distill.config import RunConfig
from distill.data.epoch_order import epoch_batches
from distill.data.identity_reader import IdentityReader
from distill.data.pixels import Pixels, SquashedPhoto
from distill.data.training_rows import join_training_rows
from distill.judge.evaluate import both_kinds, evaluate
from distill.judge.open_run import evaluate_run
from distill.judge.teachers import evaluate_teacher
from distill.record.peak_memory import peak_resident
from distill.record.run_log import last_mean
from distill.settings import with_settings
from distill.train.start import train as run
from distill.train.stopping import Stopped


def config(*settings: str) -> RunConfig:
    return with_settings(RunConfig(), [*SMALL, *settings])


@pytest.fixture
def train(cached, photos, tmp_path):
    """A function that trains a very small student and returns its summary."""

    def run_it(out="run", *settings, **options):
        return run(config(*settings), cache_dir=cached.path, data_dir=photos, out=tmp_path / out, **options)

    return run_it


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A function that gives the run with some settings that was never stopped, and its summary; to be read."""
    root = tmp_path_factory.mktemp("whole")
    cached = make_cache(root / "cache", make_photos(root / "photos"), captions=True)

    @cache
    def whole_of(*settings):
        out = root / f"run-{len(list(root.iterdir()))}"
        return out, run(config(*settings), cache_dir=cached.path, data_dir=root / "photos", out=out)

    return whole_of


def test_one_caption_for_all_images_stops_loss_cap(cached, photos, tmp_path):
    rows = {name: cached.split(name) for name in cached.split_names}
    keys = [f"{name}/{key}" for name, split in rows.items() for key in split.keys]
    captions = np.concatenate([split.embeddings[:] for split in rows.values()])
    trained = np.array([key.startswith("train/") for key in keys])
    captions[trained] = captions[0]
    text = cached.text_bank("labels")
    bank = ImportedTexts(name="labels", classes=text.class_folders, embeddings=text.embeddings)
    given = {"keys": keys, "embeddings": captions + np.float32(0.1), "texts": [bank]}
    for out, last in (("same", 0), ("one_differs", 1)):
        captions[np.flatnonzero(trained)[-1]] += last
        import_embeddings(tmp_path / out, Imported(caption_embeddings=captions, dtype="float32", **given))
    quick = config("train.epochs=1")
    with pytest.raises(UserError, match=r"all 24 training images of .* the same caption.*loss\.cap=0"):
        run(quick, cache_dir=tmp_path / "same", data_dir=photos, out=tmp_path / "run")
    run(
        with_settings(quick, ["loss.cap=0"]),
        cache_dir=tmp_path / "same",
        data_dir=photos,
        out=tmp_path / "off",
    )
    run(quick, cache_dir=tmp_path / "one_differs", data_dir=photos, out=tmp_path / "run")


def test_a_run_folder_has_everything_it_promises(whole, cached):
    out, summary = whole()
    assert files_of_run(out) == {*RUN_FILES, "outputs.npz", "logits.npz"}
    history = lines(out)
    assert [line["epoch"] for line in history] == [1, 2, 3]
    events = EventAccumulator(str(out)).Reload()
    for line, event in zip(history, events.Scalars("loss/total"), strict=True):
        assert (event.step, event.value) == (line["epoch"], pytest.approx(line["loss_total"]))
    spaces = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"] if tag.startswith("space/")}
    assert spaces
    # Of the last epoch.
    assert {event.step for events_of_tag in spaces.values() for event in events_of_tag} == {3}
    assert {f"loss_{name}" for name in ("cls", "mse", "im_cst", "vlalign", "cap", "total")} <= set(history[0])
    assert summary["ood_test_accuracy"] == pytest.approx(
        np.mean([line["ood_test_accuracy"] for line in history])
    )
    assert summary["cache_fingerprint"] == cached.fingerprint
    assert summary["peak_memory_bytes"]["host"] > 1e7
    assert set(summary["per_class_accuracy"]["ood_test"]) == {"lemon", "plum"}
    assert json.loads((out / "summary.json").read_text())["status"] == "finished"


def test_a_summarys_mean_is_of_the_last_five_epochs_that_have_the_metric():
    history = [{"epoch": i, "late": i} if i > 4 else {"epoch": i} for i in range(9)]
    assert last_mean(history, "epoch") == (4 + 5 + 6 + 7 + 8) / 5
    assert last_mean(history, "late") == (5 + 6 + 7 + 8) / 4
    assert last_mean(history, "never") is None


def test_peak_memory_is_in_bytes():
    assert peak_resident() % mmap.PAGESIZE == 0  # whole pages, which a count of 1,000 bytes a kilobyte is not
    assert peak_resident() > 50e6  # torch alone is more


def test_training_lowers_the_loss(train, tmp_path):
    train("run", "train.epochs=8")
    totals = [line["loss_total"] for line in lines(tmp_path / "run")]
    assert totals[-1] < 0.8 * totals[0]


def test_the_same_seed_gives_the_same_numbers_whatever_decodes(whole, train, tmp_path):
    first, _ = whole()
    train("two", "data.memory_mb=0")
    train("three", "data.memory_mb=0", "data.workers=2")
    train("other", "train.seed=1")
    assert numbers(first) == numbers(tmp_path / "two") == numbers(tmp_path / "three")
    assert numbers(first) != numbers(tmp_path / "other")
    one, three = weights(first), weights(tmp_path / "three")
    assert all(torch.equal(one[name], three[name]) for name in one)


@pytest.mark.parametrize("images", [6, 24, 40])
@pytest.mark.parametrize(
    "settings",
    [
        (),
        (
            "optim.name=adamw",
            "optim.schedule=onecycle",
            "data.policy=randaugment",
            "student.arch=timm:test_vit",
        ),
        (
            "optim.name=lion",
            "optim.lr=0.0003",
            "optim.schedule=cosine",
            "optim.warmup=0.2",
            "optim.accumulate=3",
            "data.mixup=0.4",
            "optim.clip_norm=1",
            "optim.ema=0.9",
            "optim.average_with_start=0.5",
            "optim.trunk_scale=0.3",
            "student.freeze_epochs=1",
            "student.freeze_batch_norm=true",
        ),
    ],
)
def test_a_run_stopped_in_mid_epoch_and_resumed_equals_an_uninterrupted_one(
    whole, train, tmp_path, images, settings
):
    uninterrupted, _ = whole(*settings)
    before, after = StopAt(images), Counted()
    with pytest.raises(Stopped) as stopped:
        train("cut", *settings, progress=before)
    assert stopped.value.signal_number == signal.SIGTERM
    train("cut", *settings, resume_run=True, progress=after)
    assert after.done == after.totals == [before.totals[0] - before.done[0]]
    assert numbers(tmp_path / "cut") == numbers(uninterrupted)
    for path in [path for path in uninterrupted.glob("*.pt") if path.name != "best.pt"]:
        one, other = (
            torch.load(p, weights_only=True)["student"] for p in (tmp_path / "cut" / path.name, path)
        )
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("every", "judged_epochs", "headline"),
    [(2, [2, 3], "mean of 2 of the last 3 epochs"), (0, [3], "the last epoch")],
)
def test_a_student_is_judged_every_so_many_epochs_and_after_the_last(
    train, tmp_path, every, judged_epochs, headline
):
    summary = train("seldom", "train.epochs=3", f"eval.every={every}")
    lines = [json.loads(line) for line in (tmp_path / "seldom/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "ood_test_accuracy" in line] == judged_epochs
    assert summary["headline"].startswith(headline)
    assert summary["ood_test_accuracy"] == pytest.approx(
        sum(lines[epoch - 1]["ood_test_accuracy"] for epoch in judged_epochs) / len(judged_epochs)
    )


def test_space_metrics_are_of_a_sample_of_many_images(train):
    summary = train("sampled", "eval.space_images=4")
    assert {metrics["images"] for metrics in summary["space"].values()} == {4}


def test_resuming_with_other_settings_or_another_cache_is_refused(whole, train, photos, cached, tmp_path):
    shutil.copytree(whole()[0], tmp_path / "run")
    with pytest.raises(CacheMismatch, match=r"optim\.lr: 0\.01 -> 0\.5"):
        train("run", "optim.lr=0.5", resume_run=True)
    other = make_cache(tmp_path / "other", photos, captions=True, seed=5)
    with pytest.raises(CacheMismatch, match=f"cache: {cached.fingerprint} -> {other.fingerprint}"):
        run(config(), cache_dir=other.path, data_dir=photos, out=tmp_path / "run", resume_run=True)
    with pytest.raises(UserError, match="is not empty"):
        train()
    with pytest.raises(UserError, match="no run to resume"):
        train("nowhere", resume_run=True)


def test_resuming_a_finished_run_gives_its_summary_again(whole, train, tmp_path):
    finished, first = whole()
    shutil.copytree(finished, tmp_path / "run")
    again = train(resume_run=True)
    assert again["ood_test_accuracy"] == first["ood_test_accuracy"]
    assert len(lines(tmp_path / "run")) == 3


def test_a_loss_that_is_not_finite_stops_before_the_step(train, tmp_path):
    with pytest.raises(UserError, match=r"not finite in epoch 1, step \d+ .*images "):
        train("run", "optim.lr=1e30", "loss.mse_raw=1")


def test_best_is_chosen_on_id_val_alone(train, tmp_path):
    summary = train("run", "data.id_val=0.3")
    history = lines(tmp_path / "run")
    best = torch.load(tmp_path / "run" / "best.pt", weights_only=True)["position"]
    assert best["best_id_val"] == max(line["id_val_accuracy"] for line in history)
    assert summary["images"]["train"] + summary["images"]["id_val"] == 24
    results = evaluate_run(tmp_path / "run", splits=["id_val"], checkpoint="best", device="cpu")
    assert results["id_val"].accuracy == pytest.approx(best["best_id_val"])


def test_the_closed_set_baseline_needs_no_teacher_and_is_judged_within_the_split(train, tmp_path):
    summary = train("run", "train.closed_set=true")
    assert set(lines(tmp_path / "run")[0]) >= {"loss_cls", "loss_total"}
    assert summary["student_parameters"] > 0
    judged = evaluate_run(tmp_path / "run", device="cpu")
    assert set(judged) == {"id_test", "ood_test"}
    assert judged["ood_test"].among_all.classes == 5
    assert both_kinds(judged)["id_ood_auroc"] == pytest.approx(lines(tmp_path / "run")[-1]["id_ood_auroc"])


def test_evaluating_a_run_gives_what_training_wrote(whole):
    out, _ = whole()
    results = evaluate_run(out, device="cpu")
    last = lines(out)[-1]
    for split in ("id_test", "ood_test"):
        assert results[split].accuracy == pytest.approx(last[f"{split}_accuracy"])
        assert results[split].loss == pytest.approx(last[f"{split}_loss"], rel=1e-5)


def test_the_teacher_is_judged_from_the_cache_alone(cached, photos):
    shutil.rmtree(photos)
    results = evaluate_teacher(cached.path)
    rows = cached.split("ood_test")
    text = cached.text_bank("labels").class_texts(rows.class_names)
    e = np.asarray(rows.embeddings, dtype=np.float64)
    logits = (
        (e / np.linalg.norm(e, axis=1, keepdims=True))
        @ (text / np.linalg.norm(text, axis=1, keepdims=True)).T
        / 0.01
    )
    right = logits.argmax(axis=1) == rows.labels
    assert results["ood_test"].accuracy == pytest.approx(
        100 * np.mean([right[rows.labels == c].mean() for c in (0, 1)])
    )
    loss = (np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), rows.labels]).mean()
    assert results["ood_test"].loss == pytest.approx(loss, rel=1e-4)
    assert set(results) == {"train", "id_test", "ood_test"}
    assert results["ood_test"].chance == 50
    in_batches = evaluate_teacher(cached.path, batch_size=2)  # 24 + 9 + 6 rows
    assert {name: r.accuracy for name, r in in_batches.items()} == {n: r.accuracy for n, r in results.items()}


def test_a_class_without_images_counts_neither_as_right_nor_as_wrong():
    logits, labels = torch.eye(3)[[0, 0, 2]], torch.tensor([0, 0, 1])
    judged = evaluate([(logits, labels)], lambda rows: rows, split="ood_test", class_names=("a", "b", "c"))
    assert (judged.accuracy, judged.per_class, judged.images) == (50.0, {"a": 100.0, "b": 0.0}, 3)
    assert judged.chance == 50.0


def test_a_real_training_process_never_imports_open_clip(cached, photos, tmp_path):
    code = (
        "import sys\n"
        "for name in [name for name in sys.modules if name.partition('.')[0] == 'open_clip']:\n"
        "    del sys.modules[name]\n"  # of the process that this one is a fork of
        "import cli\n"
        "try: cli.main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "assert 'distill.train.start' in sys.modules\n"
        "assert not [m for m in sys.modules if m.partition('.')[0] == 'open_clip' or m == 'cache.teacher.load']\n"
    )
    settings = [part for setting in [*SMALL, "train.epochs=1"] for part in ("--set", setting)]
    arguments = [
        "train",
        str(cached.path),
        "--data",
        str(photos),
        "--out",
        str(tmp_path / "run"),
        "--recipe",
        "smoke",
        *settings,
    ]
    done = subprocess.run([*python(), "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_images_are_joined_to_rows_by_key_and_the_rest_is_left_out(photos, cached, write_jpeg):
    write_jpeg(photos / "train" / "apple" / "aaa_first.jpg")
    joined = join_training_rows(IdentityReader(cache=cached, folder=open_data([photos])), RunConfig().data)
    assert joined.left_out == 1
    assert [joined.rows.keys[i] for i in joined.row_of] == [image.key for image in joined.images]


def test_a_cache_of_other_images_or_classes_is_refused(photos, cached, tmp_path, write_jpeg):
    (photos / "train" / "apple").rename(photos / "train" / "apricot")
    with pytest.raises(CacheMismatch, match="apricot"):
        join_training_rows(IdentityReader(cache=cached, folder=open_data([photos])), RunConfig().data)
    (photos / "train" / "apricot").rename(photos / "train" / "apple")
    for file in list((photos / "train").rglob("*.jpg")):
        file.rename(file.with_name(f"other_{file.name}"))
    with pytest.raises(CacheMismatch, match="none of the 24 training images"):
        join_training_rows(IdentityReader(cache=cached, folder=open_data([photos])), RunConfig().data)


def test_an_epochs_batches_are_a_function_of_seed_and_epoch():
    def draw(**changed):
        return epoch_batches(**{"count": 10, "batch_size": 4, "repeats": 3, "seed": 1, "epoch": 2, **changed})

    assert all(np.array_equal(a, b) for a, b in zip(draw(), draw(), strict=True))
    assert not np.array_equal(draw()[0], draw(epoch=3)[0])
    order = np.concatenate(draw())
    assert all(sorted(order[start : start + 10]) == list(range(10)) for start in (0, 10, 20))
    # No image meets its own copy: each pass is cut by itself.
    assert [len(batch) for batch in draw()] == 3 * [4, 4, 2]
    assert all(len(set(batch.tolist())) == len(batch) for batch in draw())
    assert [len(batch) for batch in draw(count=9, repeats=1)] == [4, 4]


@pytest.mark.parametrize("memory", [0, 10**9])
def test_unreadable_test_images_are_left_out_and_named(photos, memory):
    images = open_data([photos]).split("ood_test").all()
    Path(images[1].where).write_text("hello")
    pixels = Pixels(images, SquashedPhoto(16), memory=memory, workers=0, strict=False)
    positions = np.concatenate([indices for indices, _ in pixels.batches([np.arange(3), np.arange(3, 6)])])
    assert positions.tolist() == [0, 2, 3, 4, 5]
    assert list(pixels.unreadable) == [images[1].key]
    with pytest.raises(UserError, match="any more"):
        list(Pixels(images, SquashedPhoto(16), memory=memory, workers=0, strict=True).batches([np.arange(3)]))
