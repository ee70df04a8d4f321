"""Epochs with fake quantisation: they round as onnxruntime does, and the int8 file is nearer its student."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from helpers.exported import SMALL
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from cache.runtime.progress import Silent
from distill.config import RunConfig
from distill.deploy.export import export_run
from distill.deploy.export_options import ExportOptions
from distill.deploy.fake_quantisation import FakeQuantised, rounded, rounded_weight
from distill.deploy.info import OUTSIDE, ModelInfo, Preprocessing
from distill.deploy.int8_file import weight_steps, write_int8
from distill.deploy.model import open_graph
from distill.deploy.onnx_files import UnitEmbedding, traced, write_float32
from distill.deploy.qat import observe
from distill.settings import with_settings
from distill.train.start import train

STEPS = Preprocessing(where=OUTSIDE, resize=16, crop=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


class Net(nn.Module):
    """What students are made of: norms, gates, squeeze and excite, a sum, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.block = nn.Sequential(
            nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Hardsigmoid())
        self.last, self.head = nn.Sequential(nn.Conv2d(8, 8, 1), nn.SiLU()), nn.Linear(8, 6)

    def forward(self, images):
        stem = self.stem(images)
        block = self.block(stem)
        return self.head((self.last(block * self.gate(block)) + stem).mean((2, 3)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return UnitEmbedding(Net().eval()).eval()


@pytest.fixture
def batches():
    return [torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(i)).numpy() for i in (1, 2)]


def through_onnx(values, scale, zero, axis):
    """Return what ONNX's QuantizeLinear and DequantizeLinear make of values."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], axis=axis),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], axis=axis),
    ]
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "rounding",
        [helper.make_tensor_value_info("x", kind, values.shape)],
        [helper.make_tensor_value_info("y", kind, values.shape)],
        [numpy_helper.from_array(scale, "scale"), numpy_helper.from_array(zero, "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    return ReferenceEvaluator(model).run(None, {"x": values})[0]


def written(net, tmp_path, batches):
    write_float32(tmp_path / "net.onnx", traced(net, STEPS))
    write_int8(tmp_path / "net.int8.onnx", tmp_path / "net.onnx", batches)
    return tmp_path / "net.int8.onnx"


def test_values_are_rounded_as_onnx_rounds_them_on_the_same_scale():
    values = torch.randn(50, generator=torch.Generator().manual_seed(0))
    low, high = torch.tensor(-1.0), torch.tensor(2.0)
    scale, zero = np.float32(3 / 255), np.uint8(85)
    expected = through_onnx(values.numpy(), np.array(scale), np.array(zero), 0)
    np.testing.assert_allclose(rounded(values, low, high).numpy(), expected, atol=1e-6)


def test_weights_are_rounded_as_those_of_the_int8_file(net, tmp_path, batches):
    graph = onnx.load(written(net, tmp_path, batches)).graph
    held = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    weight = net.student.head.weight.detach()
    name = next(name for name in held if "head.weight" in name and name.endswith("_quantized"))
    scale = held[name.replace("_quantized", "_scale")]
    whole = held[name] if held[name].shape == weight.shape else held[name].T
    np.testing.assert_allclose(rounded_weight(weight).numpy(), whole * scale[:, None], atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 7), (6, 4, 3, 3), (6, 1, 3, 3), (3, 2, 5)])
def test_two_products_of_neighbours_never_overflow_16_bits(shape):
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(0)) ** 3
    weight[0] = 0
    for depthwise in (False, True):
        whole = torch.round(
            rounded_weight(weight, depthwise=depthwise).flatten(1)
            / weight_steps(weight, depthwise=depthwise)[:, None]
        )
        assert whole.abs().max() <= 127
        # In the order of a product: the inputs of one position, then the next.
        rows = whole.reshape(shape).movedim(1, -1).flatten(1).abs()
        assert depthwise or 255 * (rows[:, :-1:2] + rows[:, 1::2]).max() < 2**15
        assert torch.isfinite(whole).all()


def test_rounding_passes_gradients_on_within_the_range():
    values = torch.tensor([-5.0, 0.3, 5.0], requires_grad=True)
    rounded(values, torch.tensor(-1.0), torch.tensor(1.0)).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 1.0, 0.0]


def test_the_graph_rounds_where_the_int8_file_does(net, tmp_path, batches):
    graph = FakeQuantised(traced(net, STEPS).module(check_guards=False))
    observe(graph, batches)
    images = batches[0]
    says = open_graph(written(net, tmp_path, batches))(images)
    with torch.no_grad():
        simulated, student = graph(torch.from_numpy(images)).numpy(), net(torch.from_numpy(images)).numpy()
    assert np.abs(simulated - says).mean() < 0.25 * np.abs(student - says).mean()


class _Counting(Silent):
    """Keeps how much each part of the work was to be, and came to."""

    def __init__(self) -> None:
        self.parts = {}

    def start(self, total, what, unit=None):
        self.what = what
        self.parts[what] = [total, 0]

    def advance(self, count=1):
        self.parts[self.what][1] += count


@pytest.mark.long
def test_an_int8_file_fitted_to_8_bits_is_near_its_student_and_all_else_is_as_it_was(trained, tmp_path):
    # One that 8 bits cost something: hard-swish and squeeze-and-excite, as MobileNetV3 has.
    config = with_settings(RunConfig(), [*SMALL, "student.arch=timm:mobilenetv3_small_050", "train.epochs=2"])
    train(config, cache_dir=trained / "cache", data_dir=trained / "photos", out=tmp_path / "run")
    cosines, progress = {}, _Counting()
    for way in ("static", "qat"):
        options = ExportOptions(precisions=("float32", "int8"), int8=way, nearest_images=0)
        info = export_run(tmp_path / "run", tmp_path / way, options, progress=progress)
        cosines[way] = min(one["cosine_mean"] for one in info.measured["int8"]["splits"].values())
    total, done = progress.parts["fitting to int8"]
    assert total == done > 0
    # Of a dozen images none may be gained, and the file is then made of the student's own weights.
    assert cosines["qat"] >= min(cosines["static"], 0.98)
    static, fitted = (ModelInfo.load(tmp_path / way) for way in ("static", "qat"))
    assert static.files["model.onnx"] == fitted.files["model.onnx"]
    assert fitted.source["int8"] == "qat"
    assert abs(static.measured["int8"]["bytes"] / fitted.measured["int8"]["bytes"] - 1) < 0.01


@pytest.mark.parametrize("way", ["static", "qat"])
def test_who_says_what_the_int8_file_is_made_of_gets_one(way):
    assert ExportOptions(int8=way).all_precisions == ("float32", "int8")
    assert ExportOptions(precisions=("int8",), int8=way).all_precisions == ("int8",)
    assert ExportOptions().all_precisions == ("float32",)
