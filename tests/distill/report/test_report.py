"""Reports and comparisons of small real runs; the page in a real browser where there is one."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import COLOURS, make_cache, make_photos, write_image
from PIL import Image

import cli
from cache.runtime.errors import UserError
from distill.config import RunConfig
from distill.judge.evaluate import evaluate_teacher, metrics_of
from distill.judge.outputs import (
    Answers,
    EmbeddingSample,
    RunOutputs,
    confusions,
    load_outputs,
    read_logits,
    save_outputs,
    spread_sample,
)
from distill.report.collect import OBJECTS, Run, collect, read_run
from distill.report.compare import compare_runs
from distill.report.curves import scatter_charts
from distill.report.groups import Group, groups_of
from distill.report.page import report
from distill.report.pictures import Confused, confused_groups, principal_axes, space_map
from distill.report.tables import as_csv, cost_table, main_table, per_class_tables, space_tables
from distill.report.tasks import parts_of
from distill.settings import load_recipe, to_toml, with_settings
from distill.train.outputs_of_run import pictures_to_keep
from distill.train.start import train as run

SMALL = [
    "student.arch=timm:test_resnet", "student.image_size=32", "train.epochs=2", "train.batch_size=6", "train.device=cpu",
    "optim.lr=0.01", "data.workers=0",
]  # fmt: skip
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two settings with two seeds each, a data set with a hostile class name."""
    root = tmp_path_factory.mktemp("report")
    photos = make_photos(root / "photos")
    # A folder cannot hold a slash; "</script>" is tried as a question below.
    for i in range(3):
        write_image(photos / "val" / HOSTILE / f"x_{i}.jpg", COLOURS["plum"], np.random.default_rng(i))
    cached = make_cache(root / "cache", photos)
    for name, settings in {"cls": [], "mse": ["loss.mse=1"]}.items():
        for seed in (0, 1):
            config = with_settings(RunConfig(), [*SMALL, *settings, f"train.seed={seed}"])
            run(
                config,
                cache_dir=cached.path,
                data_dir=photos,
                out=root / "runs" / f"{name}-{seed}",
                command=["distill", "train", HOSTILE],
            )
    (root / "runs" / "sweep.json").write_text(json.dumps({"question": "</script><script>alert(2)</script>?"}))
    return root / "runs"


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    """The report of ``runs``, alone in a folder: everything else is moved away while it is made."""
    out = tmp_path_factory.mktemp("page") / "report.html"
    photos, cached = (runs.parent / name for name in ("photos", "cache"))
    for folder in (photos, cached):
        folder.rename(folder.with_name(f"{folder.name}-away"))
    try:
        report(runs, out)
    finally:
        for folder in (photos, cached):
            folder.with_name(f"{folder.name}-away").rename(folder)
    return out


def copied(runs, tmp_path):
    return shutil.copytree(runs, tmp_path / "runs")


def test_memory_is_in_1e9_bytes_and_losses_are_means_of_the_last_five_epochs(runs, tmp_path):
    place = copied(runs, tmp_path)
    for name, host in (("cls-0", 3_000_000_000), ("mse-0", 4_500_000_000)):
        path = place / name / "summary.json"
        summary = json.loads(path.read_text())
        summary["peak_memory_bytes"] = {"host": host, "device": host + 1_250_000_000}
        path.write_text(json.dumps({**summary, "student_parameters": 2_340_000}))
        lines = [json.dumps({"epoch": i, "loss_total": i + host / 1e9}) for i in range(7)]
        (place / name / "metrics.jsonl").write_text("\n".join(lines))
    found = {one.metric: one for one in compare_runs(place / "cls-0", place / "mse-0").results}
    memory, loss = found["peak_memory_GB"], found["loss_total"]
    assert (memory.one.mean, memory.other.mean, memory.difference) == (3.0, 4.5, 1.5)
    assert (loss.one.mean, loss.other.mean, loss.difference) == (7.0, 8.5, 1.5)  # of the epochs 2 to 6
    assert not [name for name in found if name.endswith("/images")]  # a count of images is no result
    (part,) = parts_of([run for run in collect(place).finished if run.name in ("cls-0", "mse-0")])
    cost = cost_table(part)
    heads = ["peak memory, host (GB)", "peak memory, device (GB)", "parameters (million)"]
    at = [cost.columns.index(head) - 1 for head in heads]
    assert [[row.cells[i].text for i in at] for row in cost.rows] == [
        ["3.00", "4.25", "2.34"],
        ["4.50", "5.75", "2.34"],
    ]


