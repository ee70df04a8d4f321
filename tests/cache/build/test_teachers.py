"""A second teacher beside the first: the same images, rows and banks of its own, a head of its own."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import Counted
from helpers.teachers import save_clip

import cli
from cache import EmbeddingCache
from cache.build.from_folder import FeatureOptions, cache_features
from cache.maintain.convert import convert_cache
from cache.maintain.verify import verify_cache
from cache.runtime.errors import CacheMismatch, UserError
from distill.config import RunConfig
from distill.deploy.export import export_run
from distill.deploy.export_options import ExportOptions
from distill.fewshot.run import FewShotOptions, few_shot
from distill.judge.evaluate import both_kinds
from distill.judge.open_run import evaluate_run
from distill.judge.outputs import read_logits
from distill.objective import distillation_objective
from distill.settings import with_settings
from distill.train.session import open_session
from distill.train.start import train as run

SMALL = [
    "student.arch=timm:test_resnet", "student.image_size=32", "train.epochs=2", "train.batch_size=6", "train.device=cpu",
    "optim.lr=0.01", "data.workers=0", "loss.mse=1", "loss.im_cst=1", "loss.vlalign=1",
]  # fmt: skip
BOTH = 'teachers=["main","second"]'


@pytest.fixture
def second_dir(tmp_path):
    """Another small CLIP, of another embedding size."""
    return save_clip(tmp_path / "clip", embed_dim=24)


@pytest.fixture
def add(photos, teacher_dir, second_dir, tmp_path):
    """A function that runs cache-features for a teacher of that name."""

    def add_it(name="main", progress=None, **options):
        folder = teacher_dir if name == "main" else second_dir
        options = {"device": "cpu", "workers": 0, "teacher": name, **options}
        made = FeatureOptions(model=f"local-dir:{folder}", **options)
        cache_features(photos, tmp_path / "cache", made, progress=progress)
        return EmbeddingCache.open(tmp_path / "cache")

    return add_it


@pytest.fixture
def two(add):
    """A cache of two teachers."""
    add()
    return add("second")


def test_a_second_teacher_has_the_same_keys_and_rows_and_banks_of_its_own(two):
    assert two.teacher_names == ("main", "second")
    second = two.teacher_cache("second")
    assert (two.embed_dim, second.embed_dim) == (16, 24)
    assert list(second.split("train").keys) == list(two.split("train").keys)
    assert second.split("train").embeddings.shape == (24, 24)
    assert second.bank_names == two.bank_names == ("labels", "descriptions")
    assert second.fingerprint != two.fingerprint
    assert two.teacher_cache("main") is two
    with pytest.raises(UserError, match=r"no teacher 'secnod'.*did you mean 'second'"):
        two.teacher_cache("secnod")


def test_a_second_teacher_needs_a_first_and_a_name(add):
    with pytest.raises(UserError, match="is not a cache"):
        add("second")
    add()
    for name in ("../second", "a.b"):
        with pytest.raises(UserError, match="cannot name columns"):
            add(name)


def test_an_image_that_is_gone_or_changed_is_refused_and_one_without_a_row_is_said(add, photos, write_jpeg):
    first = add()
    old = photos / "train" / "apple" / "train_3.jpg"
    kept = old.read_bytes()
    old.unlink()
    with pytest.raises(UserError, match=r"apple/train_3\.jpg cannot be read any more"):
        add("second")
    write_jpeg(old)
    with pytest.raises(CacheMismatch, match=r"1 images of train .*\(apple/train_3\.jpg\)"):
        add("second")
    with pytest.raises(
        UserError, match=r"has no image_embedding of 24 of 24 images of train.*--teacher second"
    ):
        np.asarray(EmbeddingCache.open(first.path).teacher_cache("second").split("train").embeddings)
    old.write_bytes(kept)
    write_jpeg(photos / "train" / "apple" / "new.jpg")
    progress = Counted()
    assert len(add("second", progress=progress).teacher_cache("second").split("train").embeddings) == 24
    assert any(
        note.startswith("1 images of train") and "without --teacher first" in note for note in progress.notes
    )


def test_all_teachers_of_a_cache_are_judged_unless_one_is_named(two):
    printed = CliRunner().invoke(cli.main, ["evaluate", str(two.path), "--json"])
    assert json.loads(printed.stdout).keys() == {"main", "second"}
    of_one = CliRunner().invoke(cli.main, ["evaluate", str(two.path), "--teacher", "second", "--json"])
    assert json.loads(of_one.stdout) == json.loads(printed.stdout)["second"]
    other = CliRunner().invoke(cli.main, ["evaluate", str(two.path), "--teacher", "secnd"])
    assert (other.exit_code, "did you mean 'second'" in other.stderr) == (1, True)


def test_after_growth_the_second_teacher_has_what_is_new_alone_to_do(two, add, photos, write_jpeg):
    write_jpeg(photos / "train" / "apple" / "new.jpg")
    old = {file: file.stat().st_mtime_ns for file in two.path.glob("rows/*/second.*.h5")}
    grown = add().teacher_cache("second")
    with pytest.raises(
        UserError, match=r"has no image_embedding of 1 of 25 images of train.*--teacher second"
    ):
        np.asarray(grown.split("train").embeddings)
    (photos / "train" / "banana" / "train_1.jpg").write_bytes(b"what has a row is not looked at again")
    assert add("second").teacher_cache("second").split("train").embeddings.shape == (25, 24)
    new = [file for file in two.path.glob("rows/*/second.*.h5") if file not in old]
    assert [file.name for file in new] == ["second.image_embedding.h5"]
    assert {file: file.stat().st_mtime_ns for file in old} == old


def test_another_teacher_of_that_name_is_refused_or_takes_its_place(two, add, photos, second_dir):
    add("second", views=2)
    rows = np.asarray(EmbeddingCache.open(two.path).teacher_cache("second").split("train").embeddings)
    shutil.rmtree(second_dir)
    save_clip(second_dir, embed_dim=24, seed=7)
    with pytest.raises(CacheMismatch, match=r"another teacher called second.*--rebuild"):
        add("second")
    other = add("second", rebuild=True).teacher_cache("second")
    assert not np.allclose(np.asarray(other.split("train").embeddings), rows)
    with pytest.raises(UserError, match="keeps no views of train"):
        other.crop_views("train")
    assert not any(check.problem for check in verify_cache(two.path))


def test_its_own_columns_lie_beside_the_first_teachers(add):
    add(views=2, support_views=2)
    cache = add("second", support_views=3, keep_text_tower=True)
    second = cache.teacher_cache("second")
    assert (cache.crop_views("train").views, second.crop_views("train").views) == (2, 2)
    keys = list(cache.split("ood_test").keys)[:2]
    assert cache.support_views("ood_test", keys).shape == (2, 2, 16)
    assert second.support_views("ood_test", keys).shape == (2, 3, 24)
    assert [file.file for file in second.text_tower] == [
        "second.text_tower/text.safetensors",
        "second.text_tower/config.json",
    ]
    assert not any(check.problem for check in verify_cache(cache.path))


def test_verify_and_info_know_of_it(two):
    file = two.path / "rows" / "train-00000" / "second.image_embedding.h5"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    bad = [check.file for check in verify_cache(two.path) if check.problem]
    assert bad == ["rows/train-00000/second.image_embedding.h5"]
    told = json.loads(CliRunner().invoke(cli.main, ["cache", "info", str(two.path), "--json"]).output)
    assert [one["teacher"] for one in told["every_teacher"]] == ["main", "second"]


def test_another_format_carries_it_along(two, tmp_path):
    convert_cache(two.path, tmp_path / "tar", format="webdataset")
    other = EmbeddingCache.open(tmp_path / "tar").teacher_cache("second")
    rows = two.teacher_cache("second").split("ood_test").embeddings
    np.testing.assert_array_equal(np.asarray(other.split("ood_test").embeddings), np.asarray(rows))


@torch.no_grad()
def test_a_student_of_two_has_a_head_and_losses_for_each(two, photos):
    config = with_settings(RunConfig(), [*SMALL, BOTH])
    session = open_session(config, cache_dir=two.path, data_dir=photos)
    outputs = session.model.student.eval()(torch.randn(5, 3, 32, 32))
    assert outputs.shape == (5, 40)
    batch = session.data.batch(*next(session.data.images([np.arange(5)])))
    parts, logits = session.model.losses(outputs, batch)
    total = 0.0
    for name, columns, cache in (
        ("main", slice(0, 16), two),
        ("second", slice(16, 40), two.teacher_cache("second")),
    ):
        rows = cache.split("train")
        teacher = torch.from_numpy(rows.embeddings[session.data.joined.row_of[:5]]).float()
        text = torch.from_numpy(cache.text_bank("labels").class_texts(rows.class_names))
        alone = distillation_objective(outputs[:, columns], teacher, text, batch.label_B, config.loss)
        for term in ("cls", "mse", "im_cst", "vlalign"):
            assert float(parts[f"{name}/{term}"]) == pytest.approx(float(alone[term]), rel=1e-3)
        total += float(alone["total"])
    assert float(parts["total"]) == pytest.approx(total, rel=1e-3)
    assert logits.shape == (5, 3)


def train(two, photos, out, *settings, **options):
    return run(
        with_settings(RunConfig(), [*SMALL, *settings]),
        cache_dir=two.path,
        data_dir=photos,
        out=out,
        **options,
    )


def test_results_of_the_second_head_carry_its_name(two, photos, tmp_path):
    summary = train(two, photos, tmp_path / "run", BOTH)
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    judged = evaluate_run(tmp_path / "run", device="cpu")
    heads = ("", "@second", "@mean")
    assert set(judged) == {f"{split}{head}" for split in ("id_test", "ood_test") for head in heads}
    for name, result in judged.items():
        assert result.accuracy == pytest.approx(last[f"{name}_accuracy"])
        assert result.among_all.accuracy == pytest.approx(last[f"{name}_all_accuracy"])
        assert read_logits(tmp_path / "run" / "logits.npz", name).logits.shape == (result.images, 5)
    assert both_kinds(judged) == pytest.approx({name: last[name] for name in both_kinds(judged)})
    assert {"all_harmonic_mean", "id_ood_auroc", "all@second_harmonic_mean", "id_ood@second_auroc"} <= set(
        summary
    )
    assert {"ood_test_accuracy", "ood_test@second_accuracy", "ood_test@mean_accuracy"} <= set(summary)
    assert set(summary["space"]) == {name for name in judged if not name.endswith("@mean")}
    assert "main/cls" in "".join(last)
    with pytest.raises(CacheMismatch, match="teachers"):
        train(two, photos, tmp_path / "run", 'teachers=["second","main"]', resume_run=True)
    fewer = few_shot(
        tmp_path / "run", tmp_path / "fs", FewShotOptions(shots=(1,), settings=("train.epochs=1",))
    )
    assert fewer["draws"][0]["query_images"] == 4


def test_a_student_can_learn_from_the_second_alone(two, photos, tmp_path):
    train(two, photos, tmp_path / "run", 'teachers=["second"]')
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert state["fingerprint"] == two.teacher_cache("second").fingerprint
    assert set(evaluate_run(tmp_path / "run", device="cpu")) == {"id_test", "ood_test"}


def test_space_is_printed_for_every_split_with_rows(two, photos, tmp_path):
    from distill.judge.model import outputs_of
    from distill.judge.open_run import open_trained
    from distill.judge.space import space_metrics

    train(two, photos, tmp_path / "run", "train.epochs=1")
    done = CliRunner().invoke(
        cli.main, ["evaluate", str(tmp_path / "run"), "--space", "--json", "--device", "cpu"]
    )
    space = json.loads(done.stdout)
    trained = open_trained(tmp_path / "run", device="cpu")
    outputs = torch.cat([rows for rows, _ in outputs_of(trained.model, trained.wanted(["ood_test"])[0])])
    rows = two.split("ood_test")
    teacher = torch.from_numpy(rows.embeddings[rows.find(sorted(rows.keys))]).float()
    text = torch.from_numpy(two.text_bank("labels").class_texts(rows.class_names))
    assert space["ood_test"] == pytest.approx(
        {"images": 6, **space_metrics(outputs, teacher, text)}, rel=1e-5
    )
    table = (
        CliRunner().invoke(cli.main, ["evaluate", str(tmp_path / "run"), "--space", "--device", "cpu"]).output
    )
    assert "linear_cka" in table
    train(two, photos, tmp_path / "baseline", "train.closed_set=true", "train.epochs=1")
    with_baseline = CliRunner().invoke(cli.main, ["evaluate", str(tmp_path / "baseline"), "--space"])
    assert with_baseline.exit_code == 1
    assert "closed-set student" in with_baseline.output


@pytest.mark.long
def test_a_student_of_two_teachers_is_exported_with_either_embedding(two, photos, tmp_path):
    run(
        with_settings(RunConfig(), [*SMALL, BOTH, "train.epochs=1"]),
        cache_dir=two.path,
        data_dir=photos,
        out=tmp_path / "run",
    )
    judged = evaluate_run(tmp_path / "run", device="cpu")
    # A graph of the second alone, whose outputs do not begin at the first: each takes seconds to make.
    for name, ending, size, files in (
        ("main", "", 16, {"safetensors": "safetensors"}),
        ("second", "@second", 24, {"safetensors": "safetensors", "onnx": "float32"}),
    ):
        options = ExportOptions(teacher=name, formats=tuple(files))
        info = export_run(tmp_path / "run", tmp_path / name, options)
        assert (info.embed_dim, info.outputs) == (size, 40)
        for file in files.values():
            measured = info.measured[file]["splits"]["ood_test"]["accuracy"]
            assert measured == pytest.approx(judged[f"ood_test{ending}"].accuracy)
