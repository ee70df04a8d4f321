"""An ONNX graph in 8 bits, which gives the same numbers in onnxruntime and in a browser.

Convolutions and products of matrices are of whole numbers, all between them is float32. Weights are
symmetric, by output channel. Processors without VNNI add two products in 16 bits (x86's pmaddubsw):
neighbours among a channel's weights are small enough together not to overflow there. That costs less than a
seventh bit for all of them would, and of depthwise convolutions, which are not computed so, nothing. Sums of
two maps are written as ONNX's Sum: a quantised Add rounds once where a processor has FMA, and twice where it
has none, as in a browser; a number that falls on another level moves all after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from distill.deploy.onnx_files import import_parts, quiet

WEIGHT_MOST = 127
LEAST_STEP = 1e-12
# Relu and its like are taken into the operator before them.
WEIGHTED = ("Conv", "Gemm", "MatMul")
QUANTISED = (*WEIGHTED, "Relu", "Clip", "MaxPool")


def weight_steps(weight: Tensor, *, depthwise: bool = False) -> Tensor:
    """Return the steps [C] of 8 bits of a weight [C, I, ...], with which two products never overflow.

    Neighbours are those in the order in which runtimes multiply: the inputs of one position, then the next.
    """
    rows = weight.detach().abs().movedim(1, -1).flatten(1)
    if not depthwise:
        rows = pad(rows, (0, rows.shape[1] % 2)).unflatten(1, (-1, 2)).sum(dim=2)
    return (rows.amax(dim=1) / WEIGHT_MOST).clamp(min=LEAST_STEP)


def write_int8(path: Path, source: Path, batches: Iterable[NDArray[np.float32]]) -> None:
    """Write a float32 graph with 8-bit weights and activations, whose ranges ``batches`` of images decide.

    onnxruntime's static quantisation (QDQ); weights by :func:`weight_steps`.
    """
    onnx = import_parts()
    with quiet():
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Images(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self.left: Iterator[NDArray[np.float32]] = iter(batches)

            def get_next(self) -> dict[str, Any] | None:
                batch = next(self.left, None)
                return None if batch is None else {"image": batch}

        prepared = path.with_suffix(".prepared.onnx")
        try:
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            graph = onnx.load(str(prepared))
            _with_sums(graph)
            onnx.save(graph, str(prepared))
            quantize_static(
                str(prepared),
                str(path),
                Images(),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=list(QUANTISED),
                extra_options={"TensorQuantOverrides": _ranges_of_weights(onnx, graph, QuantType.QInt8)},
            )
        finally:
            prepared.unlink(missing_ok=True)


def _with_sums(graph: Any) -> None:
    """Make every Add of two activations a Sum, which is the same and which no runtime quantises."""
    constant = {one.name for one in graph.graph.initializer}
    for node in graph.graph.node:
        if node.op_type == "Add" and not constant & {*node.input}:
            node.op_type = "Sum"


def _ranges_of_weights(onnx: Any, graph: Any, kind: Any) -> dict[str, list[dict[str, Any]]]:
    """Return the ranges by channel of a graph's weights, as onnxruntime is told them."""
    constant = {one.name: one for one in graph.graph.initializer}
    ranges: dict[str, list[dict[str, Any]]] = {}
    for node in graph.graph.node:
        if node.op_type not in WEIGHTED or node.input[1] not in constant:
            continue
        weight = torch.from_numpy(onnx.numpy_helper.to_array(constant[node.input[1]]).copy())
        number = {one.name: one.i for one in node.attribute}
        channels_first = node.op_type == "Conv" or bool(number.get("transB"))
        if not channels_first and weight.ndim != 2:
            continue  # a product of maps, by no channel
        depthwise = node.op_type == "Conv" and weight.shape[1] == 1 and number.get("group") == len(weight)
        steps = weight_steps(weight if channels_first else weight.T, depthwise=depthwise)
        ranges[node.input[1]] = [
            {
                "axis": 0 if channels_first else 1,
                "quant_type": kind,
                "symmetric": True,
                "reduce_range": False,
                "rmin": np.float32(-WEIGHT_MOST * step),
                "rmax": np.float32(WEIGHT_MOST * step),
            }
            for step in steps.tolist()
        ]
    return ranges
