"""CoOp and CoCoOp: the text path, training through the frozen tower, saving, exporting."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from helpers.processes import python
from helpers.teachers import save_clip

from cache import EmbeddingCache
from cache.build.from_folder import FeatureOptions, cache_features
from cache.maintain.verify import verify_cache
from cache.runtime.errors import UserError
from cache.store.checksums import append_checksum
from cache.teacher.load import load_teacher
from cache.teacher.text_tower import TextTower, save_text_tower
from distill.config import PromptConfig, RunConfig
from distill.judge.open_run import evaluate_run
from distill.objective import distillation_objective
from distill.settings import with_settings
from distill.student.prompts import LearntTexts, PromptLearner, class_words, export_prompts, open_texts
from distill.train.session import open_session
from distill.train.start import train as run

ROOT = Path(__file__).parents[3]
WORDS = "a photo of a"
NAMES = (
    "dog",
    "very small red apple",
    "plum . A plum is a round fruit with a very long description of it all",
)
SMALL = [
    "student.arch=timm:test_resnet", "student.image_size=32", "train.epochs=2", "train.batch_size=6", "train.device=cpu",
    "optim.lr=0.05", "data.workers=0", "loss.mse=1", "loss.vlalign=1", "prompts.n_ctx=3",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "more"),
    [({}, {}), ({}, {"quick_gelu": True}), ({}, {"custom_text": True}), ({"pool_type": "last"}, {}), ({"pool_type": "eos", "eos_id": 49407}, {})],
    ids=["clip", "quick_gelu", "custom_text", "pool_last", "pool_eos"],
)  # fmt: skip
def test_contexts_that_are_real_words_give_open_clips_own_text_embeddings(tmp_path, text, more):
    teacher = load_teacher(f"local-dir:{save_clip(tmp_path / 'clip', text=text, **more)}")
    files = save_text_tower(tmp_path, teacher.text_side().kept())
    tower = TextTower.load(tmp_path, files=files)
    learner = PromptLearner(4, tower.width)
    words = teacher.texts.tokenizer([WORDS])
    with torch.no_grad():
        learner.context.copy_(tower.network.token_embedding(words)[0, 1:5])
        learnt = LearntTexts(tower, learner, {name: name for name in NAMES})
        embeddings = learnt(NAMES, torch.empty(0))
        expected = teacher.images.network.encode_text(
            teacher.texts.tokenizer([f"{WORDS} {name}." for name in NAMES])
        )
    torch.testing.assert_close(embeddings, expected, rtol=1e-5, atol=1e-5)


def test_gradient_reaches_the_contexts_and_nothing_of_the_tower(tmp_path, teacher_dir):
    files = save_text_tower(tmp_path, load_teacher(f"local-dir:{teacher_dir}").text_side().kept())
    tower = TextTower.load(tmp_path, files=files)
    learner = PromptLearner(3, tower.width)
    LearntTexts(tower, learner, {"a": "apple"})(("a",), torch.empty(0)).square().sum().backward()
    assert learner.context.grad is not None
    assert learner.context.grad.abs().max() > 0
    assert all(p.grad is None for p in tower.network.parameters())


def test_contexts_begin_as_small_random_numbers_that_the_seed_decides():
    torch.manual_seed(0)
    one = PromptLearner(64, 512).context
    assert float(one.detach().std()) == pytest.approx(0.02, rel=0.05)
    torch.manual_seed(0)
    assert torch.equal(one, PromptLearner(64, 512).context)


@pytest.fixture
def towered(photos, teacher_dir, tmp_path):
    """A finished cache that keeps its teacher's text tower."""
    options = FeatureOptions(model=f"local-dir:{teacher_dir}", device="cpu", workers=0, keep_text_tower=True)
    cache_features(photos, tmp_path / "towered", options)
    return EmbeddingCache.open(tmp_path / "towered")


@pytest.fixture
def learn(towered, photos, tmp_path):
    """A function that trains a very small student with a learnt prompt."""

    def run_it(out="run", *settings, learner="coop", **options):
        config = with_settings(RunConfig(), [*SMALL, f"prompts.learner={learner}", *settings])
        return run(config, cache_dir=towered.path, data_dir=photos, out=tmp_path / out, **options)

    return run_it


