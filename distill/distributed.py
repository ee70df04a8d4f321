"""Training by several processes, one batch in shares: its embeddings gathered, its gradients averaged.

Every process computes the whole batch's losses from everybody's embeddings, gathered with gradients, as
open_clip does; so the contrastive losses see the global batch. Gradients of the same loss from W processes
add up to W times what one process would have, and the average takes that back.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather, all_reduce
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from cache.ranks import current_ranks
from distill.batch import Share


def own_share(total: int) -> Share:
    """Return this process's share of a batch; shares differ by one row at most."""
    ranks = current_ranks()
    return Share.of(total, ranks.rank, ranks.world)


def gather_rows(rows: Tensor, total: int) -> Tensor:
    """Return every process's share one after the other, [b, ...] -> [total, ...], with gradient."""
    world = current_ranks().world
    if world == 1:
        return rows
    shares = [Share.of(total, rank, world) for rank in range(world)]
    sizes = [share.stop - share.start for share in shares]
    padded = torch.cat([rows, rows.new_zeros(max(sizes) - len(rows), *rows.shape[1:])])
    gathered = all_gather(padded.contiguous())
    return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])


def data_parallel(student: nn.Module, device: torch.device) -> nn.Module:
    """Return what a training step calls: the student itself, or with several processes wrapped for them.

    Its batch norms are replaced in place by ones that see the whole batch.
    """
    if current_ranks().world == 1:
        return student
    if device.type == "cuda":
        from timm.layers import convert_sync_batchnorm  # which knows timm's norms with an activation inside

        convert_sync_batchnorm(student)
    else:
        _share_batch_norms(student)
    ids = [device] if device.type == "cuda" else None
    return DistributedDataParallel(student, device_ids=ids, broadcast_buffers=False)


def average_gradients(module: nn.Module) -> None:
    """Average the gradients of what is no part of the student, such as learnt prompts."""
    world = current_ranks().world
    for parameter in module.parameters() if world > 1 else ():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= world


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
        rows = input.float().transpose(0, 1).flatten(1)  # [X, numbers]
        count = all_reduce(rows.new_tensor([rows.shape[1]]))
        mean = all_reduce(rows.sum(dim=1)) / count
        variance = all_reduce((rows - mean[:, None]).square().sum(dim=1)) / count
        self._keep(mean.detach(), (variance * count / (count - 1)).detach())
        shape = [1, -1, *[1] * (input.dim() - 2)]
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight
        out = (input.float() - mean.view(shape)) * scale.view(shape)
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


def _share_batch_norms(module: nn.Module) -> None:
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
            _share_batch_norms(child)
