"""What a step does beyond forward, backward and the optimiser, each beside a formula of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.runs import SMALL, lines, numbers, weights
from torch._subclasses.fake_tensor import FakeTensorMode

from cache.runtime.devices import widest_float
from cache.runtime.errors import UserError
from distill.config import RunConfig
from distill.judge.evaluate import metrics_of
from distill.judge.open_run import evaluate_run
from distill.metrics import ClassCounts
from distill.settings import with_settings
from distill.student.parts import head_of, trunk_parameters
from distill.train.epoch_sums import EpochSums
from distill.train.run import StudentRun
from distill.train.session import open_session
from distill.train.shared_batches import shared_batches
from distill.train.start import train as run

# No batch norm, no crops, and losses that are means over images: shares of a batch add up to it.
ADDS_UP = (
    "student.arch=timm:test_vit", "data.policy=none", "train.epochs=1", "loss.im_cst=0", "loss.vlalign=0",
    "loss.cap=0", "optim.momentum=0", "optim.weight_decay=0", "optim.schedule=constant", "optim.lr=0.5",
    "train.precision=float32",
)  # fmt: skip


def config(*settings: str) -> RunConfig:
    return with_settings(RunConfig(), [*SMALL, *settings])


@pytest.fixture
def begin(cached, photos, tmp_path):
    """A function that gives a student before its first step."""
    students = []

    def begun(out, *settings):
        session = open_session(config(*settings), cache_dir=cached.path, data_dir=photos)
        students.append(StudentRun(session, tmp_path / out))
        return students[-1]

    yield begun
    for student in students:
        student.folder.close()


@pytest.fixture
def train(cached, photos, tmp_path):
    """A function that trains a very small student and returns its summary."""

    def run_it(out, *settings, **options):
        return run(config(*settings), cache_dir=cached.path, data_dir=photos, out=tmp_path / out, **options)

    return run_it


def state(student_run):
    return {name: value.clone() for name, value in student_run.session.model.student.state_dict().items()}


def after_steps(student_run):
    """Yield the weights after every step of an epoch."""
    student_run.begin_epoch()
    for batch in shared_batches(student_run.session, student_run.position.epoch, first=0):
        student_run.step(batch.of(student_run.session.data))
        yield state(student_run)


def moved(before, after):
    """How far the weights went, as one vector of float64."""
    return torch.cat([(after[name].double() - before[name].double()).flatten() for name in before])


@pytest.mark.parametrize("size", [8, 10])  # the second: of 10, 10 and 4 images
def test_a_step_of_several_batches_is_that_of_one_large_batch(begin, size):
    whole = begin("whole", *ADDS_UP, "train.batch_size=24")
    parts = begin("parts", *ADDS_UP, f"train.batch_size={size}", "optim.accumulate=3")
    start = state(parts)
    (expected,) = after_steps(whole)
    first, second, third = after_steps(parts)
    for name, value in start.items():
        assert torch.equal(first[name], value)
        assert torch.equal(second[name], value)
    torch.testing.assert_close(moved(start, third), moved(start, expected), rtol=1e-3, atol=1e-6)


def test_the_last_batches_of_an_epoch_are_a_step_too(begin):
    student_run = begin("run", *ADDS_UP, "train.batch_size=6", "optim.accumulate=3")
    start, (*_, third, fourth) = state(student_run), list(after_steps(student_run))
    assert not torch.equal(third["head.weight"], start["head.weight"])
    assert not torch.equal(fourth["head.weight"], third["head.weight"])


@pytest.mark.parametrize("scaled", [False, True])
def test_a_gradient_is_cut_to_the_length_asked_for_after_it_was_unscaled(begin, scaled):
    settings = (*ADDS_UP, "train.batch_size=24")
    free, cut = begin("free", *settings), begin("cut", *settings, "optim.clip_norm=0.01")
    scaler = torch.amp.GradScaler(
        "cpu", init_scale=1024.0, enabled=scaled
    )  # a run has one for float16 on a GPU
    cut.session = replace(cut.session, scaler=scaler)
    start = state(free)
    (far,), (near,) = after_steps(free), after_steps(cut)
    assert moved(start, near).norm() == pytest.approx(0.5 * 0.01, rel=1e-3)
    assert moved(start, far).norm() > 0.5 * 0.02
    direction = torch.nn.functional.cosine_similarity(moved(start, near), moved(start, far), dim=0)
    assert direction == pytest.approx(1, abs=1e-3)
    whole = moved(start, far).norm().item() / 0.5  # without momentum a step is the rate times the gradient
    for one in (free, cut):
        assert one.sums.metrics()["grad_norm"] == pytest.approx(whole, rel=1e-4)


def test_the_gradients_norm_of_an_epoch_is_the_mean_of_its_steps(begin):
    student_run = begin("run", *ADDS_UP, "train.batch_size=6", "optim.accumulate=3", "optim.lr=0.1")
    start, (*_, third, fourth) = state(student_run), list(after_steps(student_run))
    norms = [moved(*two).norm().item() / 0.1 for two in ((start, third), (third, fourth))]
    assert norms[0] != pytest.approx(norms[1], rel=0.01)
    assert student_run.sums.metrics()["grad_norm"] == pytest.approx(sum(norms) / 2, rel=1e-4)


def test_a_moving_average_is_that_of_the_weights_and_buffers_after_every_step(begin):
    student_run = begin("run", "optim.ema=0.7")
    average = {}
    for step, after in enumerate(after_steps(student_run), start=1):
        decay = min(0.7, 1 - step ** (-2 / 3))
        for name, value in after.items():
            before = average.get(name, value)
            mean = decay * before + (1 - decay) * value
            average[name] = mean if value.is_floating_point() else value
    last = state(student_run)
    with student_run.session.averages.in_place("ema"):
        ours = state(student_run)
    torch.testing.assert_close(ours, average)
    assert not torch.equal(ours["bn1.running_mean"], last["bn1.running_mean"])
    assert all(torch.equal(value, last[name]) for name, value in state(student_run).items())


def test_means_are_judged_beside_the_weights_which_they_leave_alone(train, tmp_path):
    chosen = ("data.id_val=0.3", "train.precision=float32")
    plain = train("plain", *chosen)
    summary = train("run", *chosen, "optim.ema=0.9", "optim.average_with_start=0.25")
    history = lines(tmp_path / "run")
    raw = [{k: v for k, v in line.items() if not k.startswith("ema_")} for line in numbers(tmp_path / "run")]
    assert raw == numbers(tmp_path / "plain")
    assert summary["ood_test_accuracy"] == plain["ood_test_accuracy"]
    for name in ("id_val_accuracy", "ood_test_accuracy", "all_harmonic_mean", "id_ood_auroc"):
        mean = sum(line[f"ema_{name}"] for line in history) / len(history)
        assert summary[f"ema_{name}"] == pytest.approx(mean)
    ema = metrics_of(evaluate_run(tmp_path / "run", checkpoint="ema", device="cpu"))
    assert {name: history[-1][f"ema_{name}"] for name in ema} == pytest.approx(ema, rel=1e-5)
    averaged = metrics_of(evaluate_run(tmp_path / "run", checkpoint="averaged", device="cpu"))
    assert {name: summary[f"averaged_{name}"] for name in averaged} == pytest.approx(averaged, rel=1e-5)
    best = torch.load(tmp_path / "run" / "best.pt", weights_only=True)["position"]["best_id_val"]
    assert best == max(line[f"{mean}id_val_accuracy"] for line in history for mean in ("", "ema_"))
    judged = evaluate_run(tmp_path / "run", splits=["id_val"], checkpoint="best", device="cpu")
    assert judged["id_val"].accuracy == pytest.approx(best)


def test_the_mean_of_both_models_is_that_of_the_first_and_the_last_weights(begin, train, tmp_path):
    start = state(begin("start"))
    train("run", "train.epochs=1", "optim.average_with_start=0.25")
    last = weights(tmp_path / "run")
    mean = torch.load(tmp_path / "run" / "averaged.pt", weights_only=True)["student"]
    for name, value in mean.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.25 * start[name] + 0.75 * last[name])


def test_a_frozen_trunk_stands_still_with_its_statistics_and_then_moves(begin):
    student_run = begin("run", "student.freeze_epochs=1", "optim.decay_all=true")
    student = student_run.session.model.student
    head = {f"fc.{name}" for name, _ in head_of(student).named_parameters()}
    start, (*_, first) = state(student_run), list(after_steps(student_run))
    assert {name for name in start if not torch.equal(start[name], first[name])} == head
    student_run.position.epoch, student_run.position.step = 1, 0
    *_, second = after_steps(student_run)
    still = {name for name in start if torch.equal(first[name], second[name])}
    assert still == set()
    assert all(parameter.requires_grad for parameter in trunk_parameters(student))


def test_frozen_batch_norms_keep_their_statistics_and_learn_scale_and_shift(begin):
    student_run = begin("run", "student.freeze_batch_norm=true")
    start, (*_, last) = state(student_run), list(after_steps(student_run))
    still = {name for name in start if torch.equal(start[name], last[name])}
    assert still == {name for name, _ in student_run.session.model.student.named_buffers()}
    assert "bn1.weight" not in still


def test_of_a_network_without_batch_norms_there_is_nothing_to_freeze(begin):
    student_run = begin("run", "student.arch=timm:test_vit", "student.freeze_batch_norm=true")
    start, (*_, last) = state(student_run), list(after_steps(student_run))
    norms = [name for name in start if name.endswith("norm1.weight")]
    assert norms
    assert all(not torch.equal(start[name], last[name]) for name in norms)


def test_an_unknown_optimiser_is_told_before_anything_is_read(tmp_path):
    with pytest.raises(UserError, match="did you mean 'lion'"):
        run(config("optim.name=lino"), cache_dir=tmp_path / "none", data_dir=None, out=tmp_path / "run")


def test_an_epochs_sums_on_apples_gpu_are_in_float32():
    mps = torch.device("mps")
    with FakeTensorMode():
        zeros = torch.zeros(3, dtype=widest_float(mps), device=mps)
        sums = EpochSums(counts=ClassCounts(right_C=zeros, seen_C=zeros.clone()))
        labels = torch.zeros(4, dtype=torch.int64, device=mps)
        sums.add({"total": torch.zeros((), device=mps)}, torch.zeros(4, 3, device=mps), labels)
    assert (sums.counts.seen_C.dtype, sums.losses["total"].dtype) == (torch.float32, torch.float32)
