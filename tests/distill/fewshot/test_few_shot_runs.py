"""Few-shot on trained runs: finetuning through the same loop, retrieval from the cache, the command's table."""

from __future__ import annotations

import json
import statistics

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from conftest import Counted, make_cache, make_photos
from helpers.runs import SMALL as RUN

import cli
from cache.runtime.errors import UserError
from cache.runtime.progress import Silent
from distill.config import FewShotConfig, RunConfig
from distill.data.training_data import BatchColumns
from distill.fewshot.finetune import finetune_config
from distill.fewshot.retrieval import Retrieval
from distill.fewshot.run import FewShotOptions, few_shot
from distill.judge.evaluate import both_kinds
from distill.judge.open_run import evaluate_run
from distill.objective import nearest_texts
from distill.settings import with_settings
from distill.train.session import open_session
from distill.train.start import train as run

SMALL = [*RUN, "train.epochs=1", "loss.vlalign_k=3"]


QUICK = ("train.epochs=2",)


@pytest.fixture
def trained(cached, photos, tmp_path):
    """A function that trains a very small student and returns its folder."""

    def train(name="run", *settings, cache=cached.path):
        run(
            with_settings(RunConfig(), [*SMALL, *settings]),
            cache_dir=cache,
            data_dir=photos,
            out=tmp_path / name,
        )
        return tmp_path / name

    return train


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run of such a student, to be read."""
    root = tmp_path_factory.mktemp("source")
    photos = make_photos(root / "photos")
    cached = make_cache(root / "cache", photos, captions=True)
    run(with_settings(RunConfig(), SMALL), cache_dir=cached.path, data_dir=photos, out=root / "run")
    return root / "run"


@pytest.fixture(scope="module")
def finetuned(source, tmp_path_factory):
    """A folder with a one-shot finetuning of ``source``, and its results; to be read."""
    out = tmp_path_factory.mktemp("finetuned") / "out"
    return out, few_shot(source, out, FewShotOptions(shots=(1,), settings=QUICK))


def session_of(source, cached, photos, *settings):
    """The session of a one-shot finetuning of a run."""
    config = finetune_config(
        with_settings(RunConfig(), [*SMALL, *settings]),
        start=source / "last.pt",
        support=FewShotConfig(shots=1),
    )
    return open_session(config, cache_dir=cached.path, data_dir=photos)


def test_finetuning_starts_from_the_run_with_its_support_after_the_training_images(source, cached, photos):
    session = session_of(source, cached, photos)
    assert session.model.class_names == ("apple", "banana", "cherry", "lemon", "plum")
    assert [image.key for image in session.data.joined.images[-2:]] == ["lemon/val_0.jpg", "plum/val_0.jpg"]
    assert session.data.joined.rows.labels[-2:].tolist() == [3, 4]
    query = {image.key for image in session.splits["ood_query"].pixels.samples}
    assert query == {f"{name}/val_{i}.jpg" for name in ("lemon", "plum") for i in (1, 2)}
    assert "ood_test" not in session.splits
    state = torch.load(source / "last.pt", weights_only=True)["student"]
    for name, value in session.model.student.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)
    assert not session.optimizer.state_dict()["state"]
    config = session.config
    assert (config.train.epochs, config.optim.schedule, config.optim.lr) == (20, "onecycle", 1e-3)
    adamw = finetune_config(
        with_settings(RunConfig(), ["optim.name=adamw", "student.head_start=closed-form"]),
        start=source,
        support=config.fewshot,
    )
    assert (adamw.optim.lr, adamw.student.head_start) == (2e-4, "random")


def test_neighbours_are_those_of_the_joined_class_list(source, cached, photos):
    session = session_of(source, cached, photos)
    keys = [image.key for image in session.data.joined.images]
    everything = np.arange(len(keys))
    targets = session.data.teachers[0].targets(BatchColumns(everything, torch.device("cpu")))
    assert targets.neighbours is None  # a step takes them from its texts, which are those of all classes
    with torch.no_grad():
        given = session.model.heads[0].texts(session.model.class_names, targets.teacher_BD)
    nearest, similarity = nearest_texts(F.normalize(targets.teacher_BD, dim=1), F.normalize(given, dim=1), 3)
    text = cached.text_bank("labels").class_texts(session.model.class_names).astype(np.float64)
    unit_text = text / np.linalg.norm(text, axis=1, keepdims=True)
    for i, key in enumerate(keys):
        rows = cached.split("ood_test" if key.startswith(("lemon", "plum")) else "train")
        row = np.asarray(rows.embeddings[rows.position[key]], dtype=np.float64)
        assert torch.equal(targets.teacher_BD[i], torch.from_numpy(row).float())
        cosines = unit_text @ (row / np.linalg.norm(row))
        assert nearest[i].tolist() == np.argsort(-cosines)[:3].tolist()
        np.testing.assert_allclose(similarity[i], np.sort(cosines)[::-1][:3], rtol=1e-5)


def test_draws_are_reported_as_mean_and_deviation_with_a_plot(source, tmp_path):
    options = FewShotOptions(shots=(2, 1), support_seeds=(0, 1), settings=QUICK)
    progress = Counted()
    results = few_shot(source, tmp_path / "out", options, progress=progress)
    assert progress.works.count("training") == 4
    assert progress.done == progress.totals
    assert [row["shots"] for row in results["table"]] == [1, 2]
    for row in results["table"]:
        draws = [d for d in results["draws"] if d["shots"] == row["shots"]]
        assert [d["support_seed"] for d in draws] == [0, 1]
        for name in ("before", "ood_query", "id_test"):
            assert row[name] == pytest.approx(statistics.fmean(d[name] for d in draws))
            assert row[f"{name}_std"] == pytest.approx(statistics.stdev(d[name] for d in draws))
        assert {d["support_images"] for d in draws} == {2 * row["shots"]}
        assert {d["query_images"] for d in draws} == {6 - 2 * row["shots"]}
    assert json.loads((tmp_path / "out" / "fewshot.json").read_text()) == json.loads(json.dumps(results))
    assert (tmp_path / "out" / "fewshot.png").read_bytes().startswith(b"\x89PNG")
    before = (tmp_path / "out" / "shots-1-seed-0" / "last.pt").stat().st_mtime_ns
    again = few_shot(source, tmp_path / "out", options)
    assert again["table"] == results["table"]
    assert (tmp_path / "out" / "shots-1-seed-0" / "last.pt").stat().st_mtime_ns == before


def test_a_few_shot_run_is_judged_on_the_query_alone(source, finetuned, tmp_path):
    out, results = finetuned
    folder = out / "shots-1"
    judged = evaluate_run(folder, device="cpu")
    assert set(judged) == {"id_test", "ood_query"}
    assert judged["ood_query"].images == 4
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert judged["ood_query"].accuracy == pytest.approx(last["ood_query_accuracy"])
    assert judged["ood_query"].among_all.accuracy == pytest.approx(last["ood_query_all_accuracy"])
    assert both_kinds(judged)["id_ood_auroc"] == pytest.approx(last["id_ood_auroc"])
    assert results["draws"][0]["ood_query"] == pytest.approx(
        statistics.fmean(
            json.loads(line)["ood_query_accuracy"]
            for line in (folder / "metrics.jsonl").read_text().splitlines()
        )
    )
    with pytest.raises(UserError, match="ood_query"):
        evaluate_run(folder, splits=["ood_test"], device="cpu")
    with pytest.raises(UserError, match="few-shot run itself"):
        few_shot(folder, tmp_path / "more", FewShotOptions())
    with pytest.raises(UserError, match="few-shot run's"):
        evaluate_run(source, splits=["ood_query"], device="cpu")


def test_an_interrupted_finetuning_goes_on_to_the_same_numbers(source, finetuned, tmp_path, cached, photos):
    uninterrupted, whole = finetuned
    support = FewShotConfig(shots=1)
    config = finetune_config(
        with_settings(RunConfig(), SMALL),
        start=(source / "last.pt").resolve(),
        support=support,
        settings=QUICK,
    )
    # Stopped after its first epoch: a checkpoint, and no summary.
    session_out = tmp_path / "parts" / "shots-1"
    code_stop_after_first_epoch(config, cached, photos, session_out)
    parts = few_shot(source, tmp_path / "parts", FewShotOptions(shots=(1,), settings=QUICK))
    assert parts["draws"][0]["ood_query"] == whole["draws"][0]["ood_query"]
    one, other = (
        torch.load(out / "shots-1" / "last.pt", weights_only=True)
        for out in (uninterrupted, tmp_path / "parts")
    )
    for name, value in one["student"].items():
        torch.testing.assert_close(value, other["student"][name], rtol=0, atol=0)


def code_stop_after_first_epoch(config, cached, photos, out):
    """Train until the first epoch is noted, then stop as Ctrl-C does."""
    import os
    import signal

    from distill.train.stopping import Stopped

    class StopAtFirstNote(Silent):
        def note(self, message):
            if message.startswith("epoch 1/"):
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped):
        run(config, cache_dir=cached.path, data_dir=photos, out=out, progress=StopAtFirstNote())


def test_a_closed_set_baseline_can_be_finetuned_and_not_retrieved_with(trained, tmp_path):
    source = trained("baseline", "train.closed_set=true")
    assert few_shot(source, tmp_path / "a", FewShotOptions(shots=(1,), settings=QUICK))["draws"]
    with pytest.raises(UserError, match="closed-set student"):
        few_shot(source, tmp_path / "b", FewShotOptions(shots=(1,), method="retrieval"))


def test_captions_of_the_support_are_needed_where_captions_are_on(trained, tmp_path, photos):
    plain = make_cache(tmp_path / "plain", photos, captions=False)
    source = trained("plain-run", "loss.cap=0", cache=plain.path)
    options = FewShotOptions(shots=(1,), settings=(*QUICK, "loss.cap=1"))
    with pytest.raises(UserError, match="no captions of the training and the OOD images"):
        few_shot(source, tmp_path / "out", options)


def test_a_cache_without_views_names_the_command_and_one_view_needs_none(source, tmp_path):
    with pytest.raises(UserError, match=r"--support-views 10.*--support-views 1"):
        few_shot(source, tmp_path / "a", FewShotOptions(shots=(1,), method="retrieval"))
    plain = FewShotOptions(shots=(1,), method="retrieval", retrieval=Retrieval(support_views=1))
    assert few_shot(source, tmp_path / "b", plain)["draws"]
    words = ["--shots", "1", "--device", "cpu", "--out", str(tmp_path / "c"), "--method", "project,retrieval"]
    done = CliRunner().invoke(cli.main, ["fewshot", str(source), *words])
    assert (done.exit_code, (tmp_path / "c").exists()) == (1, False), done.output


def test_too_many_shots_are_refused_before_anything_is_trained(source, tmp_path):
    with pytest.raises(UserError, match="'lemon' has 3 images, so 3 shots"):
        few_shot(source, tmp_path / "out", FewShotOptions(shots=(1, 3)))
    assert not (tmp_path / "out").exists()
