"""Which packages the check needs beside torch, and their installation from a folder of wheels.

Of the standard library alone: nothing else may be there when it runs. Wheels go into a folder of their own,
and only those of packages that are missing, without what they depend on: this machine's torch stays what it is.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# What is imported, and the package that has it, in which torch and what comes with it are not counted.
NEEDED = {
    "braceexpand": "braceexpand",
    "click": "click",
    "filelock": "filelock",
    "fsspec": "fsspec",
    "ftfy": "ftfy",
    "h5py": "h5py",
    "huggingface_hub": "huggingface_hub",
    "numpy": "numpy",
    "open_clip": "open_clip_torch",
    "packaging": "packaging",
    "PIL": "pillow",
    "regex": "regex",
    "rich": "rich",
    "safetensors": "safetensors",
    "timm": "timm",
    "torchmetrics": "torchmetrics",
    "torchvision": "torchvision",
    "tqdm": "tqdm",
    "wcwidth": "wcwidth",
    "webdataset": "webdataset",
    "yaml": "pyyaml",
}
# Of the tests marked gpu, which are left out without it.
OF_TESTS = {"pytest": "pytest", "iniconfig": "iniconfig", "pluggy": "pluggy"}
TORCH = (2, 6)


def missing(modules: dict[str, str]) -> list[str]:
    """Return the packages of those modules that cannot be found."""
    return [package for module, package in modules.items() if importlib.util.find_spec(module) is None]


def with_wheels(wheels: str, folder: Path) -> str:
    """Install what is missing from a folder of wheels, ``""`` for none; return what is still to be had.

    That is one line, "" where nothing is missing. What was installed is importable from then on, here and in
    processes started from here.
    """
    if sys.version_info < (3, 11):
        return f"this is Python {sys.version.split()[0]}, and 3.11 or newer is needed: PYTHON=python3.12"
    if problem := _torch_problem():
        return problem
    lacking = missing(NEEDED)
    if wheels and (wanted := lacking + missing(OF_TESTS)):
        _install(wanted, Path(wheels), folder)
        sys.path.append(str(folder))
        os.environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, [os.environ.get("PYTHONPATH", ""), str(folder)])
        )
        importlib.invalidate_caches()
        lacking = missing(NEEDED)
    if not lacking:
        return ""
    where = f", and {wheels} has no wheel of them that fits" if wheels else ""
    return f"missing: {' '.join(lacking)}{where}. WHEELS=DIR takes them from a folder: --list-wheels"


def _torch_problem() -> str:
    if importlib.util.find_spec("torch") is None:
        return f"{sys.executable} has no torch: PYTHON=FILE names another Python"
    from importlib.metadata import version

    found = tuple(int(number) for number in version("torch").split("+")[0].split(".")[:2])
    if found < TORCH:
        return f"torch is {version('torch')}, and 2.6 or newer is needed"
    return ""


def _install(packages: Sequence[str], wheels: Path, folder: Path) -> None:
    """Install one package after the other: one whose wheel is not there holds up no other."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    for package in packages:
        command = [*pip, "--find-links", str(wheels), "--no-deps", "--target", str(folder), package]
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode:
            print(f"{package}: {(ended.stderr.strip().splitlines() or ['pip failed'])[-1]}", file=sys.stderr)


def listing() -> str:
    """Return what a folder of wheels has to hold, and how it is made where there is a network."""
    names = " ".join(package for package in [*NEEDED.values(), *OF_TESTS.values()] if package not in AT_HAND)
    return f"""\
A machine with torch and torchvision needs of these what it has not:
  {names}
Where there is a network, with the other machine's Python (python3 --version):
  pip download --no-deps --only-binary=:all: --python-version 3.12 --dest WHEELS {names}
Then there, without a network:
  WHEELS=WHEELS bash scripts/gpu_check.sh
Where torchvision is missing too, the release that was made for its torch (2.6: 0.21, 2.7: 0.22, ...):
  pip download --no-deps --only-binary=:all: --python-version 3.12 --dest WHEELS torchvision==0.21.0"""


# What every machine with torch has, or has to have a particular release of.
AT_HAND = ("numpy", "torchvision", "filelock", "fsspec")
