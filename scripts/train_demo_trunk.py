"""Trains the small trunk that ships with `distill demo`, on drawn classes that are none of the demo's.

    python scripts/train_demo_trunk.py --out distill/demo/trunk.safetensors

It plays the part of weights pretrained on ImageNet: 512 classes of other patterns, colours and shapes, from
their labels alone, with no teacher. A picture's three words are told apart by a third of the last layer each,
which is then left out. Prints how often all three are right on pictures of other seeds.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from cache.runtime.atomic_files import replacing
from distill.demo.others import OTHER_CLASSES, OTHERS
from distill.demo.run import RECIPE
from distill.demo.scenes import draw_scene
from distill.settings import load_recipe
from distill.student.build import build_student

STUDENT = load_recipe(str(RECIPE)).student
MEAN = STD = (0.5, 0.5, 0.5)
KINDS = (list(OTHERS.patterns), list(OTHERS.colours), list(OTHERS.shapes))
WORDS = torch.tensor(
    [[kind.index(word) for kind, word in zip(KINDS, one.name.split(), strict=True)] for one in OTHER_CLASSES]
)
# Away from every seed a person would give `distill demo`.
TRAINING_SEED, TEST_SEED = 20_000_003, 20_000_033
BATCH, RATE, DECAY, WARMUP, SHIFT = 128, 3e-3, 0.05, 0.15, 6
PROVENANCE = "drawn pictures of distill.demo.others, by scripts/train_demo_trunk.py; no teacher, no photos"


def draw(per_class: int, seed: int) -> NDArray[np.uint8]:
    """Return pictures [C, per_class, S, S, 3] of the other classes."""
    size = STUDENT.image_size
    pictures = np.empty((len(OTHER_CLASSES), per_class, size, size, 3), dtype=np.uint8)
    for number, one in enumerate(OTHER_CLASSES):
        rng = np.random.default_rng([seed, number])
        for index in range(per_class):
            pictures[number, index] = draw_scene(one, rng, image_size=size, kinds=OTHERS).pixels
    return pictures


def as_input(pictures: NDArray[np.uint8]) -> Tensor:
    """Return pictures [B, S, S, 3] as the trunk takes them."""
    images = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return images.contiguous(memory_format=torch.channels_last)


def scores_of(trunk: nn.Module, images: Tensor) -> Tensor:
    """Return logits [B, 3, W], a third for each of a picture's words."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = trunk(images)
    return scores.float().unflatten(1, (len(KINDS), -1))


def train(trunk: nn.Module, pictures: NDArray[np.uint8], steps: int, seed: int) -> None:
    """Train in place, on pictures of classes drawn at random, flipped and shifted."""
    began, rng = time.time(), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(trunk.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=RATE, total_steps=steps, pct_start=WARMUP
    )
    for step in range(steps):
        classes = rng.integers(len(pictures), size=BATCH)
        batch = pictures[classes, rng.integers(pictures.shape[1], size=BATCH)]
        flipped = rng.random(BATCH) < 0.5
        batch[flipped] = batch[flipped, :, ::-1]
        batch = np.roll(batch, rng.integers(-SHIFT, SHIFT + 1, size=2), axis=(1, 2))
        words = WORDS[torch.from_numpy(classes)]
        scores = scores_of(trunk, as_input(batch))
        loss = F.cross_entropy(scores.flatten(0, 1), words.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            right, seconds = (scores.argmax(2) == words).all(1).float().mean(), time.time() - began
            print(f"step {step}/{steps}  loss {loss:.3f}  right {right:.0%}  {seconds:.0f} s", flush=True)


@torch.no_grad()
def judge(trunk: nn.Module, pictures: NDArray[np.uint8]) -> float:
    """Return how often all three words are right, percent."""
    trunk.eval()
    right = [
        (scores_of(trunk, as_input(one)).argmax(2) == words).all(1).float().mean()
        for one, words in zip(pictures, WORDS, strict=True)
    ]
    return 100 * float(torch.stack(right).mean())


def save(trunk: Any, out: Path, made: str) -> None:
    """Write the weights without the last layer, 16 bits each, with what they are of."""
    trunk.reset_classifier(0)
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in trunk.state_dict().items()
    }
    about = {
        "arch": STUDENT.arch,
        "input": json.dumps({"mean": MEAN, "std": STD}),
        "license": "MIT",
        "trained_on": PROVENANCE,
        "command": made,
    }
    with replacing(out) as temporary:
        save_file(state, temporary, metadata=about)


def main() -> None:
    """Parse, draw, train, judge, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--per-class", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)  # so that sums are the same on every machine
    began = time.time()
    outputs = sum(len(kind) for kind in KINDS)
    trunk = build_student(STUDENT.arch, embed_dim=outputs, image_size=STUDENT.image_size)
    trunk = trunk.to(memory_format=torch.channels_last)
    train(trunk.train(), draw(args.per_class, TRAINING_SEED), args.steps, args.seed)
    print(f"all three words right: {judge(trunk, draw(2, TEST_SEED)):.1f}%, {time.time() - began:.0f} s")
    made = f"--steps {args.steps} --per-class {args.per_class} --seed {args.seed}"
    save(trunk, args.out, f"train_demo_trunk.py {made}")
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
