"""Training by several processes, one batch in shares: its embeddings gathered, its gradients averaged.

Every process computes the whole batch's losses from everybody's embeddings, gathered with gradients, as
open_clip does; so the contrastive losses see the global batch. Gradients of the same loss from W processes
add up to W times what one process would have, and the average takes that back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm

from cache.runtime.distributed import current_ranks, lost_ranks
from distill.data.batch import own_share


def gather_rows(rows: Tensor, total: int) -> Tensor:
    """Return every process's share one after the other, [b, ...] -> [total, ...], with gradient.

    It moves twice what an all-gather would, whatever the number of processes (for 4,096 rows of 768 numbers
    half of what the gradients of a ResNet-18 take). That wants shares of one size, and its form with one
    tensor has another name in torch 2.6 than in 2.13.
    """
    if current_ranks().world == 1:
        return rows
    share = own_share(total)  # of uneven sizes: each is put in its place, and added to the others' zeros
    before, after = (
        rows.new_zeros(count, *rows.shape[1:]) for count in (share.start, share.total - share.stop)
    )
    summed: Tensor = _Summed.apply(torch.cat([before, rows, after]))
    return summed


def gather_outputs(outputs: Any, total: int) -> Any:
    """Return what a student gives, a tensor or several of which some are None, of every process's share."""
    if isinstance(outputs, tuple):
        return tuple(gather_rows(rows, total) if rows is not None else None for rows in outputs)
    return gather_rows(outputs, total)


def share_batch_norms(student: nn.Module, device: torch.device) -> None:
    """With several processes, replace a student's batch norms in place by ones that see the whole batch."""
    if current_ranks().world == 1:
        return
    if device.type == "cuda":
        import cache.runtime.torchvision_compat  # noqa: F401  # before timm, which imports it  # isort: skip
        from timm.layers import convert_sync_batchnorm  # which knows timm's norms with an activation inside

        convert_sync_batchnorm(student)
    else:
        _replace_batch_norms(student)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Average the gradients of several processes, in one exchange.

    (DistributedDataParallel would hide some of it behind the backward pass, but its reducer can hang the
    process when the group is taken down, and a student is small.)
    """
    world = current_ranks().world
    gradients = [p.grad for p in parameters if p.grad is not None] if world > 1 else []
    if not gradients:
        return
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    _add_up(flat)
    flat /= world
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def _add_up(tensor: Tensor) -> None:
    """Replace a tensor by the sum of every process's."""
    with lost_ranks():
        dist.all_reduce(tensor)


class _Summed(Function):
    """The sum of every process's tensor.

    (torch.distributed.nn.functional.all_reduce is this, but torch 2.13 has given it up for a private one.)
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        _add_up(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        gradient = gradient.contiguous().clone()
        _add_up(gradient)
        return gradient


class SharedBatchNorm(_BatchNorm):
    """Batch norm over the rows of every process; torch's own SyncBatchNorm knows no CPU."""

    def _check_input_dim(self, input: Tensor) -> None:
        del input  # the batch norm that this replaces took it

    def forward(self, input: Tensor) -> Tensor:
        """Return normalised rows [b, X, ...]; in training by the mean and variance of all processes' rows."""
        out = self._normalised(input) if self.training else super().forward(input)
        for after in self.children():  # timm's norms have an activation inside
            out = after(out)
        return out

    def _normalised(self, input: Tensor) -> Tensor:
        exact = input.to(torch.promote_types(input.dtype, torch.float32))
        rows = exact.transpose(0, 1).flatten(1)  # [X, numbers]
        count = _Summed.apply(rows.new_tensor([rows.shape[1]]))
        mean = _Summed.apply(rows.sum(dim=1)) / count
        variance = _Summed.apply((rows - mean[:, None]).square().sum(dim=1)) / count
        self._keep(mean.detach(), (variance * count / (count - 1)).detach())
        shape = [1, -1, *[1] * (input.dim() - 2)]
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight
        out = (exact - mean.view(shape)) * scale.view(shape)
        if self.affine:
            out = out + self.bias.view(shape)
        return out.to(input.dtype)

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats:
            return
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def _replace_batch_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            shared = SharedBatchNorm(
                child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
            )
            # The very parameters and buffers, because an optimiser may hold them already.
            shared._parameters, shared._buffers = child._parameters, child._buffers
            shared._modules = child._modules
            module.register_module(name, shared.train(child.training))
        else:
            _replace_batch_norms(child)
