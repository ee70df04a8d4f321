"""A teacher that reads no texts: what is learnt, judged and shipped of it, and class means in place of texts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import EMBED_DIM
from helpers.runs import SMALL, lines

import cli
from cache import EmbeddingCache
from cache.build.class_means import MeanOptions, add_class_means
from cache.maintain.import_embeddings import import_embeddings
from cache.maintain.imported import Imported
from cache.runtime.errors import UserError
from cache.sources.data import open_data
from distill.config import RunConfig
from distill.data.tar_identities import identities_of
from distill.data.teacher_texts import settled, without_texts_note
from distill.deploy.export import export_run
from distill.deploy.export_options import ExportOptions
from distill.deploy.model import Model
from distill.fewshot.retrieval import Retrieval
from distill.fewshot.run import FewShotOptions, few_shot
from distill.judge.open_run import evaluate_run
from distill.judge.teachers import evaluate_teacher
from distill.report.page import report
from distill.settings import with_settings
from distill.train.default_recipe import config_of, default_settings
from distill.train.start import train

IMAGES_ALONE = """
import numpy as np
import torch


class Images:
    def preprocess(self, picture):
        pixels = np.asarray(picture.convert("RGB").resize((4, 4)), dtype="float32")
        return torch.from_numpy(pixels / 255).permute(2, 0, 1)

    def embed_images(self, images):
        return images.flatten(1)
