"""Which packages the check needs beside torch, and their installation from a folder of wheels.

Of the standard library alone: nothing else may be there when it runs. Wheels go into a folder of their own,
only those of packages that are missing, and without what they depend on, so that this machine's torch stays
what it is; what they depend on is looked for in the same folder.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

# What the parts import; what these need themselves they say.
NEEDED = (
    *("braceexpand", "click", "filelock", "h5py", "huggingface_hub", "numpy", "open_clip_torch", "pillow"),
    *(
        "matplotlib",
        "rich",
        "safetensors",
        "tensorboard",
        "timm",
        "torchvision",
        "webdataset",
    ),
)
# FAISS goes by several names (faiss-cpu, faiss-gpu-cu12, conda's faiss): what is imported counts.
FAISS = "faiss-cpu"
# Of the tests marked gpu, which are left out without it.
OF_TESTS = ("pytest",)
# What those need in their newest releases, for a folder of wheels that is made where there is a network.
NEXT = (
    *("absl-py", "contourpy", "cycler", "fonttools", "kiwisolver", "protobuf", "pyparsing"),
    *("python-dateutil", "six"),
    *("anyio", "ftfy", "h11", "httpcore2", "httpx2", "idna", "iniconfig"),
    *("markdown-it-py", "mdurl", "packaging", "pluggy", "pygments", "pyyaml", "regex", "tqdm"),
    *("truststore", "typing-extensions", "wcwidth"),
)
# What every machine with torch has, or has to have a particular release of.
AT_HAND = ("filelock", "numpy", "pillow", "torchvision", "typing-extensions")
# They are named by others, and nothing here imports them.
NEVER = (
    *("torch", "triton", "hf-xet", "typer", "shellingham", "tzdata"),
    *("grpcio", "markdown", "werkzeug", "tensorboard-data-server", "setuptools"),  # of TensorBoard's server
)
LEAST_PYTHON, LEAST_TORCH = (3, 11), (2, 6)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def plain(name: str) -> str:
    """Return a package's name as all its spellings are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def missing(packages: Iterable[str]) -> list[str]:
    """Return which of some packages, of those that they need, and FAISS are not installed."""
    seen, todo = {*NEVER}, [plain(name) for name in packages]
    lacking = [FAISS] if importlib.util.find_spec("faiss") is None else []
    while todo:
        name = todo.pop(0)
        if name in seen:
            continue
        seen.add(name)
        try:
            version(name)
        except PackageNotFoundError:
            lacking.append(name)
            continue
        todo += [plain(_NAME.match(line)[0]) for line in requires(name) or () if _applies(line)]  # type: ignore[index]
    return lacking


def _applies(requirement: str) -> bool:
    """Say whether a line of a package's requirements is of this machine, and of no extra."""
    marker = requirement.partition(";")[2].strip()
    if not marker or "extra" in marker:
        return not marker
    try:
        from packaging.markers import Marker
    except ImportError:
        try:
            from pip._vendor.packaging.markers import Marker
        except ImportError:
            return False  # what it is needed for will say so
    return Marker(marker).evaluate()


def with_wheels(wheels: str, folder: Path) -> str:
    """Install what is missing from a folder of wheels, ``""`` for none; return what is still to be had.

    That is one line, "" where nothing is missing. What was installed is importable from then on, here and in
    processes started from here.
    """
    if problem := _unfit():
        return problem
    wanted = missing([*NEEDED, *OF_TESTS]) if wheels else []
    _importable(folder)
    while wanted and (there := [name for name in wanted if _has_wheel(Path(wheels), name)]):
        if problem := _install(there, wheels, folder):
            return problem
        importlib.invalidate_caches()
        before, wanted = wanted, missing([*NEEDED, *OF_TESTS])
        if wanted == before:
            break
    lacking = missing(NEEDED)
    if not lacking:
        return ""
    where = f", and {wheels} has no wheel of them" if wheels else ""
    return f"missing: {' '.join(lacking)}{where}. WHEELS=DIR takes them from a folder: --list-wheels"


def _unfit() -> str:
    if sys.version_info[:2] < LEAST_PYTHON:
        return f"this is Python {sys.version.split()[0]}, and 3.11 or newer is needed: PYTHON=FILE names it"
    try:
        torch = version("torch")
    except PackageNotFoundError:
        return f"{sys.executable} has no torch: PYTHON=FILE names another Python"
    if tuple(int(number) for number in re.findall(r"\d+", torch)[:2]) < LEAST_TORCH:
        return f"torch is {torch}, and 2.6 or newer is needed"
    return ""


def _importable(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    sys.path.append(str(folder))
    paths = [os.environ.get("PYTHONPATH", ""), str(folder)]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


def _has_wheel(wheels: Path, name: str) -> bool:
    return any(plain(path.name.split("-")[0]) == name for path in wheels.glob("*.whl"))


def _install(packages: Sequence[str], wheels: str, folder: Path) -> str:
    """Install some packages, and return "", or why that failed in one line."""
    options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--no-compile"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        *options,
        "--find-links",
        wheels,
        "--target",
        str(folder),
    ]
    ended = subprocess.run([*command, *packages], capture_output=True, text=True)
    lines = [line for line in ended.stderr.splitlines() if "ERROR" in line] or ["pip failed"]
    return f"the wheels of {wheels} do not fit: {lines[0]}" if ended.returncode else ""


def listing() -> str:
    """Return what a folder of wheels has to hold, and how it is made where there is a network."""
    names = " ".join(
        sorted(name for name in {FAISS, *map(plain, NEEDED), *OF_TESTS, *NEXT} if name not in AT_HAND)
    )
    download = "pip download --no-deps --only-binary=:all: --python-version 3.12 --dest wheels"
    return f"""\
Beside torch and torchvision the check needs these, as far as the machine has not got them (59 MB in all):
  {names}
Where there is a network, with the version of the other machine's Python (python3 --version):
  {download} {names}
Where torchvision is missing, the release that was made for its torch (2.6: 0.21, 2.7: 0.22, 2.8: 0.23):
  {download} torchvision==0.21.0
Then there, without a network:
  WHEELS=wheels bash scripts/gpu_check.sh"""
