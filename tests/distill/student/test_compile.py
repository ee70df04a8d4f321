"""torch.compile, really run: the same numbers but for rounding."""

from __future__ import annotations

import shutil
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from cache import EmbeddingCache
from cache.build.from_folder import FeatureOptions, cache_features
from cache.runtime.devices import check_compiler, cpu_gains_from_bfloat16
from cache.runtime.errors import UserError
from distill.config import RunConfig
from distill.precision import amp_dtype_of
from distill.settings import with_settings
from distill.train.session import prepare
from distill.train.start import train as run

# Inductor writes C++ for the CPU.
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile with")
pytestmark = pytest.mark.filterwarnings("ignore")  # of torch's own compiler


@pytest.fixture(autouse=True)
def own_compiled(tmp_path, monkeypatch):
    """Share no compiled code: torch 2.13 takes what was compiled for other vector instructions for its own."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))


@needs_compiler
@pytest.mark.long
def test_a_compiled_teacher_gives_the_same_rows(photos, teacher_dir, tmp_path):
    rows = []
    for compiled in (False, True):
        out = tmp_path / str(compiled)
        options = FeatureOptions(
            model=f"local-dir:{teacher_dir}",
            device="cpu",
            workers=0,
            batch_size=3,
            dtype="float32",
            compile=compiled,
        )
        cache_features(photos, out, options)
        rows.append(EmbeddingCache.open(out).split("train").embeddings)
    np.testing.assert_allclose(rows[1], rows[0], rtol=1e-4, atol=1e-5)
    assert EmbeddingCache.open(tmp_path / "True").fingerprint  # a finished cache


@pytest.mark.long
@needs_compiler
def test_a_compiled_student_has_the_same_outputs_gradients_and_names():
    student = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)
    )
    plain, images = deepcopy(student), torch.randn(6, 3, 8, 8)
    prepare(student, with_settings(RunConfig(), ["train.compile=default"]), torch.device("cpu"))
    for one in (student, plain):
        one(images).square().mean().backward()
    assert student.state_dict().keys() == plain.state_dict().keys()
    for mine, its in zip(student.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-4, atol=1e-6)


@pytest.fixture
def no_compiler(tmp_path, monkeypatch):
    """No program can be found."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_a_teacher_is_not_compiled_without_a_compiler_and_nothing_is_written(
    no_compiler, photos, teacher_dir, tmp_path
):
    options = FeatureOptions(model=f"local-dir:{teacher_dir}", device="cpu", workers=0, compile=True)
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler on the CPU.*CXX"):
        cache_features(photos, tmp_path / "cache", options)
    assert not (tmp_path / "cache").exists()


def test_a_student_is_not_compiled_without_a_compiler_and_nothing_is_written(
    no_compiler, photos, cached, tmp_path
):
    settings = ["train.compile=default", "student.arch=timm:test_resnet", "train.device=cpu"]
    config = with_settings(RunConfig(), [*settings, "student.image_size=32", "data.workers=0"])
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler on the CPU.*CXX"):
        run(config, cache_dir=cached.path, data_dir=photos, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_only_the_cpu_needs_a_cpp_compiler(no_compiler):
    check_compiler(torch.device("mps"))


def test_an_unknown_mode_of_compile_names_those_there_are():
    with pytest.raises(UserError, match=r"train.compile is 'fast'.*reduce-overhead"):
        with_settings(RunConfig(), ["train.compile=fast"])


def test_auto_on_the_cpu_is_bfloat16_where_the_processor_gains_from_it():
    cpu = torch.device("cpu")
    assert amp_dtype_of("auto", cpu) == (torch.bfloat16 if cpu_gains_from_bfloat16() else None)
    assert amp_dtype_of("float32", cpu) is None


@pytest.mark.skipif(not hasattr(torch.cpu, "get_capabilities"), reason="an older torch")
@pytest.mark.parametrize(
    ("capabilities", "gains"),
    [
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, True),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, False),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True}, True),
        ({"cpu_name": "AMD EPYC", "avx2": True}, False),
        ({"architecture": "arm64"}, False),
    ],
)
def test_which_processors_gain_from_bfloat16(capabilities, gains, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert cpu_gains_from_bfloat16() == gains
