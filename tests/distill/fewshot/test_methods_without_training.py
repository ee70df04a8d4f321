"""Retrieval and projection by support images, which train nothing: numbers, tables, plots."""

from __future__ import annotations

import json
import math
import statistics

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import make_photos
from helpers.runs import SMALL as RUN

import cli
from cache import EmbeddingCache
from cache.build.from_folder import FeatureOptions, cache_features
from cache.runtime.errors import UserError
from cache.runtime.progress import Silent
from cache.sources.data import open_data
from distill.config import FewShotConfig, RunConfig
from distill.data.support import support_of
from distill.fewshot.project import LAMBDAS, ProjectJudge, last_layer, refit
from distill.fewshot.retrieval import Judge, Retrieval, search_weights
from distill.fewshot.run import FewShotOptions, few_shot
from distill.judge.model import outputs_of
from distill.judge.open_run import evaluate_run, open_trained
from distill.settings import with_settings
from distill.train.start import train as run

SMALL = [*RUN, "train.epochs=1", "loss.vlalign_k=3"]


@pytest.fixture(scope="module")
def viewed(tmp_path_factory, teacher_dir):
    """A data folder and a cache of it that keeps four views an image."""
    root = tmp_path_factory.mktemp("viewed")
    photos = make_photos(root / "photos", train=6, test=4)
    options = FeatureOptions(
        model=f"local-dir:{teacher_dir}", device="cpu", workers=0, support_views=4, dtype="float32"
    )
    cache_features(photos, root / "cache", options)
    config = with_settings(RunConfig(), [*SMALL, "loss.cap=0", "data.id_val=0.25"])
    run(config, cache_dir=root / "cache", data_dir=photos, out=root / "run")
    return root


def test_retrieval_equals_the_formula_written_out(viewed, tmp_path):
    options = FewShotOptions(shots=(2,), method="retrieval", retrieval=Retrieval(alpha=0.7, beta=3.0))
    draw = few_shot(viewed / "run", tmp_path, options)["draws"][0]
    cache = EmbeddingCache.open(viewed / "cache")
    names = cache.split("ood_test").class_names
    text = cache.text_bank("labels").class_texts(names).astype(np.float64)
    support = {
        n: cache.support_views("ood_test", [f"{n}/val_{i}.jpg" for i in (0, 1)]).reshape(8, -1) for n in names
    }
    trained = open_trained(viewed / "run", device="cpu")
    split = open_data([viewed / "photos"]).split("ood_test")
    outputs = (
        torch.cat([rows for rows, _ in outputs_of(trained.model, trained.wanted(["ood_test"])[0])])
        .double()
        .numpy()
    )
    right = {name: [] for name in names}
    for image, row in zip(split.all(), outputs, strict=True):
        if image.key.endswith(("val_0.jpg", "val_1.jpg")):
            continue
        s = row / np.linalg.norm(row)
        logits = [
            s @ (t / np.linalg.norm(t))
            + 0.7
            * sum(math.exp(-3.0 * (1 - s @ (u / np.linalg.norm(u)))) for u in support[name].astype(float))
            for name, t in zip(names, text, strict=True)
        ]
        (name,) = image.labels
        right[name].append(names[int(np.argmax(logits))] == name)
    assert draw["ood_query"] == pytest.approx(
        100 * statistics.fmean(statistics.fmean(r) for r in right.values())
    )
    assert (draw["support_images"], draw["query_images"]) == (4, 4)


def test_without_weight_retrieval_is_zero_shot(viewed, tmp_path):
    options = FewShotOptions(method="retrieval", shots=(1, 2), retrieval=Retrieval(alpha=0.0))
    for draw in few_shot(viewed / "run", tmp_path, options)["draws"]:
        assert draw["ood_query"] == draw["before"]


@pytest.mark.parametrize("split", ["id_val", "id_test"])
def test_the_search_looks_at_id_images_alone(viewed, split):
    judge = Judge(open_trained(viewed / "run", device="cpu"))
    chosen = search_weights(judge, FewShotConfig(shots=1), Retrieval(), split=split)
    assert "ood_test" not in judge._kept  # no OOD image went through the student
    assert chosen == search_weights(judge, FewShotConfig(shots=1), Retrieval(), split=split)
    with pytest.raises(UserError, match="choose from id_val, id_test"):
        search_weights(judge, FewShotConfig(shots=1), Retrieval(), split="ood_test")