def test_a_finished_cache_gets_its_text_tower_later_and_keeps_its_images(photos, teacher_dir, tmp_path):
    options = FeatureOptions(model=f"local-dir:{teacher_dir}", device="cpu", workers=0)
    cache_features(photos, tmp_path / "cache", options)
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "cache" / "rows").rglob("*.h5")}
    with pytest.raises(UserError, match="--keep-text-tower"):
        TextTower.load(tmp_path, files=EmbeddingCache.open(tmp_path / "cache").text_tower)
    options = FeatureOptions(model=options.model, device="cpu", workers=0, keep_text_tower=True)
    cache_features(photos, tmp_path / "cache", options)
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "cache" / "rows").rglob("*.h5")} == before
    cache = EmbeddingCache.open(tmp_path / "cache")
    assert TextTower.load(cache.path, files=cache.text_tower).width == 16


def test_verify_finds_a_damaged_text_tower_and_the_same_command_mends_it(towered, photos, teacher_dir):
    file = towered.path / "text_tower" / "text.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"oops")
    assert [check.file for check in verify_cache(towered.path) if check.problem] == [
        "text_tower/text.safetensors"
    ]
    options = FeatureOptions(model=f"local-dir:{teacher_dir}", device="cpu", workers=0, keep_text_tower=True)
    cache_features(photos, towered.path, options)
    assert not any(check.problem for check in verify_cache(towered.path))


@torch.no_grad()
@pytest.mark.parametrize("learner", ["coop", "cocoop"])
def test_learnt_texts_replace_the_fixed_ones_in_every_loss(towered, photos, learner):
    config = with_settings(RunConfig(), [*SMALL, f"prompts.learner={learner}"])
    session = open_session(config, cache_dir=towered.path, data_dir=photos)
    batch = session.data.batch(*next(session.data.images([torch.arange(5).numpy()])))
    assert batch.targets[0].neighbours is None
    outputs = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    parts, _ = session.model.losses(outputs, batch)
    learnt = session.model.heads[0].texts(session.model.class_names, outputs)
    assert learnt.dim() == (3 if learner == "cocoop" else 2)
    if learner == "coop":
        expected = distillation_objective(
            outputs, batch.targets[0].teacher_BD, learnt, batch.label_B, config.loss
        )
        assert float(parts["total"]) == pytest.approx(float(expected["total"]), rel=1e-6)
    else:
        alone = [
            distillation_objective(
                outputs[i : i + 1], batch.targets[0].teacher_BD[i : i + 1], learnt[i], batch.label_B[i : i + 1], config.loss
            )
            for i in range(5)
        ]  # fmt: skip
        for name in ("cls", "vlalign", "mse"):
            mean = sum(float(part[name]) for part in alone) / 5
            assert float(parts[name]) == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("settings", [(), ("text=descriptions",)], ids=["labels", "descriptions"])
def test_contexts_are_trained_saved_and_judged_on_id_and_ood_names(learn, towered, tmp_path, settings):
    summary = learn("run", *settings)
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    fresh = open_texts(
        towered, PromptConfig(learner="coop", n_ctx=3), text="labels", seed=0, device=torch.device("cpu")
    )
    assert not torch.allclose(state["prompts"]["context"], fresh.learner.context)
    judged = evaluate_run(tmp_path / "run", device="cpu")
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    for split in ("id_test", "ood_test"):
        assert judged[split].accuracy == pytest.approx(last[f"{split}_accuracy"])
        assert judged[split].loss == pytest.approx(last[f"{split}_loss"], rel=1e-5)
    assert {"id_test", "ood_test"} <= set(summary["space"])


def test_a_resumed_run_learns_the_same_contexts_as_an_uninterrupted_one(learn, tmp_path):
    constant = "optim.schedule=constant"  # which is the same in a run of other epochs
    learn("whole", constant)
    learn("parts", constant, "train.epochs=1")
    for name in ("last.pt", "config.toml"):  # stopped after its first epoch, as a run of two epochs
        file = tmp_path / "parts" / name
        if name == "config.toml":
            file.write_text(file.read_text().replace("epochs = 1", "epochs = 2", 1))
        else:
            state = torch.load(file, weights_only=True)
            state["config"] = state["config"].replace("\nepochs = 1", "\nepochs = 2")
            torch.save(state, file)
            append_checksum(file)
    learn("parts", constant, resume_run=True)
    whole, parts = (
        torch.load(tmp_path / n / "last.pt", weights_only=True)["prompts"] for n in ("whole", "parts")
    )
    torch.testing.assert_close(parts["context"], whole["context"], rtol=0, atol=0)


