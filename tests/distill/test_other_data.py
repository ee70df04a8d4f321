"""A run knows what it was made from: who refuses to go on with other data, and who says so."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from conftest import ID_CLASSES, OOD_CLASSES
from helpers.identity_runs import cache_of, config_of, reader

import cli
from cache import EmbeddingCache
from cache.runtime.errors import CacheMismatch
from cache.store.checksums import append_checksum
from distill.data_identity import DataIdentity
from distill.deploy.export import export_run
from distill.deploy.export_options import ExportOptions
from distill.fewshot.run import FewShotOptions, few_shot
from distill.judge.open_run import evaluate_run
from distill.sweep.plan import load_sweep
from distill.sweep.run import FINISHED, Place, states
from distill.train.start import train as run


def test_a_run_carries_its_identity_in_every_file(made):
    folder = made / "runs" / "all"
    expected = reader(made).of(config_of(made))
    state = torch.load(folder / "last.pt", weights_only=True)
    summary = json.loads((folder / "summary.json").read_text())
    assert DataIdentity.from_json(state["data"]) == DataIdentity.from_json(summary["data"]) == expected
    assert summary["data"]["judged_on"]["ood_test"]["class_names"] == list(OOD_CLASSES)
    assert summary["data"]["learnt_from"]["train"]["class_names"] == list(ID_CLASSES)
    assert summary["data"]["judged_on"]["ood_test"]["images"] == 8


def test_going_on_with_other_data_is_refused(made, tmp_path):
    shutil.copytree(made / "runs" / "all", tmp_path / "run")
    given = {"cache_dir": made / "cache", "out": tmp_path / "run", "resume_run": True}
    with pytest.raises(
        CacheMismatch, match=r"last.pt was made from other data \(ood_test: 4 images here, 8 when"
    ):
        run(config_of(made), data_dir=made / "half", **given)
    assert run(config_of(made), data_dir=made / "photos", **given)["status"] == "finished"


def test_a_run_does_not_go_on_with_other_names_of_its_classes(made, tmp_path):
    # In the same order: no label and no row is another, but a baseline's outputs are called otherwise.
    shutil.copytree(made / "photos", tmp_path / "photos")
    for split in ("train", "val_on_train"):
        (tmp_path / "photos" / split / "apple").rename(tmp_path / "photos" / split / "aa_apple")
    renamed = cache_of(tmp_path / "renamed", tmp_path / "photos")
    assert renamed.fingerprint == EmbeddingCache.open(made / "cache").fingerprint
    message = r"train: classes only here: aa_apple, classes only when it was trained: apple; id_test: classes"
    with pytest.raises(CacheMismatch, match=message):
        run(
            config_of(made),
            cache_dir=renamed.path,
            data_dir=tmp_path / "photos",
            out=shutil.copytree(made / "runs" / "all", tmp_path / "run"),
            resume_run=True,
        )


def test_evaluate_refuses_other_texts_unless_another_bank_was_chosen(made, tmp_path):
    swapped = cache_of(tmp_path / "swapped", made / "photos", swapped=OOD_CLASSES, banks=("labels", "others"))
    given = {"cache_dir": swapped.path, "device": "cpu", "splits": ("ood_test",)}
    for text in (None, "labels"):
        with pytest.raises(
            CacheMismatch,
            match=r"\(text bank main/labels: other texts of lemon, plum\).*another bank with --text",
        ):
            evaluate_run(made / "runs" / "all", text=text, **given)
    assert evaluate_run(made / "runs" / "all", text="others", **given)["ood_test"].other_data == ""


def test_evaluate_says_when_a_split_is_not_what_the_run_was_judged_on(made):
    folder = str(made / "runs" / "all")
    words = ["evaluate", folder, "--data", str(made / "half"), "--device", "cpu", "--json"]
    done = CliRunner().invoke(cli.main, words)
    assert done.exit_code == 0, done.output
    judged, difference = json.loads(done.stdout), "4 images here, 8 when it was trained"
    told = {split: judged[split]["other_data"] for split in ("id_test", "ood_test")}
    assert told == {"id_test": "", "ood_test": difference}
    assert done.stderr == f"note: ood_test is not what the run was trained or judged with: {difference}\n"


def test_a_model_carries_the_identity_of_its_run_and_says_when_it_was_measured_on_other_images(
    made, tmp_path
):
    difference = "4 images here, 8 when it was trained"
    run_of = made / "runs" / "all"
    info = export_run(run_of, tmp_path / "model", ExportOptions(data_dir=made / "half", nearest_images=0))
    summary = json.loads((run_of / "summary.json").read_text())
    assert (
        json.loads((tmp_path / "model" / "model.json").read_text())["source"]["identity"] == summary["data"]
    )
    splits = info.measured["float32"]["splits"]
    assert {name: measured.get("other_data") for name, measured in splits.items()} == {
        "id_test": None,
        "ood_test": difference,
    }
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"**ood_test is not what the run was judged on**: {difference}." in card
    assert "id_test is not what" not in card


def test_a_sweep_takes_no_run_of_other_data_as_its_own(made, tmp_path):
    sweep = load_sweep(str(made / "sweep.toml"))
    out = tmp_path / "out"
    folder = shutil.copytree(made / "runs" / "all", out / sweep.runs[0].name)
    place = Place(cache=made / "cache", data=made / "photos", out=out)
    assert states(sweep, place) == {sweep.runs[0].name: FINISHED}
    message = r"was made from other data \(ood_test: 4 images here, 8 when it was trained\).*another --out"
    with pytest.raises(CacheMismatch, match=message):
        states(sweep, replace(place, data=made / "half"))
    (folder / "summary.json").unlink()  # interrupted: its checkpoint says it
    with pytest.raises(CacheMismatch, match=message):
        states(sweep, replace(place, data=made / "half"))
    assert sorted(path.name for path in out.iterdir()) == [sweep.runs[0].name]


def test_few_shot_joins_no_numbers_of_other_data_or_other_weights(made, tmp_path):
    source = shutil.copytree(made / "runs" / "all", tmp_path / "run")
    options = FewShotOptions(shots=(1,), settings=("train.epochs=1",), device="cpu")
    with pytest.raises(
        CacheMismatch, match=r"run was made from other data \(ood_test: 4 images here, 8 when"
    ):
        few_shot(source, tmp_path / "few", options, data_dir=made / "half")
    results = few_shot(source, tmp_path / "few", options)
    state = torch.load(source / "last.pt", weights_only=True)
    assert DataIdentity.from_json(results["data"]) == DataIdentity.from_json(state["data"])
    assert results["draws"][0]["data"] == DataIdentity.from_json(state["data"]).digest()
    again = few_shot(source, tmp_path / "few", options)
    assert again["draws"] == results["draws"]
    name, weight = next((n, w) for n, w in state["student"].items() if w.is_floating_point())
    state["student"][name] = weight + 1
    torch.save(state, source / "last.pt")
    append_checksum(source / "last.pt")
    before = (tmp_path / "few" / "fewshot.json").read_bytes()
    with pytest.raises(CacheMismatch, match=r"few/shots-1 .* other weights now.*another --out"):
        few_shot(source, tmp_path / "few", options)
    assert (tmp_path / "few" / "fewshot.json").read_bytes() == before
