"""The graphs: a student as ONNX in float32, float16 and int8, preprocessing inside where asked for."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cache.errors import UserError, missing_package
from distill.deploy.info import GRAPH, Preprocessing

# The newest whose graphs onnxruntime's quantisation and float16 converter both take; Resize has had
# antialiasing, Pillow's, since 18.
OPSET = 18
EXAMPLE_IMAGES = 2  # one would be taken for a fixed size


class UnitEmbedding(nn.Module):
    """A student, of whose outputs some columns are the embedding: images [B, 3, S, S] -> unit rows [B, D]."""

    def __init__(self, student: nn.Module, columns: slice) -> None:
        super().__init__()
        self.student, self.start, self.stop = student, columns.start, columns.stop

    def forward(self, image: Tensor) -> Tensor:
        """Return unit embeddings [B, D] float32."""
        return F.normalize(self.student(image)[:, self.start : self.stop].float(), dim=1)


def traced(embedding: UnitEmbedding, image_size: int) -> torch.export.ExportedProgram:
    """Return an embedding as a program of torch.export, with any number of images.

    Raises
    ------
    UserError
        If torch.export cannot follow the student.
    """
    example = torch.zeros(EXAMPLE_IMAGES, 3, image_size, image_size)
    try:
        with _quiet():
            return torch.export.export(
                embedding, (example,), dynamic_shapes={"image": {0: torch.export.Dim("batch")}}
            )
    except Exception as error:  # torch.export has a family of errors of its own
        raise UserError(
            f"torch.export cannot follow this student ({' '.join(str(error).split()):.200})",
            fix="export another --arch, or its weights alone: --formats safetensors.",
        ) from error


def write_float32(path: Path, program: torch.export.ExportedProgram) -> None:
    """Write a program as an ONNX graph: image float32 [B, 3, S, S] -> embedding [B, D]."""
    onnx, _ = import_parts()
    with _quiet():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=["image"],
            output_names=["embedding"],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
        assert exported is not None
        graph = exported.model_proto
    _name_batch(graph)
    onnx.save(graph, str(path))


def _name_batch(graph: Any) -> None:
    """Call the number of images ``batch``, which torch.export calls something like ``s40``."""
    called = graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.graph.input, *graph.graph.output, *graph.graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param == called:
                size.dim_param = "batch"


def write_float16(path: Path, source: Path) -> None:
    """Write a float32 graph in float16, but for layer norms, what goes in and what comes out."""
    onnx, _ = import_parts()
    with _quiet():
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

        # onnxruntime 1.32 crashes when it opens a ViT whose layer norms are in float16.
        stay = [*DEFAULT_OP_BLOCK_LIST, "LayerNormalization"]
        half = convert_float_to_float16(onnx.load(str(source)), keep_io_types=True, op_block_list=stay)
    import onnx_ir

    # The converter puts the casts of what goes in behind the nodes that read them.
    ordered = onnx_ir.from_proto(half)
    ordered.graph.sort()
    onnx.save(onnx_ir.to_proto(ordered), str(path))


def write_int8(path: Path, source: Path, batches: Iterable[NDArray[np.float32]]) -> None:
    """Write a float32 graph with 8-bit weights and activations, whose ranges ``batches`` of images decide.

    onnxruntime's static quantisation (QDQ, weights by channel). Weights keep seven bits: with eight,
    processors without VNNI overflow when they add up products.
    """
    import_parts()
    with _quiet():
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
            quantize_static(
                str(prepared),
                str(path),
                Images(),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
            )
        finally:
            prepared.unlink(missing_ok=True)


def finish(path: Path, steps: Preprocessing, described: dict[str, Any]) -> None:
    """Put the preprocessing before a graph where it belongs inside, and describe all in its metadata."""
    onnx, _ = import_parts()
    graph = onnx.load(str(path))
    if steps.where == GRAPH:
        graph = _with_preprocessing(onnx, graph, steps)
    onnx.checker.check_model(graph)
    described = {**described, "preprocessing": asdict(steps)}
    onnx.helper.set_model_props(
        graph, {name: part if isinstance(part, str) else json.dumps(part) for name, part in described.items()}
    )
    onnx.save(graph, str(path))


def _with_preprocessing(onnx: Any, graph: Any, steps: Preprocessing) -> Any:
    make, inner = onnx.helper, graph.graph.input[0].name
    graph = onnx.compose.add_prefix(graph, prefix="student/", rename_outputs=False)
    start = round((steps.resize - steps.crop) / 2)
    planes = (1, 3, 1, 1)
    constants = {
        "size": np.array([steps.resize, steps.resize], dtype=np.int64),
        "first": np.array([start, start], dtype=np.int64),
        "end": np.array([start + steps.crop, start + steps.crop], dtype=np.int64),
        "axes": np.array([2, 3], dtype=np.int64),
        "mean": np.array(steps.mean, dtype=np.float32).reshape(planes) * 255,
        "std": np.array(steps.std, dtype=np.float32).reshape(planes) * 255,
    }
    nodes = [
        make.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        # All four sizes: where two axes are named, onnxruntime 1.32 moves the transposition behind them
        # wrongly.
        make.make_node("Shape", ["planes"], ["batch_and_planes"], start=0, end=2),
        make.make_node("Concat", ["batch_and_planes", "size"], ["sizes"], axis=0),
        # On bytes, as Pillow does it: it rounds to whole numbers after each direction.
        make.make_node(
            "Resize",
            ["planes", "", "", "sizes"],
            ["squashed"],
            mode="linear",
            coordinate_transformation_mode="half_pixel",
            antialias=1,
        ),
        make.make_node("Slice", ["squashed", "first", "end", "axes"], ["middle"]),
        make.make_node("Cast", ["middle"], ["floats"], to=onnx.TensorProto.FLOAT),
        make.make_node("Sub", ["floats", "mean"], ["centred"]),
        make.make_node("Div", ["centred", "std"], ["prepared"]),
    ]
    photo = make.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["batch", "height", "width", 3])
    prepared = make.make_tensor_value_info(
        "prepared", onnx.TensorProto.FLOAT, ["batch", 3, steps.crop, steps.crop]
    )
    numbers = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    before = make.make_model(
        make.make_graph(nodes, "preprocessing", [photo], [prepared], numbers),
        opset_imports=[make.make_opsetid("", OPSET)],
        ir_version=graph.ir_version,
    )
    return onnx.compose.merge_models(before, graph, io_map=[("prepared", f"student/{inner}")])


def import_parts() -> tuple[Any, Any]:
    """Return the modules onnx and onnxruntime; UserError that names the extra where one is missing."""
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise missing_package(error, extra="export") from error
    return onnx, onnxruntime


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporters say of their own affairs from the user; errors come through."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