def test_space_and_class_tables_have_each_groups_own_numbers(runs):
    (part,) = parts_of(collect(runs).finished)
    groups = part.groups
    kept = [[run.summary for run in group.runs] for group in groups]
    for table, split in zip(space_tables(part), kept[0][0]["space"], strict=True):
        for row, summaries in zip(table.rows, kept, strict=True):
            for head, cell in zip(table.columns[1:], row.cells, strict=True):
                name, arrow = head.split()
                assert arrow == ("↓" if name == "vlalign" else "↑")  # a divergence: nearer is less
                values = [summary["space"][split][name] for summary in summaries]
                assert cell.value == pytest.approx(np.mean(values))
    first = groups[0].runs[0]
    answers = first.outputs.answers["ood_test"]
    shifted = replace(answers, labels=np.array([0, 0, 0, 0, 1, 2, 2, 2, 2]))
    changed = replace(first, outputs=replace(first.outputs, answers={"ood_test": shifted}))
    table = per_class_tables(replace(part, groups=(replace(groups[0], runs=(changed,)),)))[0]
    images = {row.head: row.cells[0].text for row in table.rows}
    assert images == dict(zip(answers.class_names, ("4", "1", "4"), strict=True))


def test_a_run_leaves_its_answers_which_are_its_accuracy(runs):
    summary = json.loads((runs / "cls-0" / "summary.json").read_text())
    outputs = load_outputs(runs / "cls-0" / "outputs.npz")
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
    same = load_outputs(runs / "mse-1" / "outputs.npz").sample
    assert same.keys == outputs.sample.keys


@pytest.mark.parametrize("pictures", [{}, {"a/1.jpg": b"one"}, {"a/1.jpg": b"one", "b/2.jpg": b"another"}])
def test_outputs_are_read_as_they_were_written_also_of_a_student_that_confuses_nothing(tmp_path, pictures):
    zeros = np.zeros(2, dtype=np.int32)
    answers = Answers(keys=("a/1.jpg", "a/2.jpg"), labels=zeros, predicted=zeros, class_names=("a", "b"))
    save_outputs(tmp_path / "outputs.npz", RunOutputs(answers={"ood_test": answers}, pictures=pictures))
    found = load_outputs(tmp_path / "outputs.npz")
    assert found.pictures == pictures
    assert found.answers["ood_test"].keys == answers.keys


def test_the_logits_that_a_run_keeps_give_its_last_epochs_numbers(runs, tmp_path):
    path = runs / "cls-0" / "logits.npz"
    last = json.loads((runs / "cls-0" / "metrics.jsonl").read_text().splitlines()[-1])
    kept = {split: read_logits(path, split) for split in ("id_test", "ood_test")}
    among_all, best = {}, {}
    for split, one in kept.items():
        names = np.array(one.class_names)
        assert [key.rpartition("/")[0] for key in one.keys] == list(one.classes)
        assert one.images == len(one.keys) == 9
        own = sorted(set(one.classes))
        logits = one.logits.astype(np.float64)
        for ending, columns in (("", np.isin(names, own)), ("all_", np.ones(len(names), dtype=bool))):
            said = names[columns][logits[:, columns].argmax(axis=1)]
            right = [np.mean(said[np.array(one.classes) == name] == name) for name in own]
            assert last[f"{split}_{ending}accuracy"] == pytest.approx(100 * np.mean(right))
            among_all[split] = last[f"{split}_all_accuracy"]
        assert list(names[: one.id_classes]) == ["apple", "banana", "cherry"]
        best[split] = logits[:, : one.id_classes].max(axis=1)
    low, high = among_all.values()
    assert last["all_harmonic_mean"] == pytest.approx(2 * low * high / ((low + high) or 1))
    pairs = [np.sign(a - b) / 2 + 0.5 for a in best["id_test"] for b in best["ood_test"]]
    assert last["id_ood_auroc"] == pytest.approx(np.mean(pairs), abs=1e-6)
    summary = json.loads((runs / "cls-0" / "summary.json").read_text())
    lines = [json.loads(line) for line in (runs / "cls-0" / "metrics.jsonl").read_text().splitlines()]
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


def test_of_more_logits_than_may_be_kept_a_sample_spread_over_the_classes_is(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "distill.train.outputs_of_run.LOGITS_BYTES", 4 * 6 * 2 * 3
    )  # 6 classes, 2 splits, 3 images each
    config = with_settings(RunConfig(), [*SMALL, "train.epochs=1"])
    run(config, cache_dir=runs.parent / "cache", data_dir=runs.parent / "photos", out=tmp_path / "run")
    kept = read_logits(tmp_path / "run" / "logits.npz", "id_test")
    assert (kept.images, kept.logits.shape, sorted(kept.classes)) == (
        9,
        (3, 6),
        ["apple", "banana", "cherry"],
    )


