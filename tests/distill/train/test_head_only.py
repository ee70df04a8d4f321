"""A run that is nothing but a head on the features of a frozen trunk, or begins with one by ridge."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import EMBED_DIM, Counted, write_image
from helpers.runs import RUN_FILES, SMALL, files_of_run, lines, numbers, weights

from cache import EmbeddingCache
from cache.maintain.import_embeddings import import_embeddings
from cache.maintain.imported import Imported
from cache.maintain.imported_banks import ImportedTexts
from cache.runtime.errors import UserError
from cache.sources.data import open_data
from distill.config import RunConfig
from distill.deploy.export import export_run
from distill.judge.open_run import evaluate_run
from distill.settings import with_settings
from distill.student.build import build_student
from distill.train.head_only import line_of
from distill.train.start import train as run
from distill.train.trained_heads import BETWEEN_SEEDS

CLOSED = "train.head_only=closed-form"
STAGES = "student.head=stages"


def config(*settings: str) -> RunConfig:
    return with_settings(RunConfig(), [*SMALL, *settings])


@pytest.fixture
def train(cached, photos, tmp_path):
    def run_it(out="run", *settings, **options):
        return run(config(*settings), cache_dir=cached.path, data_dir=photos, out=tmp_path / out, **options)

    return run_it


def features_in(cached):
    return sorted(path.relative_to(cached.path).as_posix() for path in cached.path.glob("features/*/*.h5"))


@pytest.mark.parametrize("head", ["linear", "stages"])
def test_a_closed_form_is_a_run_like_any_other(train, cached, photos, tmp_path, head):
    summary = train("run", CLOSED, f"student.head={head}")
    assert files_of_run(tmp_path / "run") == {*RUN_FILES, "outputs.npz", "logits.npz"}
    told = summary["closed_form"]
    assert told["ood_test_accuracy"] == summary["ood_test_accuracy"]
    assert summary["headline"].startswith("closed form, macro accuracy")
    assert told["images"] == {"train": len(cached.split("train")), "pool": 0}
    assert set(told["scores"]) == {"0.03", "0.1", "0.3", "1", "3"}
    again = evaluate_run(tmp_path / "run", data_dir=photos)
    assert again["ood_test"].accuracy == pytest.approx(summary["ood_test_accuracy"])
    assert again["ood_test"].loss == pytest.approx(lines(tmp_path / "run")[-1]["ood_test_loss"], rel=1e-3)


def test_the_trunk_stays_as_it_starts(train, tmp_path):
    train("run", CLOSED, "train.seed=3")
    after = weights(tmp_path / "run")
    torch.manual_seed(3)
    start = build_student("timm:test_resnet", embed_dim=len(after["fc.bias"]), image_size=32).state_dict()
    assert {name for name, value in start.items() if not torch.equal(after[name], value)} == {
        "fc.weight",
        "fc.bias",
    }


def test_a_second_head_on_a_trunk_decodes_nothing(train, cached, photos, tmp_path):
    train("first", CLOSED, STAGES)
    kept = features_in(cached)
    assert [name.rpartition("/")[2].partition("-")[0] for name in kept] == ["id_test", "ood_test", "train"]
    times = [(cached.path / name).stat().st_mtime_ns for name in kept]
    progress = Counted()
    train("second", "train.head_only=trained", STAGES, "train.epochs=2", progress=progress)
    train("third", CLOSED, STAGES, "data.id_val=0.3")  # other images set aside, the same features
    assert features_in(cached) == kept
    assert [(cached.path / name).stat().st_mtime_ns for name in kept] == times
    train("other trunk", CLOSED, STAGES, "train.seed=5")
    assert len(features_in(cached)) == 2 * len(kept)


def test_features_lie_in_the_run_where_the_cache_cannot_be_written(train, cached, tmp_path):
    (cached.path / "features").write_text("in the way, for root too")
    train("run", CLOSED)
    assert len(list((tmp_path / "run" / "features").glob("*/*.h5"))) == 3


@pytest.mark.parametrize(
    "settings", [["student.head=linear"], [STAGES], ["student.head=mlp", "student.hidden=9"]]
)
def test_a_head_is_trained_on_features_with_noise(train, photos, tmp_path, settings):
    summary = train(
        "run", "train.head_only=trained", "student.feature_noise=0.5", "train.epochs=8", *settings
    )
    history = lines(tmp_path / "run")
    assert len(history) == 8
    assert history[-1]["loss_total"] < history[0]["loss_total"]
    assert ("closed_form" in summary) == ("mlp" not in settings[0])
    again = evaluate_run(tmp_path / "run", data_dir=photos)
    assert again["ood_test"].loss == pytest.approx(history[-1]["ood_test_loss"], rel=1e-3)


def test_the_mean_of_several_heads_is_judged_beside_the_first(train, cached, photos, tmp_path):
    train("trunk", "train.epochs=1")  # one start, whatever the seed
    common = (f"student.start={tmp_path / 'trunk' / 'last.pt'}", STAGES, "student.feature_noise=0.5")
    trained = (*common, "train.head_only=trained", "train.epochs=2")
    seeds = (0, BETWEEN_SEEDS)
    for seed in seeds:
        train(f"seed {seed}", *trained, f"train.seed={seed}")
    train("ridge", *common, CLOSED)
    summary = train("several", *trained, "train.heads=2", "optim.average_with_start=0.25")
    assert numbers(tmp_path / "several")[0] == numbers(tmp_path / "seed 0")[0]
    heads = [weights(tmp_path / f"seed {seed}")["head.weight"] for seed in seeds]
    assert torch.equal(weights(tmp_path / "several")["head.weight"], heads[0])
    ridge = weights(tmp_path / "ridge")["head.weight"]
    expected = {"mean_head": sum(heads) / 2, "averaged": 0.25 * ridge + 0.75 * heads[0]}
    for name, weight in expected.items():
        kept = torch.load(tmp_path / "several" / f"{name}.pt", weights_only=True)["student"]
        torch.testing.assert_close(kept["head.weight"], weight)
        judged = evaluate_run(tmp_path / "several", data_dir=photos, checkpoint=name)["ood_test"]
        assert summary[f"{name}_ood_test_loss"] == pytest.approx(judged.loss, rel=1e-3)


def test_a_head_that_is_trained_in_the_centred_space_does_not_begin_with_the_closed_form(train, tmp_path):
    train("closed", CLOSED, STAGES, "loss.center=true")
    still = ("optim.name=adamw", "optim.lr=1e-12", "train.epochs=1")
    train("trained", "train.head_only=trained", STAGES, "loss.center=true", *still)
    closed, trained = (weights(tmp_path / name)["head.weight"] for name in ("closed", "trained"))
    assert torch.nn.functional.cosine_similarity(closed.flatten(), trained.flatten(), dim=0) < 0.5


def test_a_training_begins_with_the_closed_form(train, tmp_path):
    alone = train("alone", CLOSED, STAGES)
    started = train("started", "student.head_start=closed-form", STAGES, "train.epochs=1")
    assert started["closed_form"]["ood_test_accuracy"] == alone["ood_test_accuracy"]
    assert [line["epoch"] for line in lines(tmp_path / "started")] == [1]
    assert not torch.equal(
        weights(tmp_path / "started")["head.weight"], weights(tmp_path / "alone")["head.weight"]
    )
    # What the head sees is standardised by the training images, as the closed form's was.
    assert torch.equal(
        weights(tmp_path / "started")["standard.mean"], weights(tmp_path / "alone")["standard.mean"]
    )


def test_a_mean_with_the_first_weights_is_one_with_the_head_by_ridge(train):
    begun = ("student.head_start=closed-form", STAGES, "train.epochs=1", "optim.lr=0.5")
    summary = train("run", *begun, "optim.average_with_start=0.999999")
    assert summary["averaged_id_test_loss"] == pytest.approx(summary["closed_form"]["id_test_loss"], rel=0.1)


def test_lambda_is_chosen_on_id_val_or_given(train):
    assert train("chosen", CLOSED, "data.id_val=0.3")["closed_form"]["chosen_by"] == "accuracy on id_val"
    told = train("given", CLOSED, "student.ridge=0.5")["closed_form"]
    assert (told["lambda"], told["chosen_by"], told["scores"]) == (0.5, "given", {})


def test_a_resumed_closed_form_is_as_it_was(train, tmp_path):
    whole = train("run", CLOSED)
    before = numbers(tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    again = train("run", CLOSED, resume_run=True)
    assert numbers(tmp_path / "run") == before
    assert again["closed_form"] == whole["closed_form"]
    assert (
        json.loads((tmp_path / "run" / "summary.json").read_text())["ood_test_accuracy"]
        == whole["ood_test_accuracy"]
    )


@pytest.mark.long
def test_a_head_on_stages_is_exported_with_its_standardisation_inside(train, photos, tmp_path):
    train("run", CLOSED, STAGES)
    from distill.deploy.export_options import ExportOptions

    options = ExportOptions(formats=("onnx", "safetensors"), data_dir=photos, nearest_images=0)
    info = export_run(tmp_path / "run", tmp_path / "model", options)
    assert info.head == "stages"
    for measured in info.measured.values():
        assert max(split["largest_difference"] for split in measured["splits"].values()) < 1e-4


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["student.head=mlp", CLOSED], "has no closed form"),
        (["student.head=mlp", "student.head_start=closed-form"], "has no closed form"),
        (["train.closed_set=true", CLOSED], "has no teacher"),
        (["prompts.learner=coop", CLOSED], "prompts"),
        (["student.feature_noise=0.5"], "student.head=stages"),
        (["train.heads=2"], "train.heads is 2 with train.head_only=off"),
        (["train.heads=2", "train.head_only=trained", "student.head=mlp"], "have no mean"),
    ],
)
def test_what_a_head_cannot_be_is_refused(settings, says):
    with pytest.raises(UserError, match=says):
        config(*settings)


def test_images_of_the_pool_are_learnt_from_without_labels(photos, tmp_path):
    rng = np.random.default_rng(3)
    for i in range(5):
        write_image(photos / "pool" / f"{i}.jpg", (30 * i, 90, 200 - 20 * i), rng)
    cached = make_pooled_cache(tmp_path / "cache", photos)
    common = {"cache_dir": cached.path, "data_dir": photos}
    told = run(config(CLOSED, "student.ridge=1", "loss.cap=0"), out=tmp_path / "closed", **common)[
        "closed_form"
    ]
    assert told["images"] == {"train": len(cached.split("train")), "pool": 5}
    summary = run(config("train.head_only=trained", "loss.cap=0"), out=tmp_path / "trained", **common)
    assert summary["status"] == "finished"
    with_captions = run(config("train.head_only=trained"), out=tmp_path / "captions", **common)
    assert with_captions["status"] == "finished"


def test_a_head_that_nothing_judges_is_told_without_numbers():
    closed_form = {"lambda": 1.0, "chosen_by": "given"}
    assert line_of(closed_form, []) == "closed form (lambda 1, given)"
    assert line_of(closed_form | {"id_test_accuracy": 5.0}, []).endswith("given): id_test 5.0%")


@pytest.mark.parametrize(
    ("images", "message"),
    [(1, "no head can be made by ridge from 1 training images"), (2, "2 training images are too few")],
)
def test_too_few_images_for_a_head_by_ridge_are_one_line(tmp_path, images, message):
    rng, photos = np.random.default_rng(0), tmp_path / "photos"
    for i in range(images):
        write_image(photos / "train" / "kiwi" / f"{i}.jpg", (90, 90, 90), rng)
    make_pooled_cache(tmp_path / "cache", photos)
    with pytest.raises(UserError, match=message):
        run(config(CLOSED), cache_dir=tmp_path / "cache", data_dir=photos, out=tmp_path / "run")


def make_pooled_cache(out, photos):
    """A cache of photos with a pool, which has rows like the others'."""
    rng, folder = np.random.default_rng(0), open_data([photos])
    keys = [f"{name}/{image.key}" for name, split in folder.splits.items() for image in split.all()]
    rows = rng.normal(size=(len(keys), EMBED_DIM)).astype("float32")
    texts = ImportedTexts(
        name="labels",
        classes=list(folder.class_names),
        embeddings=rng.normal(size=(len(folder.class_names), EMBED_DIM)),
    )
    captions = rng.normal(size=rows.shape).astype("float32")
    import_embeddings(
        out,
        Imported(
            keys=keys,
            embeddings=rows,
            texts=[texts],
            folder=folder,
            dtype="float32",
            caption_embeddings=captions,
        ),
    )
    return EmbeddingCache.open(out)
