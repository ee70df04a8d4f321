"""What a run leaves of its judging: answers, logits, a sample, the teacher's numbers."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import COLOURS
from helpers.report_runs import SMALL
from PIL import Image

import cli
from cache.runtime.errors import UserError
from distill.config import RunConfig
from distill.judge.evaluate import metrics_of
from distill.judge.outputs import (
    Answers,
    RunOutputs,
    confusions,
    load_outputs,
    read_logits,
    save_outputs,
    spread_sample,
)
from distill.judge.teachers import evaluate_teacher
from distill.settings import with_settings
from distill.train.outputs_of_run import pictures_to_keep
from distill.train.start import train as run


def test_a_run_leaves_its_answers_which_are_its_accuracy(photo_runs):
    summary = json.loads((photo_runs / "cls-0" / "summary.json").read_text())
    outputs = load_outputs(photo_runs / "cls-0" / "outputs.npz")
    assert set(outputs.answers) == {"id_test", "ood_test"}
    for split, answers in outputs.answers.items():
        right = answers.labels == answers.predicted
        for label, name in enumerate(answers.class_names):
            of_class = right[answers.labels == label]
            assert 100 * of_class.mean() == pytest.approx(summary["per_class_accuracy"][split][name])
    assert outputs.sample is not None
    assert len(outputs.sample.keys) == 9 + 9
    np.testing.assert_allclose(np.linalg.norm(outputs.sample.teacher.astype(float), axis=1), 1, atol=1e-2)
    assert outputs.pictures.keys() == set(pictures_to_keep(outputs.answers["ood_test"]))
    for key, picture in outputs.pictures.items():
        shown = np.array(Image.open(io.BytesIO(picture)), dtype=float).mean(axis=(0, 1))
        np.testing.assert_allclose(shown, COLOURS.get(key.split("/")[0], COLOURS["plum"]), atol=20)
    same = load_outputs(photo_runs / "mse-1" / "outputs.npz").sample
    assert same.keys == outputs.sample.keys


@pytest.mark.parametrize("pictures", [{}, {"a/1.jpg": b"one"}, {"a/1.jpg": b"one", "b/2.jpg": b"another"}])
def test_outputs_are_read_as_they_were_written_also_of_a_student_that_confuses_nothing(tmp_path, pictures):
    zeros = np.zeros(2, dtype=np.int32)
    answers = Answers(keys=("a/1.jpg", "a/2.jpg"), labels=zeros, predicted=zeros, class_names=("a", "b"))
    save_outputs(tmp_path / "outputs.npz", RunOutputs(answers={"ood_test": answers}, pictures=pictures))
    outputs = load_outputs(tmp_path / "outputs.npz")
    assert outputs.pictures == pictures
    assert outputs.answers["ood_test"].keys == answers.keys


def test_the_logits_that_a_run_keeps_give_its_last_epochs_numbers(photo_runs, tmp_path):
    path = photo_runs / "cls-0" / "logits.npz"
    last = json.loads((photo_runs / "cls-0" / "metrics.jsonl").read_text().splitlines()[-1])
    kept = {split: read_logits(path, split) for split in ("id_test", "ood_test")}
    among_all, best = {}, {}
    for split, one in kept.items():
        names = np.array(one.class_names)
        assert [key.rpartition("/")[0] for key in one.keys] == list(one.classes)
        assert one.images == len(one.keys) == 9
        own = sorted(set(one.classes))
        logits = one.logits.astype(np.float64)
        for ending, columns in (("", np.isin(names, own)), ("all_", np.ones(len(names), dtype=bool))):
            predicted = names[columns][logits[:, columns].argmax(axis=1)]
            right = [np.mean(predicted[np.array(one.classes) == name] == name) for name in own]
            assert last[f"{split}_{ending}accuracy"] == pytest.approx(100 * np.mean(right))
            among_all[split] = last[f"{split}_all_accuracy"]
        assert list(names[: one.id_classes]) == ["apple", "banana", "cherry"]
        best[split] = logits[:, : one.id_classes].max(axis=1)
    low, high = among_all.values()
    assert last["all_harmonic_mean"] == pytest.approx(2 * low * high / ((low + high) or 1))
    pairs = [np.sign(a - b) / 2 + 0.5 for a in best["id_test"] for b in best["ood_test"]]
    assert last["id_ood_auroc"] == pytest.approx(np.mean(pairs), abs=1e-6)
    summary = json.loads((photo_runs / "cls-0" / "summary.json").read_text())
    lines = [json.loads(line) for line in (photo_runs / "cls-0" / "metrics.jsonl").read_text().splitlines()]
    for name in ("id_test_all_accuracy", "ood_test_all_ece", "all_harmonic_mean", "id_ood_auroc"):
        assert summary[name] == pytest.approx(np.mean([line[name] for line in lines]))
    with pytest.raises(UserError, match=r"no logits of 'ood_tset'.*did you mean 'ood_test'"):
        read_logits(path, "ood_tset")
    odd = tmp_path / "logits.npz"
    with np.load(path) as file:
        np.savez(
            odd, **{name: file[name][1:] if name == "id_test/keys" else file[name] for name in file.files}
        )
    with pytest.raises(UserError, match=r"logits\.npz cannot be read \(logits of id_test are \(9, 6\)\)"):
        read_logits(odd, "id_test")


def test_of_more_logits_than_may_be_kept_a_sample_spread_over_the_classes_is(
    photo_runs, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "distill.train.outputs_of_run.LOGITS_BYTES", 4 * 6 * 2 * 3
    )  # 6 classes, 2 splits, 3 images each
    config = with_settings(RunConfig(), [*SMALL, "train.epochs=1"])
    run(
        config,
        cache_dir=photo_runs.parent / "cache",
        data_dir=photo_runs.parent / "photos",
        out=tmp_path / "run",
    )
    kept = read_logits(tmp_path / "run" / "logits.npz", "id_test")
    assert (kept.images, kept.logits.shape, sorted(kept.classes)) == (
        9,
        (3, 6),
        ["apple", "banana", "cherry"],
    )


def test_the_summary_has_the_teachers_numbers_from_the_cache(photo_runs):
    summary = json.loads((photo_runs / "cls-0" / "summary.json").read_text())
    judged = evaluate_teacher(photo_runs.parent / "cache", splits=("id_test", "ood_test"))
    for split, result in judged.items():
        assert summary["teacher_accuracy"][split] == pytest.approx(result.accuracy)
        assert summary["teacher_images"][split] == result.images
    assert summary["teacher_metrics"] == pytest.approx(metrics_of(judged))
    assert {"id_test_all_accuracy", "all_harmonic_mean", "id_ood_auroc"} <= summary["teacher_metrics"].keys()
    printed = CliRunner().invoke(
        cli.main, ["evaluate", str(photo_runs.parent / "cache"), "--teacher", "--json"]
    )
    assert json.loads(printed.stdout)["id_ood_auroc"] == pytest.approx(
        summary["teacher_metrics"]["id_ood_auroc"]
    )


def test_confusions_of_several_runs_are_added_up():
    one = Answers(
        keys=("a/1", "a/2", "b/1"),
        labels=np.array([0, 0, 1]),
        predicted=np.array([1, 1, 1]),
        class_names=("a", "b"),
    )
    other = replace(one, predicted=np.array([0, 1, 0]))
    first, second = confusions([one, other], most=5)
    assert (first.true, first.predicted, first.count, first.images) == ("a", "b", 3, 4)
    assert first.keys == ("a/2", "a/1")
    assert (second.true, second.count, second.images) == ("b", 1, 2)


def test_a_sample_is_spread_over_classes_and_does_not_depend_on_the_order():
    keys = [f"a/{i}" for i in range(10)] + [f"b/{i}" for i in range(2)]
    chosen = [keys[i] for i in spread_sample(keys, [key[0] for key in keys], most=6)]
    assert sum(key.startswith("b") for key in chosen) == 2
    back = keys[::-1]
    assert chosen == [back[i] for i in spread_sample(back, [key[0] for key in back], most=6)]