def test_the_summary_has_the_teachers_numbers_from_the_cache(runs):
    summary = json.loads((runs / "cls-0" / "summary.json").read_text())
    judged = evaluate_teacher(runs.parent / "cache", splits=("id_test", "ood_test"))
    for split, result in judged.items():
        assert summary["teacher_accuracy"][split] == pytest.approx(result.accuracy)
        assert summary["teacher_images"][split] == result.images
    assert summary["teacher_metrics"] == pytest.approx(metrics_of(judged))
    assert {"id_test_all_accuracy", "all_harmonic_mean", "id_ood_auroc"} <= summary["teacher_metrics"].keys()
    printed = CliRunner().invoke(cli.main, ["evaluate", str(runs.parent / "cache"), "--teacher", "--json"])
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


def answers_of(images):
    """Answers of an OOD split from (key, the class it was taken for); the class is in the key."""
    names = tuple(sorted({n for key, taken in images for n in (key.split("/")[0], taken)}))
    return Answers(
        keys=tuple(key for key, _ in images),
        labels=np.array([names.index(key.split("/")[0]) for key, _ in images], dtype=np.int32),
        predicted=np.array([names.index(taken) for _, taken in images], dtype=np.int32),
        class_names=names,
    )


def by_hash(keys):
    return sorted(keys, key=lambda key: hashlib.sha256(key.encode()).hexdigest())


CONFUSED = [
    *((f"fox/{i}.jpg", "wolf") for i in range(8)),
    *((f"owl/{i}.jpg", "crow") for i in range(5)),
    *((f"owl/r{i}.jpg", "owl") for i in range(2)),
    *((f"wolf/{i}.jpg", "wolf") for i in range(6)),
    *((f"crow/{i}.jpg", "crow") for i in range(6)),
    *((f"newt/{i}.jpg", "newt") for i in range(3)),
]


def test_the_pictures_kept_are_the_first_of_each_confused_pair_and_one_of_what_it_was_taken_for():
    kept = pictures_to_keep(answers_of(CONFUSED))
    fox, owl = (
        by_hash([k for k, taken in CONFUSED if taken == name and k.split("/")[0] != name])
        for name in ("wolf", "crow")
    )
    like = [by_hash([key for key, _ in CONFUSED if key.startswith(name)])[0] for name in ("wolf/", "crow/")]
    assert kept[:6] == [*fox[:3], *owl[:3]]
    assert sorted(kept[6:]) == sorted(like)


def run_of(name, seed, *, outputs):
    return Run(
        name=name,
        path=Path(name),
        settings={"train.seed": seed},
        config="",
        history=(),
        summary={"id_test_accuracy": 1.0},
        outputs=outputs,
    )


def group_of(*runs):
    return Group(number=0, label="all", values={}, runs=runs)


def test_the_page_shows_images_of_the_first_class_before_one_of_the_class_they_were_taken_for():
    answers = answers_of(CONFUSED)
    pictures = {key: key.encode() for key in pictures_to_keep(answers)}
    found = confused_groups(
        [group_of(run_of("a", 0, outputs=RunOutputs(answers={"ood_test": answers}, pictures=pictures)))]
    )
    (first, second) = found.groups[0].pairs
    for pair, true, taken, count in ((first, "fox", "wolf", 8), (second, "owl", "crow", 5)):
        assert (pair.confusion.true, pair.confusion.predicted, pair.confusion.count) == (true, taken, count)
        wrong = by_hash([k for k, t in CONFUSED if t == taken and k.startswith(f"{true}/")])
        assert [key for _, key in pair.wrong] == wrong[:3]
        assert pair.like is not None
        assert pair.like[1].startswith(f"{taken}/")
        for number, key in (*pair.wrong, pair.like):
            assert base64.b64decode(found.pictures[number].partition(",")[2]).decode() == key


