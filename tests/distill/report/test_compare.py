"""Comparisons of two runs or two settings, over the seeds they have in common."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner
from helpers.report_runs import copied, swept

import cli
from cache.runtime.errors import UserError
from distill.report.compare import compare_runs


def test_compare_takes_runs_of_episodes_and_refuses_photos_beside_them(photo_runs, episode_runs):
    compared = compare_runs(episode_runs / "mse-0", episode_runs / "clsonly-0")
    assert compared.settings == ("loss.mse: 1.0 -> 0.0", "loss.im_cst: 1.0 -> 0.0")
    metrics = [result.metric for result in compared.results]
    assert {"ood_test_ood_objects_average_precision", "id_test_recall"} <= set(metrics)
    with pytest.raises(UserError, match="is of episodes"):
        compare_runs(episode_runs / "mse-0", photo_runs / "cls-0")


def test_compare_pairs_common_seeds_and_says_what_differs(photo_runs, tmp_path):
    for name in ("cls", "mse"):
        for seed in (0, 1):
            shutil.copytree(photo_runs / f"{name}-{seed}", tmp_path / name / str(seed))
    compared = compare_runs(tmp_path / "cls", tmp_path / "mse")
    assert compared.settings == ("loss.mse: 0.0 -> 1.0",)
    result = next(r for r in compared.results if r.metric == "ood_test_loss")
    assert result.test.design == "paired"
    assert result.test.n == (2,)
    single = compare_runs(tmp_path / "cls" / "0", tmp_path / "mse" / "1")
    assert {r.test for r in single.results} == {None}
    with pytest.raises(UserError, match=r"more than the seed \(loss\.mse\)"):
        compare_runs(photo_runs, photo_runs / "cls-0")
    printed = CliRunner().invoke(
        cli.main, ["compare", str(tmp_path / "cls"), str(tmp_path / "mse"), "--json"]
    )
    assert json.loads(printed.stdout)["settings"] == ["loss.mse: 0.0 -> 1.0"]


def test_the_closed_form_is_the_first_line_of_a_comparison(photo_runs, tmp_path):
    place = copied(photo_runs, tmp_path)
    path = place / "cls-0" / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "closed_form": {"ood_test_accuracy": 41.25}}))
    first, *_ = compare_runs(place / "cls-1", place / "cls-0").results
    assert (first.metric, first.one, first.other.mean) == ("closed_form/ood_test_accuracy", None, 41.25)


def test_compare_takes_a_setting_of_a_sweep_with_all_its_seeds(photo_runs, tmp_path):
    out = swept(photo_runs, tmp_path)
    printed = CliRunner().invoke(cli.main, ["compare", str(out / "cls-2"), str(out / "mse-10"), "--json"])
    compared = json.loads(printed.stdout)
    assert compared["how"] == "paired t-test over the seeds 0, 1"
    assert compared["settings"] == ["loss.mse: 0.0 -> 1.0"]
    assert not any("best_epoch" in result["metric"] for result in compared["results"])
    with pytest.raises(UserError, match=r"did you mean 'cls-2'\?.*mse-10, cls-2"):
        compare_runs(out / "cls2", out / "mse-10")
    with pytest.raises(UserError, match=r"all seeds of one setting .*swept/mse-10"):
        compare_runs(out, out / "mse-10")


def test_compare_says_first_what_won_and_compares_no_losses_of_other_terms(photo_runs, tmp_path):
    place = copied(photo_runs, tmp_path)
    for name, seed, own in (("cls", 0, 40.0), ("cls", 1, 41.0), ("mse", 0, 50.0), ("mse", 1, 51.5)):
        path = place / f"{name}-{seed}" / "summary.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "ood_test_accuracy": own}))
        (tmp_path / "sides" / name).mkdir(parents=True, exist_ok=True)
        (place / f"{name}-{seed}").rename(tmp_path / "sides" / name / str(seed))
    compared = compare_runs(tmp_path / "sides" / "cls", tmp_path / "sides" / "mse")
    assert compared.names == ("cls", "mse")
    assert compared.answer.startswith(
        "OOD: mse (50.8 ± 1.1%) wins, 10.2 points above the baseline, cls (40.5 ± 0.7%)"
    )
    assert "paired by seed, n = 2; p = 0.016" in compared.answer
    losses = {result.metric for result in compared.results if result.section == "training losses"}
    assert "loss_cls" in losses
    assert "loss_total" not in losses
    assert any("other terms (loss.mse)" in line for line in compared.left_out)
    of_results = [result for result in compared.results if result.section == "results" and result.test]
    corrected = [(r.p_value, r.test.p_value) for r in of_results if r.p_value is not None]
    assert all(holm >= alone for holm, alone in corrected)
    assert any(holm > alone for holm, alone in corrected)


def test_a_terminal_of_80_columns_breaks_no_name_in_a_word(photo_runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = CliRunner().invoke(cli.main, ["compare", str(photo_runs / "cls-0"), str(photo_runs / "mse-0")])
    assert done.exit_code == 0
    heads = [line.split("│")[1].strip() for line in done.stdout.splitlines() if line.startswith("│")]
    assert "harmonic mean among all (%)" in heads
    assert "nothing can be said" in done.stdout
    assert max(map(len, done.stdout.split("results\n")[0].splitlines())) <= 80