def test_the_command_prints_a_table_and_json(viewed, tmp_path):
    words = [
        "fewshot",
        str(viewed / "run"),
        "--method",
        "retrieval",
        "--shots",
        "1,2",
        "--support-seed",
        "0,1",
    ]
    done = CliRunner().invoke(
        cli.main, [*words, "--out", str(tmp_path / "o"), "--search", "id_test", "--device", "cpu"]
    )
    assert done.exit_code == 0, done.output
    assert "ood_query" in done.output
    assert "±" in done.output
    done = CliRunner().invoke(cli.main, [*words, "--out", str(tmp_path / "o"), "--average-views", "--json"])
    assert len(json.loads(done.stdout)["draws"]) == 4


def test_projection_equals_the_formula_written_out_in_float64():
    draw = np.random.default_rng(0)
    x, v = draw.normal(size=(6, 9)), draw.normal(size=(6, 4))
    w0, b0 = draw.normal(size=(4, 9)), draw.normal(size=4)
    square = np.mean((x**2).sum(axis=1))
    left_out = []

    def loss(rows):
        left_out.append(rows.numpy())
        return {3: 0.5, 2: 0.1, 1: 0.1}[len(left_out)]

    fitted = refit(*map(torch.from_numpy, (x, v, x @ w0.T + b0)), loss=loss, lambdas=(0.1, 1.0, 10.0))
    assert (fitted.ridge, list(fitted.losses)) == (10.0, [0.1, 1.0, 10.0])

    def layer(rows, targets, ridge):
        lhs = rows.T @ rows + ridge * square * np.eye(9)
        return np.linalg.solve(lhs, rows.T @ (targets - b0) + ridge * square * w0.T).T

    np.testing.assert_allclose(w0 + fitted.change.numpy(), layer(x, v, 10.0), rtol=1e-9)
    for ridge, rows in zip((10.0, 1.0, 0.1), left_out, strict=True):
        others = [np.arange(6) != i for i in range(6)]
        one_by_one = [x[i] @ layer(x[o], v[o], ridge).T + b0 for i, o in enumerate(others)]
        np.testing.assert_allclose(rows, one_by_one, rtol=1e-8)


@pytest.mark.parametrize(
    "head", ["stages", *(pytest.param(h, marks=pytest.mark.long) for h in ("linear", "mlp"))]
)
def test_projection_is_judged_with_the_refitted_layer_on_every_head(viewed, tmp_path, head):
    config = with_settings(RunConfig(), [*SMALL, "loss.cap=0", f'student.head="{head}"'])
    run(config, cache_dir=viewed / "cache", data_dir=viewed / "photos", out=tmp_path / "run")
    options = FewShotOptions(shots=(1, 2), method="project", device="cpu")
    results = few_shot(tmp_path / "run", tmp_path / "out", options)
    plain = evaluate_run(tmp_path / "run", splits=["ood_test", "id_test"], device="cpu")
    assert [row["shots"] for row in results["table"]] == [1, 2]
    assert (tmp_path / "out" / "fewshot.png").is_file()
    trained = open_trained(tmp_path / "run", device="cpu")
    judge = ProjectJudge(trained, tmp_path / "out", Silent())
    assert judge.without([]).accuracy == pytest.approx(plain["ood_test"].accuracy)
    support = support_of(trained.cache, trained.folder, FewShotConfig(shots=2))
    found, told = judge.projected(support, text_share=0.5)
    # The same change in the student itself.
    change = judge.refitted(support, text_share=0.5).change
    layer = last_layer(trained.student, judge.features_of(judge.ood).of(np.arange(2)))[0]
    with torch.no_grad():
        layer.weight += change.view_as(layer.weight)
    again = Judge(trained).without(support)
    assert found["ood_test"].accuracy == pytest.approx(again.accuracy)
    assert results["draws"][1]["ood_query"] == found["ood_test"].accuracy
    assert told["lambda"] in LAMBDAS


def test_several_methods_are_one_table_and_a_plot_of_all(viewed, tmp_path):
    words = [
        "fewshot",
        str(viewed / "run"),
        "--shots",
        "1",
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(cli.main, [*words, "--method", "project,retrieval"])
    assert done.exit_code == 0, done.output
    rows = [line.split("│")[1:4] for line in done.stdout.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row[:2]] for row in rows] == [["project", "1"], ["retrieval", "1"]]
    tables = json.loads((tmp_path / "out" / "fewshot.json").read_text())["tables"]
    assert tables["project"][0]["before"] == pytest.approx(tables["retrieval"][0]["before"])
    for method, table in tables.items():
        assert json.loads((tmp_path / "out" / method / "fewshot.json").read_text())["table"] == table
    assert (tmp_path / "out" / "fewshot.png").stat().st_size > 5000
    refused = CliRunner().invoke(cli.main, [*words, "--method", "project,finetunes"])
    assert (refused.exit_code, "'finetunes' is none of finetune, retrieval, project" in refused.stderr) == (
        2,
        True,
    )