def test_the_map_has_the_teachers_first_axis_across_and_the_student_on_the_same_axes():
    rng = np.random.default_rng(0)
    teacher = rng.normal(size=(40, 6)) * [0.1, 9, 0.1, 3, 0.1, 0.1]
    student = rng.normal(size=(40, 6)) * [0.1, 1, 0.1, 6, 0.1, 0.1]
    sample = EmbeddingSample(
        keys=tuple(map(str, range(40))),
        splits=("id_test",) * 10 + ("ood_test",) * 30,
        classes=("a",) * 10 + ("b",) * 30,
        student=student.astype(np.float16),
        teacher=teacher.astype(np.float16),
    )
    group = group_of(run_of("run", 0, outputs=RunOutputs(answers={}, sample=sample)))
    found = space_map([group], Confused(groups=(), pictures=()))
    assert (found["ood"], found["label"]) == ([0] * 10 + [1] * 30, [0] * 10 + [1] * 30)
    teacher, student = sample.teacher.astype(float), sample.student.astype(float)
    variances, axes = np.linalg.eigh(np.cov(teacher.T))
    assert found["share"] == pytest.approx(100 * variances[[-1, -2]] / variances.sum(), abs=0.1)
    expected = [(rows - teacher.mean(axis=0)) @ axes[:, [-1, -2]] for rows in (teacher, student)]
    shown = [np.array(found["teacher"]), np.array(found["students"][0]["places"])]
    scale = 1000 / max(np.abs(places).max() for places in expected)
    signs = np.sign([shown[0][:, axis] @ expected[0][:, axis] for axis in (0, 1)])
    for places, wanted in zip(shown, expected, strict=True):
        np.testing.assert_allclose(places, scale * wanted * signs, atol=0.51)  # whole numbers


def test_a_sample_is_spread_over_classes_and_does_not_depend_on_the_order():
    keys = [f"a/{i}" for i in range(10)] + [f"b/{i}" for i in range(2)]
    chosen = [keys[i] for i in spread_sample(keys, [key[0] for key in keys], most=6)]
    assert sum(key.startswith("b") for key in chosen) == 2
    back = keys[::-1]
    assert chosen == [back[i] for i in spread_sample(back, [key[0] for key in back], most=6)]


def told(folder, **numbers):
    """Give a run's summary other numbers."""
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, **numbers}))


def test_the_main_table_has_means_of_the_seeds_and_gaps_to_the_teacher(runs, tmp_path):
    folder, page = copied(runs, tmp_path), tmp_path / "report.html"
    # The two deviations of these differ, with n - 1 and with n: 4.243 and 3, 7.071 and 5, 0.028 and 0.02.
    for name, seed, own, every, auroc in (
        ("cls", 0, 40.0, 21.0, 0.55), ("cls", 1, 46.0, 23.0, 0.57),
        ("mse", 0, 50.0, 31.0, 0.61), ("mse", 1, 60.0, 31.5, 0.65),
    ):  # fmt: skip
        numbers = {"ood_test_accuracy": own, "ood_test_all_accuracy": every, "id_ood_auroc": auroc}
        told(folder / f"{name}-{seed}", **numbers)
    report(folder, page)
    lines = list(csv.DictReader(page.with_suffix(".csv").read_text().splitlines()))
    assert [line["run"] for line in lines] == ["cls-0", "cls-1", "mse-0", "mse-1"]
    assert [line["loss.mse"] for line in lines] == ["0", "0", "1", "1"]
    _, groups = groups_of(collect(folder).finished)
    assert [group.label for group in groups] == ["cls", "cls + mse"]
    for group, of_group in zip(groups, (lines[:2], lines[2:]), strict=True):
        own = [float(line["ood_test_accuracy"]) for line in of_group]
        teacher = float(of_group[0]["teacher_ood_test_accuracy"])
        assert group.spread("ood_test_accuracy").mean == pytest.approx(np.mean(own))
        assert group.spread("ood_test_accuracy").std == pytest.approx(np.std(own, ddof=1))
        assert group.gap("ood_test_accuracy").mean == pytest.approx(teacher - np.mean(own))
        assert group.gap("ood_test_accuracy").std == pytest.approx(np.std(own, ddof=1))
    results, quality = tables_of(page.with_suffix(".md").read_text())
    assert results["cls"]["OOD (%)"] == "43.0 ± 4.2"
    assert results["cls"]["OOD among all (%)"] == "22.0 ± 1.4"
    assert results["cls + mse"]["n"] == "2"
    assert results["cls + mse"]["OOD (%)"] == "55.0 ± 7.1"
    assert quality["cls + mse"]["AUROC, ID against OOD"] == "0.630 ± 0.028"
    shown = Words(page.read_text()).text
    assert "43.0 ± 4.2" in shown
    assert "0.630 ± 0.028" in shown
    summary = json.loads((folder / "cls-0" / "summary.json").read_text())
    for metric, head in (
        ("id_test_all_accuracy", "ID among all (%)"),
        ("all_harmonic_mean", "harmonic mean among all (%)"),
    ):
        assert results["teacher"][head] == f"{summary['teacher_metrics'][metric]:.1f}"
        assert float(lines[0][f"teacher_{metric}"]) == summary["teacher_metrics"][metric]
        assert float(lines[0][metric]) == summary[metric]