"""
WITHOUT = ["loss.cls=0", "loss.vlalign=0", "loss.cap=0"]


def cache_of_rows(out, photos) -> EmbeddingCache:
    """A cache of rows alone, near a direction of their class."""
    rng, folder = np.random.default_rng(0), open_data([photos])
    towards = {name: 2 * rng.normal(size=EMBED_DIM) for name in folder.class_names}
    keys = [f"{name}/{image.key}" for name, split in folder.splits.items() for image in split.all()]
    rows = np.stack([towards[key.split("/")[1]] + rng.normal(size=EMBED_DIM) for key in keys])
    import_embeddings(
        out, Imported(keys=keys, embeddings=rows.astype("float32"), folder=folder, dtype="float32")
    )
    return EmbeddingCache.open(out)


def config(*settings: str) -> RunConfig:
    return with_settings(RunConfig(), [*SMALL, *WITHOUT, *settings])


@pytest.fixture
def rows_alone(tmp_path, photos):
    return cache_of_rows(tmp_path / "cache", photos)


@pytest.fixture
def run(rows_alone, photos, tmp_path):
    settings = ("data.id_val=0.3", "loss.center=true", "student.head_start=closed-form", "train.epochs=2")
    train(config(*settings), cache_dir=rows_alone.path, data_dir=photos, out=tmp_path / "run")
    return tmp_path / "run"


def test_a_run_is_judged_by_its_embeddings_from_first_line_to_report(run, rows_alone, photos, tmp_path):
    summary = json.loads((run / "summary.json").read_text())
    assert "mean cosine with the teacher" in summary["headline"]
    assert {"id_val_cosine", "id_test_cosine", "ood_test_cosine"} <= summary.keys()
    assert summary["closed_form"]["chosen_by"] == "cosine on id_val"
    assert not [name for name in summary if name.endswith("accuracy") and summary[name]]
    assert "NaN" not in (run / "summary.json").read_text()
    assert {"cosine", "linear_cka"} <= summary["space"]["ood_test"].keys()
    assert (run / "best.pt").is_file()
    assert not any("accuracy" in name for line in lines(run) for name in line)
    judged = evaluate_run(run, data_dir=photos)
    assert judged["id_test"].cosine == pytest.approx(summary["space"]["id_test"]["cosine"], abs=1e-4)
    report(run, tmp_path / "report.html")
    assert "ID, cosine with the teacher" in (tmp_path / "report.md").read_text()
    told = CliRunner().invoke(cli.main, ["evaluate", str(run), "--data", str(photos)])
    assert "mean cosine" in told.output, told.output


def test_retrieval_goes_by_images_alone_and_other_ways_say_what_they_need(run, photos, tmp_path):
    options = FewShotOptions(shots=(1,), method="retrieval", retrieval=Retrieval(support_views=1))
    result = few_shot(run, tmp_path / "few", options, data_dir=photos)
    assert result["table"][0]["before"] is None
    assert 0 <= result["table"][0]["ood_query"] <= 100
    for method in ("project", "finetune"):
        with pytest.raises(UserError, match=rf"{method} is judged by texts.*--from-images"):
            few_shot(run, tmp_path / method, FewShotOptions(method=method), data_dir=photos)


@pytest.mark.long
def test_an_export_gives_embeddings_alone_until_class_means_are_there(run, rows_alone, photos, tmp_path):
    options = ExportOptions(data_dir=photos)
    info = export_run(run, tmp_path / "model", options)
    assert (info.bank, info.banks) == ("", ())
    assert info.measured["float32"]["splits"]["id_test"]["cosine_mean"] > 0.999
    assert "knows no names" in (tmp_path / "model" / "README.md").read_text()
    with pytest.raises(UserError, match=r"embeddings alone.*distill embed.*--from-images"):
        Model.open(tmp_path / "model").class_set()
    add_class_means(rows_alone.path, MeanOptions(bank="means", shots=1))
    info = export_run(run, tmp_path / "named", options)
    assert info.bank == "means"
    assert {*Model.open(tmp_path / "named").class_set().classes} >= {*info.id_classes}


def test_what_needs_texts_is_refused_by_name(rows_alone, photos):
    for setting, name in (
        ("loss.cls=1", "loss.cls"),
        ("loss.vlalign=1", "loss.vlalign"),
        ("loss.cap=1", "loss.cap"),
        ("prompts.learner=coop", "prompts.learner"),
    ):
        with pytest.raises(UserError, match=rf"^{name} needs texts.*--from-images.*another teacher"):
            settled(config(setting), rows_alone)
    taken = config_of("head-first", default_settings(rows_alone.path), named=False)
    assert (taken.loss.cls, taken.loss.mse, settled(taken, rows_alone).text) == (0, 1, "")
    with pytest.raises(UserError, match=r"no text bank 'labels'.*--from-images"):
        evaluate_teacher(rows_alone.path)


def test_class_means_classify_and_what_they_were_made_of_is_not_judged(rows_alone, photos, tmp_path):
    ood = len(rows_alone.split("ood_test"))
    listed, remarks = add_class_means(rows_alone.path, MeanOptions(bank="means", shots=1))
    cache = EmbeddingCache.open(rows_alone.path)
    drawn = len(cache.class_names("ood_test"))
    assert len(cache.text_bank("means").made_of) == drawn
    assert any(line.startswith(f"{drawn:,} test images went into it") for line in remarks)
    rows = cache.split("train")
    unit = rows.embeddings[:] / np.linalg.norm(rows.embeddings[:], axis=1, keepdims=True)
    mean = unit[rows.labels == 0].mean(axis=0)
    own = cache.text_bank("means").class_texts(rows.class_names[:1])[0]
    np.testing.assert_allclose(own, mean / np.linalg.norm(mean), atol=1e-6)
    teacher = evaluate_teacher(cache.path)  # by the only bank that there is
    assert teacher["ood_test"].images == ood - drawn
    assert teacher["id_test"].accuracy > 80
    summary = train(
        config("loss.cls=1", "loss.vlalign=1", "train.epochs=1"),
        cache_dir=cache.path,
        data_dir=photos,
        out=tmp_path / "run",
    )
    assert summary["images"]["ood_test"] == ood - drawn
    assert summary["teacher_accuracy"]["ood_test"] == pytest.approx(teacher["ood_test"].accuracy)
    assert 'text = "means"' in (tmp_path / "run" / "config.toml").read_text()
    again, _ = add_class_means(cache.path, MeanOptions(bank="means", shots=1))
    assert again == listed
    reader = identities_of(cache, open_data([photos]))  # a run that judges all images is another's
    by_means, by_none = (reader.of(config(f"text={name}")) for name in ("means", "labels"))
    (line,) = by_means.judged_differences(by_none)
    assert "ood_test" in line
    assert "left out, which class means were made of" in line
    every = cache.split("ood_test").keys  # so many shots that some are what the means are of
    shots = (
        min(sum(key.startswith(f"{name}/") for key in every) for name in cache.class_names("ood_test")) - 1
    )
    options = FewShotOptions(shots=(shots,), method="project")
    taught = few_shot(tmp_path / "run", tmp_path / "few", options, data_dir=photos)
    assert 0 <= taught["table"][0]["ood_query"] <= 100


def test_class_means_need_labelled_images(tmp_path, photos):
    keys = [f"pool/{i}.jpg" for i in range(4)]
    rows = np.random.default_rng(0).normal(size=(4, EMBED_DIM)).astype("float32")
    import_embeddings(tmp_path / "pool", Imported(keys=keys, embeddings=rows, dtype="float32", paths=True))
    with pytest.raises(UserError, match="no labelled images, of which class means are made"):
        add_class_means(tmp_path / "pool", MeanOptions(bank="means"))


def test_a_teacher_of_adapt_without_texts_is_refused_before_it_looks_at_a_photo(photos, tmp_path):
    own, names = tmp_path / "own.py", tmp_path / "names.txt"
    own.write_text(
        "import torch\n"
        "class Own:\n"
        "    def preprocess(self, picture):\n"
        "        return torch.zeros(3, 8, 8)\n"
        "    def embed_images(self, images):\n"
        "        return images.flatten(1)[:, :16] + 1\n"
    )
    names.write_text("\n".join(open_data([photos]).split("train").classes))
    command = ["adapt", str(photos), "--names", str(names), "--out", str(tmp_path / "model")]
    command += ["--model", f"{own}:Own", "--arch", "timm:test_resnet", "--start", "scratch"]
    told = CliRunner().invoke(cli.main, command)
    assert "reads no texts, and what is adapted needs names" in told.output, told.output


def test_a_second_teacher_without_texts_stays_so_when_it_gets_another_bank(tmp_path, cached, photos):
    cache, own = cached, tmp_path / "own.py"
    own.write_text(IMAGES_ALONE)
    words = ["cache-features", photos, "--out", cache.path, "--teacher", "dino", "--model", f"{own}:Images"]
    told = CliRunner().invoke(cli.main, [*map(str, words), "--device", "cpu", "--workers", "0"])
    assert told.exit_code == 0, told.output
    both = with_settings(RunConfig(), [*SMALL, "train.epochs=1", 'teachers=["main","dino"]'])
    train(both, cache_dir=cache.path, data_dir=photos, out=tmp_path / "run")
    before = {*evaluate_run(tmp_path / "run", data_dir=photos)}
    add_class_means(cache.path, MeanOptions(bank="means", shots=1, teacher="dino"))
    assert {*evaluate_run(tmp_path / "run", data_dir=photos)} == before
    cache = EmbeddingCache.open(cache.path)
    told = without_texts_note(both, cache)
    assert "dino has no text bank 'labels'" in told
    assert "--teacher dino --bank labels --from-images" in told
    with pytest.raises(UserError, match=r"'ood_test@mean'.*--split ood_test, which"):
        evaluate_run(tmp_path / "run", data_dir=photos, splits=["ood_test@mean"])
    with pytest.raises(UserError, match=r"no text bank 'lables'.*'labels'"):
        evaluate_run(tmp_path / "run", data_dir=photos, text="lables")
