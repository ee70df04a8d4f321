"""Only train is needed: what has no split has no number, no line and no word, and nothing refuses its absence."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from click.testing import CliRunner

from cache import EmbeddingCache
from cache.runtime.errors import UserError
from cache.runtime.progress import Silent
from cli import main
from distill.config import RunConfig
from distill.deploy.export import export_run
from distill.deploy.export_options import ExportOptions
from distill.deploy.info import ModelInfo
from distill.fewshot.run import FewShotOptions, few_shot
from distill.headline import headline_label
from distill.judge.open_run import evaluate_run, space_of_run
from distill.judge.outputs import load_outputs, read_logits
from distill.judge.teachers import evaluate_teacher
from distill.report.compare import compare_runs
from distill.report.page import report
from distill.settings import with_settings
from distill.sweep.plan import PlannedRun
from distill.sweep.run import FINISHED, RunResult, means_of
from distill.train.start import train
from tests.helpers.pools import add_unlabelled, import_pool_cache
from tests.helpers.split_runs import SMALL
from tests.helpers.tar_caches import as_tars

PLANNED = PlannedRun(name="one,seed=0", point="one", settings={}, seed=0, config=RunConfig())


def summary_of(split_runs, name):
    return json.loads((split_runs / name / "run" / "summary.json").read_text())


def printed(*words):
    result = CliRunner().invoke(main, list(map(str, words)))
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    ("name", "judged"),
    [
        ("all", {"id_test", "ood_test"}),
        ("id", {"id_test"}),
        ("train", set()),
        ("ood", {"ood_test"}),
        ("one", {"ood_test"}),
    ],
)
def test_a_run_is_judged_on_the_test_splits_that_there_are(split_runs, name, judged):
    summary = summary_of(split_runs, name)
    assert summary["per_class_accuracy"].keys() == summary["teacher_accuracy"].keys() == judged
    assert {key.partition("test")[0] for key in summary if key.startswith(("id_", "ood_"))} - {
        "id_ood_auroc"
    } == {split.partition("test")[0] for split in judged}
    assert None not in [value for key, value in summary.items() if "ood" in key or "id_test" in key]
    assert load_outputs(split_runs / name / "run" / "outputs.npz").answers.keys() == judged


def test_a_file_of_a_judged_split_that_is_missing_or_cut_short_is_told_before_any_work(split_runs, tmp_path):
    def told_of(work, match):
        with pytest.raises(
            UserError, match=rf"ood_test-00000/image_embedding\.h5 is {match}.*Fix: copy the cache"
        ):
            work()

    place, cache = split_runs / "all", tmp_path / "cache"
    shutil.copytree(place / "cache", cache)
    (file,) = cache.glob("rows/ood_test-*/image_embedding.h5")
    os.truncate(file, file.stat().st_size - 8)
    config, progress = with_settings(RunConfig(), SMALL), Silent()
    told_of(
        lambda: train(config, cache_dir=cache, data_dir=place / "photos", out=tmp_path / "run"),
        r"damaged \(it has [\d,]+ bytes, [\d,]+ were written\)",
    )
    assert not (tmp_path / "run").exists()
    file.unlink()
    begun = []
    progress.start = lambda *told: begun.append(told)
    told_of(lambda: evaluate_teacher(cache, progress=progress), "missing")
    told_of(lambda: space_of_run(place / "run", cache_dir=cache, progress=progress), "missing")
    assert begun == []


def test_id_images_are_judged_every_epoch_where_there_are_no_others(split_runs, tmp_path):
    config = with_settings(RunConfig(), [*SMALL, "train.epochs=6"])
    place = split_runs / "id"
    train(config, cache_dir=place / "cache", data_dir=place / "photos", out=tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert ["id_test_accuracy" in line for line in lines] == [True] * 6


def test_one_class_is_judged_among_all_classes(split_runs):
    summary = summary_of(split_runs, "one")
    assert summary["ood_test_accuracy"] == 100
    (result,) = evaluate_run(split_runs / "one" / "run").values()
    assert (result.accuracy, result.chance) == (100, 100)
    logits = read_logits(split_runs / "one" / "run" / "logits.npz", "ood_test")
    right = logits.logits.argmax(axis=1) == logits.class_names.index("lemon")
    assert result.headline == result.per_class["lemon"] == pytest.approx(100 * right.mean())
    assert result.headline == summary["ood_test_all_accuracy"]
    # The teacher's rows lie near their class's text: it is right, among all as well.
    teacher = evaluate_teacher(split_runs / "one" / "cache", splits=["ood_test"])["ood_test"]
    assert (teacher.among_all.accuracy, teacher.among_all.classes) == (100, 4)


def test_an_accuracy_among_one_class_is_said_to_say_nothing(split_runs, tmp_path):
    run = split_runs / "one" / "run"
    said = "ood_test has one class, among which any answer is right, and 100% says nothing"
    assert said in printed("evaluate", run)
    assert said in printed("evaluate", split_runs / "one" / "cache", "--teacher")
    assert said in printed("export", run, "--out", tmp_path / "model", "--formats", "safetensors")
    assert said in (tmp_path / "model" / "README.md").read_text()
    report(run, tmp_path / "report.html")
    table = (tmp_path / "report.md").read_text()
    assert "OOD has one class" in table
    assert "| OOD (%) |" not in table
    assert "| OOD among all (%) |" in table
    results = [RunResult(run=PLANNED, status=FINISHED, summary=summary_of(split_runs, "one"))]
    assert means_of(results)[0]["ood_test"] == summary_of(split_runs, "one")["ood_test_all_accuracy"]
    assert headline_label([results[0].summary], "ood_test") == "OOD among all"


def test_a_class_that_the_id_test_lacks_competes_with_those_that_it_has(split_runs, tmp_path):
    shutil.copytree(split_runs / "id", tmp_path / "id")
    shutil.rmtree(tmp_path / "id" / "photos" / "val_on_train" / "apple")
    (result,) = evaluate_run(tmp_path / "id" / "run", data_dir=tmp_path / "id" / "photos").values()
    assert result.among_all.classes == 3
    (whole,) = evaluate_run(split_runs / "id" / "run").values()
    assert whole.among_all is None


def test_what_was_set_aside_is_judged_where_there_is_no_test_split(split_runs, tmp_path):
    place, out = split_runs / "train", tmp_path / "run"
    config = with_settings(RunConfig(), [*SMALL, "data.id_val=0.4"])
    train(config, cache_dir=place / "cache", data_dir=place / "photos", out=out)
    assert evaluate_run(out).keys() == {"id_val"}
    report(out, tmp_path / "report.html")
    assert "| ID set aside (%) |" in (tmp_path / "report.md").read_text()


def test_nothing_to_judge_on_is_said_in_one_line(split_runs, tmp_path):
    run = split_runs / "train" / "run"
    with pytest.raises(UserError, match=r"cannot be judged: .* no folder 'val_on_train' and no folder 'val'"):
        evaluate_run(run)
    assert evaluate_run(run, splits=["train"]).keys() == {"train"}
    assert evaluate_teacher(split_runs / "train" / "cache").keys() == {"train"}
    report(run, tmp_path / "report.html")
    assert "Nothing can be judged" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("name", ["id", "train"])
def test_no_page_speaks_of_what_nobody_has(split_runs, tmp_path, name):
    run = split_runs / name / "run"
    export_run(run, tmp_path / "model", ExportOptions(formats=("safetensors",), nearest_images=0))
    report(run, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text().partition('id="map-data"')[0]
    for text in (
        page,
        *(path.read_text() for path in (tmp_path / "report.md", tmp_path / "model" / "README.md")),
    ):
        assert "OOD" not in text
        assert "ood_" not in text
        assert "nan" not in text.lower().split()
    assert ("these are the training images" in (tmp_path / "model" / "README.md").read_text()) == (
        name == "train"
    )
    assert ModelInfo.load(tmp_path / "model").ood_classes == ()


def test_a_report_of_runs_with_and_without_a_split_leaves_cells_empty(split_runs, tmp_path):
    for name in ("all", "id", "train", "one"):
        shutil.copytree(split_runs / name / "run", tmp_path / "runs" / name)
    report(tmp_path / "runs", tmp_path / "report.html")
    text = (tmp_path / "report.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    columns = [cell.strip() for cell in table[0].split("|")]
    rows = {cells[1].strip(): cells for cells in (line.split("|") for line in table[2:6])}
    assert "OOD (%)" in columns
    filled = {name: bool(cells[columns.index("OOD (%)")].strip()) for name, cells in rows.items()}
    assert sorted(filled.values()) == [False, False, False, True]


def test_compare_leaves_the_cells_of_the_side_without_a_split_empty(split_runs):
    results = {
        one.metric: one for one in compare_runs(split_runs / "all" / "run", split_runs / "id" / "run").results
    }
    assert results["id_test_accuracy"].difference is not None
    ood = results["ood_test_accuracy"]
    assert (ood.one.n, ood.other, ood.difference, ood.test) == (1, None, None, None)
    assert "OOD (%)" in printed("compare", split_runs / "id" / "run", split_runs / "all" / "run")


@pytest.mark.parametrize("method", ["finetune", "retrieval"])
def test_few_shot_says_that_it_needs_ood_classes(split_runs, tmp_path, method):
    with pytest.raises(UserError, match=r"few-shot learning teaches OOD classes, and .*photos has none"):
        few_shot(split_runs / "id" / "run", tmp_path, FewShotOptions(shots=(1,), method=method))


def test_few_shot_of_one_class_is_judged_among_all(split_runs, tmp_path):
    run = split_runs / "one" / "run"
    with pytest.raises(UserError, match=r"chooses among the OOD classes, and .* has one alone"):
        few_shot(run, tmp_path / "retrieval", FewShotOptions(shots=(1,), method="retrieval"))
    options = FewShotOptions(shots=(1,), settings=("train.epochs=1",))
    results = few_shot(run, tmp_path / "finetune", options)
    assert results["headline"].endswith("of one class, judged among all classes")
    assert results["table"][0]["ood_query"] in (0.0, 100.0)


def test_nothing_is_judged_on_a_pool(tmp_path):
    cache = import_pool_cache(tmp_path / "cache")
    assert evaluate_teacher(cache.path).keys() == {"train", "id_test"}
    with pytest.raises(UserError, match="the images of the pool have no label"):
        evaluate_teacher(cache.path, splits=["pool"])
    alone = import_pool_cache(tmp_path / "alone", labelled=())
    with pytest.raises(UserError, match="has a pool alone, whose images have no label"):
        evaluate_teacher(alone.path)


def test_a_pool_beside_it_changes_no_number_of_a_run(split_runs, tmp_path):
    place, config = split_runs / "id", with_settings(RunConfig(), SMALL)
    tars = as_tars(EmbeddingCache.open(place / "cache"), place / "photos", tmp_path / "tars")
    train(config, cache_dir=tars, data_dir=None, out=tmp_path / "without")
    add_unlabelled(tars, split_runs / "all" / "photos" / "val")
    train(config, cache_dir=tars, data_dir=None, out=tmp_path / "with")
    before, after = (json.loads((tmp_path / out / "summary.json").read_text()) for out in ("without", "with"))
    same = ("id_test_accuracy", "id_test_loss", "classes", "images", "data", "teacher_metrics")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert evaluate_run(tmp_path / "with").keys() == {"id_test"}
    with pytest.raises(UserError, match="the images of the pool have no label"):
        evaluate_run(tmp_path / "with", splits=["pool"])


def test_rows_without_labels_are_learnt_from_and_not_judged(split_runs, tmp_path):
    place, config = split_runs / "id", with_settings(RunConfig(), [*SMALL, "loss.mse=1", "data.id_val=0.3"])
    tars = as_tars(EmbeddingCache.open(place / "cache"), place / "photos", tmp_path / "tars")
    for split, other in (("train", "val"), ("id_test", "train")):  # of train's none is a test image
        add_unlabelled(tars, split_runs / "all" / "photos" / other, split)
    summary = train(config, cache_dir=tars, data_dir=None, out=tmp_path / "run")
    judged = evaluate_run(tmp_path / "run", splits=["id_test", "train", "id_val"])
    assert (judged["id_test"].images, judged["train"].images) == (6, 6)
    assert judged["id_test"].accuracy == pytest.approx(summary["id_test_accuracy"])
    assert summary["images"]["train"] + summary["images"]["id_val"] >= 6
    assert evaluate_teacher(tars)["train"].images == 6