def tables_of(markdown):
    """Every table of a Markdown text: {first cell: {heading: cell}}."""
    found = []
    for part in markdown.split("\n\n"):
        rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("|")]
        if rows:
            found.append({row[0].strip(): dict(zip(rows[0], row, strict=False)) for row in rows[2:]})
    return found


class Words(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def test_texts_of_runs_are_shown_as_text(page):
    found = Words(page.read_text())
    assert "img" not in found.tags
    assert found.tags.count("script") == 2  # the data and our own
    assert HOSTILE in found.text
    assert "</script><script>alert(2)</script>?" in found.text


def test_the_page_needs_nothing_but_itself_and_is_the_same_every_time(runs, page, tmp_path):
    text = page.read_text()
    assert "default-src 'none'" in text
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", text)
    report(runs, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == text


def test_unfinished_damaged_and_old_runs_are_named_and_the_rest_is_reported(runs, tmp_path):
    folder = copied(runs, tmp_path)
    (folder / "cls-1" / "summary.json").unlink()
    (folder / "mse-0" / "config.toml").write_text("not [ toml")
    (folder / "mse-1" / "outputs.npz").write_bytes(b"PK damaged")
    (folder / "cls-0" / "outputs.npz").unlink()
    found = collect(folder)
    assert [r.name for r in found.finished] == ["cls-0", "mse-1"]
    assert [r.name for r in found.unfinished] == ["cls-1"]
    assert [name for name, _ in found.unreadable] == ["mse-0"]
    report(folder, tmp_path / "report.html")
    said = " ".join(Words((tmp_path / "report.html").read_text()).text.split())
    assert "cls-1 is unfinished: 2 of 2 epochs" in said
    assert "mse-0 was skipped" in said
    assert "cls-0: no outputs.npz. Run its 'distill train' command again with --resume" in said
    assert "outputs.npz cannot be read" in said


@pytest.fixture(scope="module")
def episode_runs(tmp_path_factory, episodes, episode_cache):
    """Two settings of a student of episodes, with two seeds each."""
    root = tmp_path_factory.mktemp("episode_report")
    for name, settings in {"mse": [], "clsonly": ["loss.mse=0", "loss.im_cst=0"]}.items():
        for seed in (0, 1):
            more = [*SMALL, "train.epochs=2", f"train.seed={seed}", *settings]
            config, out = with_settings(load_recipe("robotics_demo"), more), root / f"{name}-{seed}"
            run(config, cache_dir=episode_cache, data_dir=episodes, out=out)
    return root


def test_runs_of_episodes_have_their_metrics_the_teacher_and_every_object(episode_runs, tmp_path):
    report(episode_runs, tmp_path / "report.html")
    first, second = (json.loads((episode_runs / f"mse-{i}" / "summary.json").read_text()) for i in (0, 1))
    results, decisions = tables_of((tmp_path / "report.md").read_text())
    student = next(head for head in results if head not in ("setting", "teacher") and "mse" in head)
    for metric, heading, table in (
        ("id_test_average_precision", "ID episodes (%)", results),
        ("ood_test_ood_objects_average_precision", "OOD episodes, OOD objects (%)", results),
        ("ood_test_recall", "OOD episodes: recall (%)", decisions),
    ):
        mean, std = (over([first[metric], second[metric]]) for over in (np.mean, lambda v: np.std(v, ddof=1)))
        assert table[student][heading] == f"{mean:.1f} ± {std:.1f}"
        assert table["teacher"][heading] == f"{first['teacher_metrics'][metric]:.1f}"
    (part,) = parts_of(collect(episode_runs).finished)
    ood = per_class_tables(part)[0]
    assert ood.columns[:2] == ("object", "teacher (%)")
    for row in ood.rows:
        values = [one[OBJECTS]["ood_test"][row.head] for one in (first, second)]
        assert row.cells[0].value == pytest.approx(
            first[f"teacher_{OBJECTS}"]["ood_test"][row.head], abs=1e-5
        )
        assert row.cells[ood.columns.index(f"{student} (%)") - 1].value == pytest.approx(np.mean(values))
    text = Words((tmp_path / "report.html").read_text()).text
    assert "Average precision of every object" in text
    assert "No map" in text
    assert "Most confused" not in text
    lines = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
    assert float(lines[0]["teacher_ood_test_average_precision"]) == pytest.approx(
        first["teacher_metrics"]["ood_test_average_precision"]
    )


def test_a_setting_of_episodes_that_a_config_leaves_out_has_its_default(tmp_path):
    for name, settings in {"plain": [], "local": ["robotics.local=true"]}.items():
        (tmp_path / name).mkdir()
        config = with_settings(load_recipe("robotics_demo"), settings)
        (tmp_path / name / "config.toml").write_text(to_toml(config))
    settings, groups = groups_of([read_run(tmp_path / name, name) for name in ("plain", "local")])
    assert tuple(settings) == ("robotics.local",)
    assert [group.values["robotics.local"] for group in groups] == [False, True]


def test_photos_and_episodes_in_one_folder_have_tables_of_their_own(runs, episode_runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs" / "photos")
    shutil.copytree(episode_runs, tmp_path / "runs" / "episodes")
    report(tmp_path / "runs", tmp_path / "report.html")
    tables = tables_of((tmp_path / "report.md").read_text())
    assert ["OOD among all (%)" in table["teacher"] for table in tables] == [True, False, False, False]
    assert ["OOD episodes, OOD objects (%)" in table["teacher"] for table in tables] == [
        False,
        False,
        True,
        False,
    ]
    page = (tmp_path / "report.html").read_text()
    names = re.findall(r' id="([^"]+)"', page)
    assert len(names) == len(set(names))
    assert {"results", "results-episodes", "photos-scatter", "episodes-scatter"} <= set(names)
    assert "is not data A" not in page
    lines = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
    assert [bool(line["ood_test_average_precision"]) for line in lines] == [False] * 4 + [True] * 4


def test_compare_takes_runs_of_episodes_and_refuses_photos_beside_them(runs, episode_runs):
    compared = compare_runs(episode_runs / "mse-0", episode_runs / "clsonly-0")
    assert compared.settings == ("loss.mse: 1.0 -> 0.0", "loss.im_cst: 1.0 -> 0.0")
    metrics = [result.metric for result in compared.results]
    assert {"ood_test_ood_objects_average_precision", "id_test_recall"} <= set(metrics)
    with pytest.raises(UserError, match="is of episodes"):
        compare_runs(episode_runs / "mse-0", runs / "cls-0")


def test_a_second_run_of_a_seed_does_not_count_again(runs, tmp_path):
    folder = copied(runs, tmp_path)
    shutil.copytree(folder / "cls-0", folder / "cls-copy")
    _, groups = groups_of(collect(folder).finished)
    assert [len(group.runs) for group in groups] == [2, 2]
    assert [r.name for r in groups[0].repeated] == ["cls-copy"]


def test_a_folder_without_a_run_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        collect(tmp_path)
    result = CliRunner().invoke(cli.main, ["report", str(tmp_path), "--out", str(tmp_path / "r.html")])
    assert result.exit_code == 1


def test_a_teachers_map_is_its_first_two_principal_components():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 5)) * [5, 3, 0.1, 0.1, 0.1]
    mean, axes, share = principal_axes(rows)
    np.testing.assert_allclose(np.abs(axes), np.eye(5)[:, :2], atol=0.05)
    assert ((rows - mean) @ axes).var(axis=0).sum() / rows.var(axis=0).sum() == pytest.approx(share.sum())


def test_compare_pairs_common_seeds_and_says_what_differs(runs, tmp_path):
    for name in ("cls", "mse"):
        for seed in (0, 1):
            shutil.copytree(runs / f"{name}-{seed}", tmp_path / name / str(seed))
    found = compare_runs(tmp_path / "cls", tmp_path / "mse")
    assert found.settings == ("loss.mse: 0.0 -> 1.0",)
    result = next(r for r in found.results if r.metric == "ood_test_loss")
    assert result.test.design == "paired"
    assert result.test.n == (2,)
    single = compare_runs(tmp_path / "cls" / "0", tmp_path / "mse" / "1")
    assert all(r.test is None for r in single.results)
    with pytest.raises(UserError, match=r"more than the seed \(loss\.mse\)"):
        compare_runs(runs, runs / "cls-0")
    said = CliRunner().invoke(cli.main, ["compare", str(tmp_path / "cls"), str(tmp_path / "mse"), "--json"])
    assert json.loads(said.stdout)["settings"] == ["loss.mse: 0.0 -> 1.0"]


def swept(runs, tmp_path):
    """The runs as a sweep leaves them: in its own order, and called as it calls them."""
    out = tmp_path / "swept"
    planned = [(point, seed) for point in ("mse-10", "cls-2") for seed in (0, 1)]
    for point, seed in planned:
        shutil.copytree(runs / f"{point[:3]}-{seed}", out / f"{point},seed={seed}")
    told = [{"name": f"{point},seed={seed}", "point": point} for point, seed in planned]
    (out / "sweep.json").write_text(json.dumps({"question": "Which?", "runs": told}))
    return out


def test_a_sweep_keeps_its_order_and_its_names(runs, tmp_path):
    found = collect(swept(runs, tmp_path))
    assert [r.name for r in found.finished][::2] == ["mse-10,seed=0", "cls-2,seed=0"]
    assert [group.label for group in groups_of(found.finished)[1]] == ["mse-10", "cls-2"]
    (tmp_path / "swept" / "sweep.json").unlink()
    for name in ("cls-2", "mse-10"):
        (tmp_path / "swept" / f"{name},seed=0").rename(tmp_path / "swept" / f"k={name[4:]}")
    collected = collect(tmp_path / "swept").finished
    assert [r.name for r in collected if "seed" not in r.name] == ["k=2", "k=10"]


def test_compare_takes_a_setting_of_a_sweep_with_all_its_seeds(runs, tmp_path):
    out = swept(runs, tmp_path)
    said = CliRunner().invoke(cli.main, ["compare", str(out / "cls-2"), str(out / "mse-10"), "--json"])
    found = json.loads(said.stdout)
    assert found["how"] == "paired t-test over the seeds 0, 1"
    assert found["settings"] == ["loss.mse: 0.0 -> 1.0"]
    assert not any("best_epoch" in result["metric"] for result in found["results"])
    with pytest.raises(UserError, match=r"did you mean 'cls-2'\?.*mse-10, cls-2"):
        compare_runs(out / "cls2", out / "mse-10")
    with pytest.raises(UserError, match=r"all seeds of one setting .*swept/mse-10"):
        compare_runs(out, out / "mse-10")


def test_every_teacher_has_its_own_row_column_and_star(runs, tmp_path):
    folder = copied(runs, tmp_path)
    for seed in (0, 1):
        run_folder = folder / f"mse-{seed}"
        config = (run_folder / "config.toml").read_text()
        (run_folder / "config.toml").write_text(config.replace('text = "labels"', 'text = "descriptions"'))
        summary = json.loads((run_folder / "summary.json").read_text())
        summary["teacher_metrics"] |= {"id_test_accuracy": 11.0, "ood_test_accuracy": 22.0}
        summary["teacher_per_class_accuracy"]["ood_test"]["lemon"] = 7.0
        (run_folder / "summary.json").write_text(json.dumps(summary))
    (part,) = parts_of(collect(folder).finished)
    table = main_table(part)
    teachers = {row.head: [c.text for c in row.cells[1:3]] for row in table.rows if row.style is None}
    assert teachers.keys() == {"teacher, text=labels", "teacher, text=descriptions"}
    assert teachers["teacher, text=descriptions"] == ["11.0", "22.0"]
    ood = per_class_tables(part)[0]
    assert ood.columns[2:4] == ("teacher, text=labels (%)", "teacher, text=descriptions (%)")
    lemon = next(row for row in ood.rows if row.head == "lemon")
    assert lemon.cells[2].text == "7.0"
    assert lemon.cells[1].text != "7.0"
    drawn = scatter_charts(part)[0]
    assert [s["label"] for s in drawn.data["series"]][2:] == list(teachers)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("summary.json", "[1]"),
        ("summary.json", '{"status": "fin'),
        (
            "summary.json",
            '{"status": "finished", "teacher_accuracy": {"id_test": "a"}, "id_test_accuracy": 3}',
        ),
        ("summary.json", '{"status": "finished", "id_test_accuracy": "x"}'),
        ("metrics.jsonl", '{"loss_total": 3}'),
        ("metrics.jsonl", "[" * 100_000),
    ],
)
def test_a_run_with_anything_else_in_its_files_is_named_and_left_out(runs, tmp_path, file, text):
    folder = copied(runs, tmp_path)
    (folder / "cls-0" / file).write_text(text)
    assert [name for name, _ in collect(folder).unreadable] == ["cls-0"]
    report(folder, tmp_path / "report.html")


