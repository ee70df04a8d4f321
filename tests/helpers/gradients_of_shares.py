"""Run under torchrun: mixed images, losses and gradients from a whole batch, and from shares of it."""

from __future__ import annotations

import copy
import json
import sys

import torch

from cache.runtime.distributed import ranks_of_torchrun
from distill.config import LossConfig
from distill.data.batch import Mix, own_share
from distill.objective import distillation_objective
from distill.student.build import build_student
from distill.train.distributed import average_gradients, gather_rows, share_batch_norms
from distill.train.mixup import mixed_images

BATCH, SIDE = 7, 32


def main(arch: str) -> None:
    torch.manual_seed(0)
    whole = build_student(arch, embed_dim=16, image_size=SIDE).double().train()
    shared = copy.deepcopy(whole)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(BATCH, 3, SIDE, SIDE, generator=generator).double()
    teacher, text = (torch.randn(n, 16, generator=generator).double() for n in (BATCH, 5))
    labels = torch.randint(5, (BATCH,), generator=generator)

    def backward(outputs: torch.Tensor) -> float:
        config = LossConfig(mse=1, im_cst=1, vlalign=1)
        total = distillation_objective(outputs, teacher, text, labels, config)["total"]
        total.backward()
        return total.item()

    mix = Mix(share=0.7, other_B=torch.randperm(BATCH, generator=generator))
    with ranks_of_torchrun() as ranks:
        mine = own_share(BATCH).rows
        images_apart = mixed_images(images[mine], mix)
        images = torch.lerp(images[mix.other_B], images, mix.share)
        mixed = float((images_apart - images[mine]).abs().max())
        expected = backward(whole(images))
        share_batch_norms(shared, torch.device("cpu"))
        loss = backward(gather_rows(shared(images_apart), BATCH))
        average_gradients(shared.parameters())
        wrong = max(
            ((one.grad - other.grad).norm() / (1e-3 + one.grad.norm())).item()
            for one, other in zip(whole.parameters(), shared.parameters(), strict=True)
        )
        statistics = max(
            (
                (one.double() - other.double()).abs().max().item()
                for one, other in zip(whole.buffers(), shared.buffers(), strict=True)
            ),
            default=0.0,  # a ViT has none
        )
        if ranks.is_first:
            found = {"gradients": wrong, "statistics": statistics, "mixed": mixed}
            sys.stdout.write(json.dumps({"losses": [expected, loss], **found}))


if __name__ == "__main__":
    main(sys.argv[1])
