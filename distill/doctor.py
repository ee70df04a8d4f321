"""``distill doctor``: what this machine has, and whether both stages run on it; one screen for bug reports.

Nothing in it tells who the user is: no names, no environment, no tokens; of paths only the folder looked at.
"""

from __future__ import annotations

import io
import os
import platform
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cache.runtime.amounts import BYTES, counted, in_bytes, rate_of

OK, WARNING, FAILED = "ok", "warning", "failed"
PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "h5py", "numpy", "pillow", "webdataset")
EXTRAS = ("ray", "wandb", "mlflow", "openai", "transformers", "onnxruntime", "fastapi")
CODECS = ("jpg", "zlib", "webp")
LEAST_FREE, LEAST_SHARED, LEAST_HANDLES = 5e9, 1e9, 1024
WRITTEN = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line: what was looked at, how it is in words, and what to do where it is not well."""

    name: str
    text: str
    state: str = OK
    fix: str = ""


def judged(name: str, text: str, *, wrong: bool, fix: str = "", state: str = FAILED) -> Finding:
    """Return a finding that is well unless it is ``wrong``; ``state`` and ``fix`` are of one that is."""
    return Finding(name=name, text=text, state=state, fix=fix) if wrong else Finding(name=name, text=text)


def examine(folder: Path) -> list[Finding]:
    """Look at everything; ``folder`` is where caches and runs will lie.

    What raises is a failed line of its own, whatever it raises.
    """
    looks: dict[str, Callable[[], Finding | list[Finding]]] = {
        "versions": _versions,
        "extras": _extras,
        "processor": _processor,
        "GPU": _gpus,
        "nearest texts": _faiss,
        "decoders": _decoders,
        "open files": _handles,
        "shared memory": _shared_memory,
        "disk": lambda: _disk(folder),
        "both stages": _both_stages,
    }
    findings: list[Finding] = []
    for name, look in looks.items():
        try:
            answer = look()
        except Exception as error:
            reason = " ".join(str(error).split())[:120]
            answer = Finding(name=name, text=f"{type(error).__name__}: {reason}", state=FAILED)
        findings += answer if isinstance(answer, list) else [answer]
    return findings


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _versions() -> list[Finding]:
    own = f"distill {_version('distill')}, Python {platform.python_version()}"
    versions = {name: _version(name) for name in PACKAGES}
    missing = [name for name, number in versions.items() if number == "missing"]
    return [
        Finding(name="versions", text=f"{own}, {platform.platform(terse=True)}"),
        judged(
            "packages",
            ", ".join(f"{name} {number}" for name, number in versions.items()),
            wrong=bool(missing),
            fix=f"pip install {' '.join(missing)}",
        ),
    ]


def _extras() -> Finding:
    return Finding(name="extras", text=", ".join(f"{name} {_version(name)}" for name in EXTRAS))


def _processor() -> Finding:
    import torch

    from cache.runtime.machine_limits import cores
    from distill.precision import amp_dtype_of
    from distill.record.run_log import hardware

    dtype = str(amp_dtype_of("auto", torch.device("cpu")) or torch.float32).removeprefix("torch.")
    text = f"{hardware(torch.device('cpu'))['cpu']}, {cores()} cores, {torch.get_num_threads()} threads"
    return Finding(name="processor", text=f"{text}; precision auto is {dtype}")


def _gpus() -> list[Finding] | Finding:
    import torch

    from cache.runtime.gpus import cards, driver, driver_cuda

    if torch.backends.mps.is_available():
        return Finding(name="GPU", text="Apple's (mps); precision auto is float32")
    found, cuda = cards(), torch.version.cuda
    built = f"torch is built for CUDA {cuda}" if cuda else "a torch for the CPU"
    if not found:
        there = driver()
        newest = f", which runs CUDA {driver_cuda()}" if driver_cuda() else ""
        text = f"none in use ({built}{f'; NVIDIA driver {there}{newest}' if there else ''})"
        fix = "install the torch for this driver: https://pytorch.org/get-started/locally"
        return judged("GPU", text, wrong=bool(there), fix=fix, state=WARNING)
    findings = []
    for number, card in enumerate(found):
        peak = f"{card.peak:g} TFLOP/s dense at most" if card.peak else "peak not known here"
        text = f"{card.name}, capability {card.capability[0]}.{card.capability[1]}, {peak}"
        text += f", {counted(card.free, card.total, BYTES)} free"
        dtype = "bfloat16" if card.bfloat16 else "float16"
        findings.append(Finding(name=f"GPU {number}", text=f"{text}; precision auto is {dtype}"))
    software = f"{built}; driver {driver() or 'of unknown version'}, CUDA {driver_cuda() or 'unknown'}"
    check = "what this card reaches, in 8 minutes: bash scripts/gpu_check.sh, in a clone of the repository"
    more = [Finding(name="CUDA", text=software), _computed(), _compiler(), _nccl(len(found))]
    return [*findings, *more, Finding(name="GPU check", text=check)]


def _computed() -> Finding:
    """Multiply on the GPU what came there from pinned memory."""
    import torch

    from cache.runtime.transfer import to_device

    device = torch.device("cuda")
    try:
        ones = to_device(torch.ones(512, 512), device).half()
        right = bool(((ones @ ones) == 512).all())
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:120]
        return Finding(name="GPU computes", text=reason, state=FAILED, fix="start this program anew.")
    return judged("GPU computes", "a product, of what pinned memory gave", wrong=not right)


def _compiler() -> Finding:
    from cache.runtime.gpus import triton

    compiler = shutil.which(os.environ.get("CC", "")) or shutil.which("gcc") or shutil.which("clang")
    text = f"Triton {triton() or 'missing'}, C compiler {'found' if compiler else 'missing'}"
    fix = "--compile and train.compile want both: pip install triton, apt install gcc."
    return judged("torch.compile", text, wrong=not (triton() and compiler), fix=fix, state=WARNING)


def _nccl(count: int) -> Finding:
    from cache.runtime.gpus import nccl

    text, fix = f"NCCL {nccl() or 'missing'}", "torchrun with several GPUs wants it: install another torch."
    return judged("several GPUs", text, wrong=not nccl() and count > 1, fix=fix, state=WARNING)


def _faiss() -> Finding:
    import numpy as np

    from cache.store.neighbours import flavour, nearest_texts

    nearest, _ = nearest_texts(np.eye(3, 4), np.eye(3, 4)[::-1], 1)
    wrong = nearest[:, 0].tolist() != [2, 1, 0]
    return judged("nearest texts", flavour(), wrong=wrong, fix="install faiss-cpu anew.")


def _decoders() -> Finding:
    import numpy as np
    from PIL import Image, features

    missing = [name for name in CODECS if not features.check(name)]
    turbo = ", libjpeg-turbo" if features.check("libjpeg_turbo") else ""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, size=(12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((512, 384)).save(buffer, format="JPEG")
    began = time.perf_counter()
    for _ in range(20):
        with Image.open(io.BytesIO(buffer.getvalue())) as image:
            image.convert("RGB")
    rate = 20 / (time.perf_counter() - began)
    text = f"Pillow {_version('pillow')}{turbo}: {rate:,.0f} JPEGs of 512 x 384 a second and core"
    if missing:
        text = f"{text}; without {', '.join(missing)}"
    return judged("decoders", text, wrong=bool(missing), fix="install pillow anew.")


def _handles() -> Finding:
    most, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return Finding(name="open files", text="no limit")
    fix = f"ulimit -n {min(max(allowed, LEAST_HANDLES), 65536)}"
    return judged("open files", f"{most:,} at once", wrong=most < LEAST_HANDLES, fix=fix, state=WARNING)


def _shared_memory() -> Finding:
    where = Path("/dev/shm")
    if not where.is_dir():
        return Finding(name="shared memory", text="not used on this system")
    free = shutil.disk_usage(where).free
    fix = "give fewer --workers; in a container raise --shm-size."
    text = f"{in_bytes(free)} free"
    return judged("shared memory", text, wrong=free < LEAST_SHARED, fix=fix, state=WARNING)


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    block = os.urandom(2**20)
    with tempfile.TemporaryFile(dir=folder) as file:
        began = time.perf_counter()
        for _ in range(WRITTEN // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        rate = WRITTEN / (time.perf_counter() - began)
    text = f"{folder}: {in_bytes(free)} free, {rate_of(rate, BYTES)} written to the disk"
    fix = "1.5 GB hold the rows of a million images of ViT-L/14."
    return judged("disk", text, wrong=free < LEAST_FREE, fix=fix, state=WARNING)


def _both_stages() -> Finding:
    """Draw some pictures, embed them with the small teacher, train a student, judge it."""
    from importlib.resources import as_file, files

    from cache.build.from_folder import FeatureOptions, cache_features
    from cache.maintain.verify import verify_cache
    from distill.demo.scenes import draw_dataset
    from distill.judge.evaluate import metrics_of
    from distill.judge.open_run import evaluate_run

    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="distill-doctor-") as scratch:
        root = Path(scratch)
        draw_dataset(root / "data", train_per_class=2, id_test_per_class=1, ood_test_per_class=1)
        with as_file(files("distill.demo") / "teacher") as teacher:
            options = FeatureOptions(model=f"local-dir:{teacher}", workers=1)
            rows = cache_features(root / "data", root / "cache", options).rows
        damaged = [check.file for check in verify_cache(root / "cache") if check.problem]
        _train(root)
        accuracy = metrics_of(evaluate_run(root / "run"))["ood_test_accuracy"]
    did = f"{rows} drawn images cached, two steps trained, OOD {accuracy:.0f}%"
    text = f"{did}: {time.perf_counter() - began:.1f} s"
    return judged("both stages", text, wrong=bool(damaged) or not 0 <= accuracy <= 100)


def _train(root: Path) -> None:
    from distill.settings import load_recipe, with_settings
    from distill.train.start import train

    settings = ["student.arch=timm:test_resnet", "train.epochs=1", "train.batch_size=50", "data.workers=0"]
    config = with_settings(load_recipe("smoke"), settings)
    train(config, cache_dir=root / "cache", data_dir=root / "data", out=root / "run")