def test_numbers_that_are_none_do_not_reach_the_page(runs, tmp_path):
    folder = copied(runs, tmp_path)
    lines = (folder / "cls-0" / "metrics.jsonl").read_text().splitlines()
    odd = [re.sub(r'"loss_total": [^,]+', '"loss_total": NaN', line) for line in lines]
    (folder / "cls-0" / "metrics.jsonl").write_text("\n".join(odd) + "\n")
    report(folder, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    kept = [
        *re.findall(r"data-chart='(.*?)'", text),
        re.search(r'id="map-data">(.*?)</script>', text, re.S)[1],
    ]
    assert len(kept) > 5
    for one in kept:
        json.loads(one, parse_constant=pytest.fail)


def test_a_spreadsheet_takes_no_name_for_a_formula(runs, tmp_path):
    folder = copied(runs, tmp_path)
    (folder / "cls-0").rename(folder / "=1+1")
    lines = list(csv.DictReader(as_csv(collect(folder).finished).splitlines()))
    assert "'=1+1" in [line["run"] for line in lines]


# The page in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium, and the machine's own driver."""
    chromium, driver = (Path(shutil.which(name) or "") for name in ("chromium", "chromedriver"))
    if not (chromium.is_file() and driver.is_file()):
        pytest.skip("chromium and chromedriver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(chromium)
    flags = (
        "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
        " --disable-component-update --disable-sync"
    )
    for flag in [*flags.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(str(driver)))
    yield found
    found.quit()


@pytest.fixture
def opened(browser, page):
    size(browser, 1280)
    browser.get(page.as_uri())
    return browser


def size(browser, width):
    device = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)


def test_the_page_runs_without_an_error_and_asks_the_network_for_nothing(opened):
    assert opened.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []
    assert opened.get_log("browser") == []
    assert opened.execute_script("return document.querySelectorAll('#map-student .dot').length") == 18


def test_the_map_draws_the_first_axis_across_and_the_second_up(opened, page):
    data = json.loads(re.search(r'id="map-data">(.*?)</script>', page.read_text(), re.S)[1])
    centres = """
        const centre = dot => { const b = dot.getBBox(); return [b.x + b.width / 2, -(b.y + b.height / 2)]; };
        return [...document.querySelectorAll(arguments[0] + " .dot")].map(centre);
    """
    for panel, places in (("#map-teacher", data["teacher"]), ("#map-student", data["students"][0]["places"])):
        found = opened.execute_script(centres, panel)
        assert sorted([round(x), round(y)] for x, y in found) == sorted(places)
        across, up = opened.find_elements("css selector", f"{panel} .axis-name")
        assert across.get_attribute("textContent").startswith("principal component 1")
        assert across.get_attribute("transform") is None
        assert "rotate(-90)" in up.get_attribute("transform")


def test_a_heading_sorts_its_table_both_ways(opened):
    table = "document.querySelector('#classes table')"
    column = (
        f"return [...{table}.tBodies[0].rows].map(row => Number(row.cells[2].dataset.v))"  # the teacher's
    )
    head = opened.find_elements("css selector", "#classes table:first-of-type thead th")[2]
    head.find_element("tag name", "button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert opened.execute_script(column) == sorted(opened.execute_script(column), reverse=True)
    head.find_element("tag name", "button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert opened.execute_script(column) == sorted(opened.execute_script(column))


def test_a_point_is_named_under_the_mouse_and_with_the_keyboard(opened):
    from selenium.webdriver import ActionChains, Keys

    tip, line = (opened.find_element("css selector", name) for name in ("#tip", "#photos-loss-cls .series"))
    assert not tip.is_displayed()
    mark = opened.find_element("css selector", "#photos-scatter .mark")
    ActionChains(opened).scroll_to_element(mark).perform()
    # A page that scrolls hides the tooltip, and says so a frame later.
    opened.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    ActionChains(opened).move_to_element(mark).perform()
    assert tip.is_displayed()
    assert "OOD, macro accuracy (%)" in tip.text
    opened.execute_script("arguments[0].focus()", line)
    assert "epoch: 2" in tip.text
    line.send_keys(Keys.ARROW_LEFT)
    assert "epoch: 1" in tip.text


def test_the_theme_follows_the_button(opened):
    ground = "return getComputedStyle(document.body).backgroundColor"
    before = opened.execute_script(ground)
    opened.find_element("id", "theme").click()
    assert opened.execute_script(ground) != before
    opened.find_element("id", "theme").click()
    assert opened.execute_script(ground) == before


def test_the_page_does_not_scroll_sideways_on_a_phone(opened):
    size(opened, 390)
    opened.refresh()
    widths = opened.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert widths == [390, 390]
