"""Small runs: their settings and commands, what they leave behind, and a stop in the midst of one."""

from __future__ import annotations

import json
import signal

from conftest import Counted

SMALL = [
    "student.arch=timm:test_resnet", "student.image_size=32", "train.epochs=3", "train.batch_size=6", "train.device=cpu",
    "optim.lr=0.01", "data.workers=0", "loss.mse=1", "loss.im_cst=1", "loss.vlalign=1", "loss.cap=1",
]  # fmt: skip
EPISODES_SMALL = [
    "student.arch=timm:test_resnet", "student.image_size=32", "train.epochs=2", "train.batch_size=6", "train.device=cpu",
    "optim.lr=0.01", "data.workers=0", "data.policy=flip", "loss.mse=1", "loss.im_cst=1",
]  # fmt: skip
# What a recipe is given for a run of three steps.
ONE_EPOCH = [
    "train.epochs=1", "train.batch_size=8", "train.device=cpu", "student.arch=timm:test_resnet",
    "student.image_size=32", "data.workers=0",
]  # fmt: skip
# The beginning of a sweep file.
BASE = """
[base]
student.arch = "timm:test_resnet"
student.image_size = 32
train.epochs = 2
train.batch_size = 6
train.device = "cpu"
optim.lr = 0.01
data.workers = 0
"""
EPOCHS = 2
# What every run leaves, the events of TensorBoard by their beginning.
RUN_FILES = {"config.toml", "metrics.jsonl", "metrics.csv", "events", "curves.png", "summary.json", "last.pt"}


def lines(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def numbers(run_dir):
    """A run's metrics without its speed."""
    return [{k: v for k, v in line.items() if k != "images_per_s"} for line in lines(run_dir)]


def files_of_run(run_dir):
    return {path.name.split(".")[0] if "tfevents" in path.name else path.name for path in run_dir.iterdir()}


def weights(run_dir):
    import torch

    return torch.load(run_dir / "last.pt", weights_only=True)["student"]


def same_run(cut, whole):
    """Everything that a run leaves is that of a run that was never stopped."""
    assert numbers(cut) == numbers(whole)  # the same steps on the same machine: to the last bit
    for name, value in weights(cut).items():
        assert value.equal(weights(whole)[name]), name
    one, other = (json.loads((run / "summary.json").read_text()) for run in (cut, whole))
    for name in ("space", "per_class_accuracy", "teacher_accuracy", "ood_test_accuracy"):
        assert one[name] == other[name], name
    assert (cut / "outputs.npz").exists()


def words_of(command, cached, photos, out, *settings):
    """The words of a small run whose images are decoded anew, one evaluation batch an image."""
    chosen = (*SMALL, f"train.epochs={EPOCHS}", "train.eval_batch_size=1", "data.memory_mb=0", *settings)
    words = [command, cached.path, "--data", photos, "--out", out]
    words += ["--recipe", "paper-resnet18"] if command == "train" else []
    return [str(w) for w in words] + [word for setting in chosen for word in ("--set", setting)]


def stage_2(photos, cache, out, *settings):
    words = [
        "student.image_size=32",
        "data.workers=0",
        "train.device=cpu",
        "train.precision=float32",
        "loss.mse=1",
    ]
    words += ["loss.im_cst=1", "loss.vlalign=1", "loss.cap=1", "optim.lr=0.0003", *settings]
    command = ["train", cache, "--data", photos, "--out", out, "--recipe", "paper-resnet18", "--json"]
    return [str(word) for word in command] + [word for setting in words for word in ("--set", setting)]


class StopAt(Counted):
    """Asks for a stop once so many images were seen, as Ctrl-C would."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.left = images

    def advance(self, images: int) -> None:
        super().advance(images)
        self.left -= images
        if self.left <= 0:
            self.left = 10**9
            signal.raise_signal(signal.SIGTERM)
