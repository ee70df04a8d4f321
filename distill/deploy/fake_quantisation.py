"""What onnxruntime's 8 bits do to a student's numbers, in torch and with gradients.

Quantise and dequantise stand where :func:`distill.deploy.int8_file.write_int8` has them put: weights of
convolutions and linear layers by output channel, symmetric; every tensor that goes into or out of such an
operator in eight bits, from its least to its largest value. Rounding passes gradients on as if it were not
there (the straight-through estimator, Bengio et al. 2013; Jacob et al. 2018).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from distill.deploy.int8_file import WEIGHT_MOST, weight_steps

ACTIVATION_MOST = 255
# How much of a range is the newest batch's, as in torch's MovingAverageMinMaxObserver.
NEWEST = 0.01


def _ops(*names: str) -> frozenset[Any]:
    packets = (getattr(torch.ops.aten, name) for name in names)
    return frozenset(getattr(packet, overload) for packet in packets for overload in packet.overloads())


CONVOLUTIONS = _ops("conv1d", "conv2d", "conv3d")
WEIGHTED = CONVOLUTIONS | _ops("linear")
NORMS = _ops("batch_norm")
# Taken into the operator before them: its own range is not asked for.
REMOVED = _ops("relu", "relu_", "hardtanh", "hardtanh_", "relu6", "relu6_", "clamp", "clamp_")
QUANTISED = WEIGHTED | NORMS | _ops("matmul", "max_pool2d")
GROUPS = 6  # of a convolution's arguments, the place of its groups


def rounded_weight(weight: Tensor, *, depthwise: bool = False) -> Tensor:
    """Return a weight [C, ...] as 8 bits by channel hold it."""
    steps = weight_steps(weight, depthwise=depthwise)
    zero = torch.zeros_like(steps, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, steps, zero, 0, -WEIGHT_MOST, WEIGHT_MOST)


def rounded(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return values as 8 bits from ``low`` to ``high`` hold them; 0 is always among them."""
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / ACTIVATION_MOST
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    zero = torch.round(-low / scale).clamp(0, ACTIVATION_MOST).to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, ACTIVATION_MOST)


def quantised_nodes(nodes: Iterable[Node]) -> frozenset[str]:
    """Return the names of the nodes of an aten graph whose values 8 bits hold."""
    names: set[str] = set()
    for node in nodes:
        if node.target in QUANTISED:
            names |= {own.name for own in _activations(node)}
            if not _goes_on(node):
                names.add(node.name)
        elif node.target in REMOVED and node.all_input_nodes[0].target in QUANTISED:
            names.add(node.name)
    return frozenset(names)


def _activations(node: Node) -> list[Node]:
    taken = node.args[:1] if node.target in WEIGHTED | NORMS else node.args
    inputs = [one for own in taken for one in (own if isinstance(own, (list, tuple)) else [own])]
    return [own for own in inputs if isinstance(own, Node) and own.op != "get_attr" and not _goes_on(own)]


def _goes_on(node: Node) -> bool:
    """Say whether a node is one operator with the only one that reads it."""
    users = [*node.users]
    if len(users) != 1 or node.target not in QUANTISED:
        return False
    return users[0].target in REMOVED or (node.target in WEIGHTED and users[0].target in NORMS)


class FakeQuantised(nn.Module):
    """An aten graph of torch.export, [B, 3, S, S] -> [B, D], that computes as its int8 file would.

    While it is ``observing`` it computes in float32 and notes the least and the largest value of each tensor;
    afterwards, while it is ``following``, these go slowly to those of the batches. Parameters are the graph's
    own, which knows no training mode.
    """

    def __init__(self, graph: GraphModule) -> None:
        super().__init__()
        self.graph = graph
        self.names = quantised_nodes(graph.graph.nodes)
        self.ranges: dict[str, tuple[Tensor, Tensor]] = {}
        self.observing = self.following = False

    def forward(self, images: Tensor) -> Tensor:
        """Return what the graph gives."""
        outputs: Any = _Run(self).run(images)
        return outputs if isinstance(outputs, Tensor) else outputs[0]

    def held(self, name: str, values: Tensor) -> Tensor:
        """Return a tensor as 8 bits hold it."""
        low, high = values.detach().aminmax()
        if name in self.ranges:
            was_low, was_high = self.ranges[name]
            if self.observing:
                low, high = torch.minimum(low, was_low), torch.maximum(high, was_high)
            else:
                share = NEWEST if self.following else 0.0
                low, high = was_low.lerp(low, share), was_high.lerp(high, share)
        self.ranges[name] = low, high
        return values if self.observing else rounded(values, low, high)


class _Run(Interpreter):
    """One pass through the graph."""

    def __init__(self, of: FakeQuantised) -> None:
        super().__init__(of.graph)
        self.of = of

    def run_node(self, node: Node) -> Any:
        """Return a node's value, as 8 bits hold it where they do."""
        value = self._computed(node)
        return self.of.held(node.name, value) if node.name in self.of.names else value

    def _computed(self, node: Node) -> Any:
        if node.target in WEIGHTED and not self.of.observing:
            (values, weight, *more), named = self.fetch_args_kwargs_from_env(node)
            groups = node.args[GROUPS] if len(node.args) > GROUPS else 1
            of_one = weight.shape[1] == 1 and groups == len(weight)
            held = rounded_weight(weight, depthwise=bool(node.target in CONVOLUTIONS and of_one))
            return self.call_function(node.target, (values, held, *more), named)
        return super().run_node(node)
