from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distill.metrics import macro_accuracy, per_class_accuracy


def written_out(logits, labels):
    accuracies = []
    for label in sorted({int(y) for y in labels}):
        mine = [i for i, y in enumerate(labels) if int(y) == label]
        accuracies.append(100 * sum(int(logits[i].argmax()) == label for i in mine) / len(mine))
    return sum(accuracies) / len(accuracies)


@pytest.mark.parametrize("seed", range(5))
def test_macro_accuracy_equals_the_loop_over_classes(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(50, 7, generator=generator)
    labels = torch.randint(5, (50,), generator=generator)  # two classes are never present
    assert macro_accuracy(logits, labels) == pytest.approx(written_out(logits, labels))


def test_a_rare_class_counts_as_much_as_a_frequent_one():
    labels = torch.tensor([0] * 99 + [1])
    always_first = torch.tensor([[1.0, 0.0]]).expand(100, 2)
    assert macro_accuracy(always_first, labels) == 50


def test_a_class_without_images_has_no_accuracy():
    accuracy = per_class_accuracy(torch.eye(3)[:2], torch.tensor([0, 1]), 3)
    assert accuracy[:2].tolist() == [100, 100]
    assert accuracy[2].isnan()


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match="no image"):
        macro_accuracy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))


@pytest.mark.slow
def test_metrics_can_be_the_first_thing_that_is_imported():
    # torchmetrics imports torchvision, which beside a CPU torch only cache.vision can.
    code = "import torch, distill.metrics as m; assert m.macro_accuracy(torch.eye(2), torch.arange(2)) == 100"
    root = str(Path(__file__).parent.parent)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    }
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
