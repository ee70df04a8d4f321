"""What is asked of the machine: its devices, and memory that is kept instead of handed back."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from helpers.processes import python
from torch._subclasses.fake_tensor import FakeTensorMode

from cache.runtime.devices import check_compiler, choose_device, default_workers, in_float64, widest_float
from cache.runtime.errors import UserError

FAULTS = """
import resource, sys, torch
from cache.runtime.devices import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory(torch.device("cpu"))
def use():
    for _ in range(4):
        torch.ones(9 * 2**20)  # more than the 32 MiB from which glibc always asks the system
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator is asked")
def test_freed_tensors_are_not_faulted_in_anew():
    def faults(mode):
        command = [*python(), "-c", FAULTS, mode]
        return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)

    assert faults("kept") < faults("plain") / 10


def test_an_unknown_device_is_refused():
    with pytest.raises(UserError, match="'gpu0' is not a device"):
        choose_device("gpu0")


@pytest.mark.parametrize("name", ["xpu", "meta"])
def test_a_device_that_is_not_in_this_machine_is_refused(name):
    if torch.accelerator.is_available() and torch.accelerator.current_accelerator().type == name:
        pytest.skip(f"this machine has {name}")
    with pytest.raises(UserError, match=f"the device {name} was asked for, but this torch has none"):
        choose_device(name)


@pytest.fixture
def a_mac(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("a_mac")
@pytest.mark.parametrize("name", ["auto", "mps", "mps:0"])
def test_apples_gpu_is_taken_where_there_is_one(name):
    device = choose_device(name)
    assert device.type == "mps"
    assert default_workers(device) == default_workers(torch.device("cuda"))  # the CPU is free to decode


@pytest.mark.usefixtures("a_mac")
def test_apples_gpu_is_for_one_process(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert choose_device("auto").type == "cpu"
    with pytest.raises(UserError, match="mps was asked for by 2 processes, and Apple's GPU is one"):
        choose_device("mps")


@pytest.mark.parametrize("built", [True, False])
def test_apples_gpu_is_refused_where_there_is_none(monkeypatch, built):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: built)
    why = "needs macOS on Apple silicon" if built else "is not in this torch"
    with pytest.raises(UserError, match=f"the device mps was asked for, which {why}"):
        choose_device("mps")


def test_nothing_is_in_float64_on_apples_gpu():
    mps = torch.device("mps")
    assert widest_float(mps) == torch.float32
    with FakeTensorMode():
        rows = in_float64(torch.zeros(2, device=mps))
    assert (rows.device.type, rows.dtype) == ("cpu", torch.float64)


def test_compiling_for_a_gpu_without_triton_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(UserError, match="needs Triton on a GPU"):
        check_compiler(torch.device("cuda"))
