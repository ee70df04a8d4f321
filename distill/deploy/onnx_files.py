"""The graphs: a student as ONNX in float32, float16 and int8, preprocessing inside where asked for."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cache.runtime.errors import UserError, missing_package
from distill.deploy.graph_preprocessing import PreparedPhoto
from distill.deploy.info import GRAPH, Preprocessing
from distill.deploy.onnx_door import import_onnxruntime

# The newest whose graphs onnxruntime's quantisation and float16 converter both take.
OPSET = 18
EXAMPLE_IMAGES = 2  # one would be taken for a fixed size


class UnitEmbedding(nn.Module):
    """A student's outputs, or those from ``start`` to ``stop``, as rows of length 1.

    Images [B, 3, S, S] -> [B, D]; of a student of episodes [B, C, S, S] -> [B, L, D] of its L locations, one
    where it is global.
    """

    def __init__(self, student: nn.Module, start: int = 0, stop: int | None = None) -> None:
        super().__init__()
        self.student, self.start, self.stop = student, start, stop

    def forward(self, image: Tensor) -> Tensor:
        """Return unit embeddings float32."""
        outputs = self.student(image)
        if isinstance(outputs, tuple):  # of episodes
            embeddings, located = outputs
            rows = embeddings[:, None] if located is None else located
        else:
            rows = outputs[:, self.start : self.stop]
        return F.normalize(rows.float(), dim=-1)


def traced(embedding: nn.Module, steps: Preprocessing) -> torch.export.ExportedProgram:
    """Return an embedding as a program of torch.export, with any number of images.

    UserError if torch.export cannot follow the student.
    """
    example = torch.zeros(EXAMPLE_IMAGES, steps.channels, steps.crop, steps.crop)
    try:
        with quiet():
            program = torch.export.export(
                embedding, (example,), dynamic_shapes={"image": {0: torch.export.Dim("batch")}}
            )
    except Exception as error:  # torch.export has a family of errors of its own
        raise UserError(
            f"torch.export cannot follow this student ({' '.join(str(error).split()):.200})",
            fix="export another --arch, or its weights alone: --formats safetensors.",
        ) from error
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # the paths of this machine's files
    return program


def write_float32(path: Path, program: torch.export.ExportedProgram) -> None:
    """Write a program as an ONNX graph: image float32 [B, 3, S, S] -> embedding [B, D]."""
    graph = _as_graph(program, takes="image", gives="embedding", sizes=("batch",))
    import_parts().save(graph, str(path))


def _as_graph(program: torch.export.ExportedProgram, *, takes: str, gives: str, sizes: Sequence[str]) -> Any:
    """Return a program of one input and one output as an ONNX graph with these names.

    ``sizes`` name the first axes of the input, which torch.export calls something like ``s40``.
    """
    with quiet():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[takes],
            output_names=[gives],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert exported is not None
    graph: Any = exported.model_proto
    for node in (*graph.graph.node, *(node for function in graph.functions for node in function.node)):
        del node.metadata_props[:]  # where in this machine's files it comes from
    axes = graph.graph.input[0].type.tensor_type.shape.dim
    names = {axis.dim_param: name for axis, name in zip(axes, sizes, strict=False)}
    for value in (*graph.graph.input, *graph.graph.output, *graph.graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param in names:
                size.dim_param = names[size.dim_param]
    return graph


def write_float16(path: Path, source: Path) -> None:
    """Write a float32 graph in float16, but for layer norms, what goes in and what comes out."""
    onnx = import_parts()
    with quiet():
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

        # onnxruntime 1.32 crashes when it opens a ViT whose layer norms are in float16.
        stay = [*DEFAULT_OP_BLOCK_LIST, "LayerNormalization"]
        half = convert_float_to_float16(onnx.load(str(source)), keep_io_types=True, op_block_list=stay)
    from onnxscript import ir

    # The converter puts the casts of what goes in behind the nodes that read them.
    ordered = ir.from_proto(half)
    ordered.graph.sort()
    onnx.save(ir.to_proto(ordered), str(path))


def finish(path: Path, steps: Preprocessing, described: dict[str, Any]) -> None:
    """Put the preprocessing before a graph where it belongs inside, and describe all in its metadata."""
    onnx = import_parts()
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
    inner = graph.graph.input[0].name
    graph = onnx.compose.add_prefix(graph, prefix="student/", rename_outputs=False)
    before = _preprocessing_graph(steps)
    before.ir_version = graph.ir_version
    return onnx.compose.merge_models(before, graph, io_map=[("prepared", f"student/{inner}")])


@lru_cache(maxsize=1)  # it is that of every precision of a model, and takes seconds
def _preprocessing_graph(steps: Preprocessing) -> Any:
    sizes = ("batch", "height", "width")
    dynamic = {"image": {axis: torch.export.Dim(name) for axis, name in enumerate(sizes)}}
    photos = torch.zeros(EXAMPLE_IMAGES, steps.resize + 2, steps.resize + 1, 3, dtype=torch.uint8)
    program = torch.export.export(PreparedPhoto(steps), (photos,), dynamic_shapes=dynamic)
    return _as_graph(program, takes="image", gives="prepared", sizes=sizes)


def import_parts() -> Any:
    """Return the module onnx; UserError where it, onnxscript or onnxruntime is missing."""
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise missing_package(error, extra="export") from error
    import_onnxruntime()
    return onnx


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what the exporters say of their own affairs from the user; errors come through."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
