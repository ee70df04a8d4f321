"""What is asked of the machine: memory that is kept instead of handed back."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from helpers.processes import python

from cache.runtime.devices import choose_device
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


@pytest.mark.parametrize("name", ["mps", "xpu", "meta"])
def test_a_device_that_is_not_in_this_machine_is_refused(name):
    if torch.accelerator.is_available() and torch.accelerator.current_accelerator().type == name:
        pytest.skip(f"this machine has {name}")
    with pytest.raises(UserError, match=f"the device {name} was asked for, but this torch has none"):
        choose_device(name)