def test_cocoop_trains_judges_and_shifts_the_context_by_the_image(learn, towered, tmp_path):
    learn("run", learner="cocoop")
    assert "ood_test" in evaluate_run(tmp_path / "run", device="cpu")
    learner = PromptLearner(3, 16, embed_dim=16)
    images = torch.randn(2, 16)
    assert learner(images).shape == (2, 3, 16)
    assert not torch.allclose(learner(images)[0], learner(images)[1])
    torch.testing.assert_close(learner(images), learner(images * 7))
    with pytest.raises(UserError, match="make no bank"):
        export_prompts(tmp_path / "run", towered.path, bank="coop")


def test_what_was_learnt_becomes_a_text_bank_that_other_students_train_on(learn, towered, photos, tmp_path):
    learn("run")
    entry, teacher = export_prompts(tmp_path / "run", towered.path, bank="learnt")
    assert teacher == "main"
    assert export_prompts(tmp_path / "run", towered.path, bank="learnt")[0] == entry
    bank = EmbeddingCache.open(towered.path).text_bank("learnt")
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    texts = open_texts(
        towered, PromptConfig(learner="coop", n_ctx=3), text="labels", seed=0, device=torch.device("cpu")
    )
    texts.learner.load_state_dict(state["prompts"])
    names = ("apple", "plum")
    with torch.no_grad():
        torch.testing.assert_close(
            torch.from_numpy(bank.class_texts(names)), texts(names, torch.empty(0)), rtol=1e-5, atol=1e-5
        )
    assert not any(check.problem for check in verify_cache(towered.path))
    fixed = with_settings(RunConfig(), [*SMALL, "text=learnt"])
    run(fixed, cache_dir=towered.path, data_dir=photos, out=tmp_path / "fixed")
    learn("other", "train.seed=1")
    with pytest.raises(UserError, match="already"):
        export_prompts(tmp_path / "other", towered.path, bank="learnt")
    assert export_prompts(tmp_path / "other", towered.path, bank="learnt", replaces=True)[0] != entry
    with pytest.raises(UserError, match="learnt no prompts"):
        export_prompts(tmp_path / "fixed", towered.path, bank="more")
    with pytest.raises(UserError, match="cannot name a file"):
        export_prompts(tmp_path / "run", towered.path, bank="../x")


def test_what_cannot_be_learnt_is_said(cached, photos, tmp_path, towered):
    coop = with_settings(RunConfig(), [*SMALL, "prompts.learner=coop"])
    with pytest.raises(UserError, match=r"an imported cache has none.*leave --prompts out"):
        run(coop, cache_dir=cached.path, data_dir=photos, out=tmp_path / "x")
    with pytest.raises(UserError, match="at most 12"):
        run(
            with_settings(coop, ["prompts.n_ctx=13"]),
            cache_dir=towered.path,
            data_dir=photos,
            out=tmp_path / "y",
        )
    for wrong in ('teachers=["main","b"]', "train.closed_set=true"):
        with pytest.raises(UserError, match=r"prompts\.learner"):
            with_settings(coop, [wrong])
    assert class_words(towered, "descriptions")["plum"].startswith("plum . ")


def test_no_image_tower_is_built_and_plain_training_never_imports_open_clip(towered, photos, tmp_path):
    code = """
import sys
for name in [name for name in sys.modules if name.partition(".")[0] == "open_clip"]:
    del sys.modules[name]  # of the process that this one is a fork of
from pathlib import Path
import cache.runtime.torchvision_compat
from distill.config import RunConfig
from distill.settings import with_settings
from distill.train.start import train
def run(learner):
    config = with_settings(RunConfig(), [*sys.argv[4:], f"prompts.learner={learner}", "train.epochs=1"])
    train(config, cache_dir=Path(sys.argv[1]), data_dir=Path(sys.argv[2]), out=Path(sys.argv[3]) / learner)
run("none")
assert not [m for m in ("open_clip", "cache.teacher.load") if m in sys.modules]
import open_clip.model
def refuse(*args, **kwargs): raise SystemExit("an image tower was built")
open_clip.model._build_vision_tower = refuse
run("coop")
"""
    arguments = [str(towered.path), str(photos), str(tmp_path), *SMALL]
    done = subprocess.run([*python(), "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
