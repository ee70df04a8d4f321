"""Full memory is one line with what the command can lower, whoever raises it."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner
from conftest import make_cache

import cli
from cache.runtime.memory_errors import OutOfDeviceMemory, OutOfMemory, WorkerEnded
from cache.runtime.system_errors import as_user_error

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB"
OWN = f"""
import torch
class Teacher:
    def preprocess(self, picture):
        return torch.zeros(3, 8, 8) + picture.resize((1, 1)).getpixel((0, 0))[0]
    def embed_images(self, images):
        raise torch.OutOfMemoryError({FULL!r})
class Student(torch.nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.last = torch.nn.Linear(3, dim)
    def forward(self, images):
        if self.training:
            raise torch.OutOfMemoryError({FULL!r})
        return self.last(images.mean((2, 3)))
"""

KILLED = """
import os, signal, torch
class Teacher:
    def preprocess(self, picture):
        if torch.utils.data.get_worker_info() and not os.path.exists("killed"):
            open("killed", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(3, 8, 8) + picture.resize((1, 1)).getpixel((0, 0))[0]
    def embed_images(self, images):
        return images.flatten(1)[:, :16] * torch.arange(1, 17)
"""


def error_of(*words: object) -> str:
    """The one line of a command that fails."""
    ended = CliRunner().invoke(cli.main, [str(word) for word in words])
    assert ended.exit_code == 1, ended.output
    lines = [line for line in ended.output.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, ended.output
    return lines[0]


def test_a_full_gpu_in_stage_1_and_in_training_names_what_these_commands_can_lower(photos, here, monkeypatch):
    (here / "own.py").write_text(OWN)
    line = error_of("cache-features", photos, "--out", "c", "--model", "own.py:Teacher", "--workers", 0)
    assert "the GPU's memory is full (2.00 GiB more were asked for). Fix: give a smaller --batch-size" in line
    assert "the same command again: what is finished is kept" in line
    cache = make_cache(here / "cache", photos).path
    run = [
        "--out",
        "run",
        "--recipe",
        "smoke",
        "--arch",
        "own.py:Student",
        "--device",
        "cpu",
        "--set",
        "data.workers=0",
    ]
    line = error_of("train", cache, "--data", photos, *run)
    assert "the GPU's memory is full" in line
    assert "--image-size" in line
    assert "--resume" in line
    assert "correct the file" not in line


def test_a_decoding_worker_that_is_killed_is_one_line_and_the_same_command_goes_on(photos, here):
    (here / "own.py").write_text(KILLED)
    words = ["cache-features", photos, "--out", "cache", "--model", "own.py:Teacher", "--workers", 1]
    line = error_of(*words)
    assert "a process that decodes images was killed, most likely because the memory was full" in line
    assert "Fix: give fewer --workers" in line
    ended = CliRunner().invoke(cli.main, [str(word) for word in words])
    assert ended.exit_code == 0, ended.output


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (torch.OutOfMemoryError(FULL), OutOfDeviceMemory, "the GPU's memory is full (2.00 GiB"),
        (RuntimeError("CUDA error: out of memory"), OutOfDeviceMemory, "GPU"),
        (RuntimeError("cuBLAS: CUBLAS_STATUS_ALLOC_FAILED"), OutOfDeviceMemory, "GPU"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 18 GB)"), OutOfDeviceMemory, "GPU"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000 bytes."), OutOfMemory, "(4.0 GB"),
        (MemoryError(), OutOfMemory, "the computer's memory is full."),
        (MemoryError("Unable to allocate 29.8 GiB for an array with shape (4, 5)"), OutOfMemory, "(29.8 GiB more"),
        (OSError(12, "Cannot allocate memory"), OutOfMemory, "the computer's memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), OutOfMemory, "computer"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), WorkerEnded, "was killed, most"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is"), WorkerEnded, "/dev/shm is full"),
        (RuntimeError("DataLoader worker (pid 7) exited unexpectedly with exit code 12. D"), WorkerEnded, "(Cannot allocate"),
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space"), WorkerEnded, "shared memory"),
    ],
)  # fmt: skip
def test_memory_is_told_however_a_library_says_it(error, kind, words):
    told = as_user_error(error)
    assert type(told) is kind
    assert words in str(told)
