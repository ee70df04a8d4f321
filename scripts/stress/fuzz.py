"""Coverage-guided fuzzing of all that reads a file from elsewhere.

Needs atheris (``pip install ".[fuzz]"``). Each target starts from small sound files and changes
them for ``--seconds``, in a process of its own: a reader may refuse a file in one line, or read it; anything
else is a finding (another exception, a crash, four gigabytes of memory, ten seconds), whose input is kept
in ``--out``. Checksums that a file carries are set right again after each change: whoever makes a file on
purpose does so too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

SEEDS = 3
MEGABYTES, SECONDS_AT_MOST = 4096, 10
INSTRUMENTED = ["cache", "distill", "webdataset", "tarfile", "zipfile"]
Read = Callable[[bytes, Path], None]


def readers() -> dict[str, Read]:
    """Return what each target does with some bytes and a folder of its own."""
    import numpy as np

    from cache.runtime.atomic_files import sha256_of
    from cache.sources.arrays import load_array
    from cache.sources.image_folder import load_rgb
    from cache.store.checksums import append_checksum, with_checksum
    from cache.store.manifest import Manifest
    from cache.store.neighbours import load_neighbours
    from cache.store.shard_formats import FORMATS
    from cache.store.text_banks import load_bank
    from distill.checkpoint import read_checkpoint
    from distill.judge.outputs import load_outputs

    def kept(raw: bytes, folder: Path, name: str) -> Path:
        path = folder / name
        path.write_bytes(raw)
        return path

    def manifest(raw: bytes, folder: Path) -> None:
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError):
            value = None
        text = with_checksum(value).encode() if isinstance(value, dict) else raw
        kept(text, folder, "manifest.json")
        Manifest.load(folder)

    def shard(format: str) -> Read:
        def read(raw: bytes, folder: Path) -> None:
            path = kept(raw, folder, f"train-00000.{FORMATS[format].ENDING}")
            FORMATS[format].wrong_rows(path)
            FORMATS[format].read(path, sha256=sha256_of(path)).loaded()

        return read

    def bank(raw: bytes, folder: Path) -> None:
        path = kept(raw, folder, "labels.h5")
        load_bank(path, "labels", sha256=sha256_of(path)).class_texts(["a"])

    def neighbours(raw: bytes, folder: Path) -> None:
        nearest = load_neighbours(kept(raw, folder, "x.h5"), made_from="x", k=1, rows=2)
        if nearest is not None:
            np.asarray(nearest[0])

    def checkpoint(raw: bytes, folder: Path) -> None:
        path = kept(raw, folder, "last.pt")
        append_checksum(path)
        read_checkpoint(path)

    return {
        "manifest": manifest,
        "hdf5-shard": shard("hdf5"),
        "tar-shard": shard("webdataset"),
        "text-bank": bank,
        "neighbours": neighbours,
        "checkpoint": checkpoint,
        "image": lambda raw, folder: load_rgb(kept(raw, folder, "x.jpg")).close(),
        "outputs": lambda raw, folder: load_outputs(kept(raw, folder, "outputs.npz")) and None,
        "npy": lambda raw, folder: load_array(str(kept(raw, folder, "x.npy"))) is None,
        "pt": lambda raw, folder: load_array(str(kept(raw, folder, "x.pt"))) is None,
    }


def write_seeds(root: Path) -> None:
    """Write small sound files of every target into ``root/TARGET``."""
    import numpy as np
    import torch
    from PIL import Image

    from cache.maintain.import_embeddings import ImportedTexts, import_embeddings
    from cache.store.neighbours import save_neighbours
    from cache.store.text_banks import make_bank, save_bank

    for target in TARGETS:
        (root / target).mkdir(parents=True)
    rng = np.random.default_rng(0)
    bank = ImportedTexts(name="labels", classes=["a", "b"], embeddings=np.eye(2, 3, dtype="float32"))
    for n in range(1, SEEDS + 1):
        keys = [f"train/a/{i}.jpg" for i in range(n)] + ["val/b/0.jpg"]
        rows = rng.normal(size=(len(keys), 3)).astype("float32")
        for format, target in (("hdf5", "hdf5-shard"), ("webdataset", "tar-shard")):
            made = root / f"made-{format}-{n}"
            import_embeddings(
                made, keys=keys, embeddings=rows, texts=[bank], format=format, caption_embeddings=rows
            )
            (made / "manifest.json").rename(root / "manifest" / f"{format}-{n}")
            next((made / "images").glob("train*")).rename(root / target / str(n))
        bank_of_texts = make_bank("x", ["a", "b"][:n], ["a", "b"][:n], np.ones((min(n, 2), 3)))
        save_bank(root, bank_of_texts, made_from="")
        (root / "texts" / "x.h5").rename(root / "text-bank" / str(n))
        nearest = (np.zeros((2, n), dtype="int32"), np.ones((2, n), dtype="float32"))
        save_neighbours(root / "neighbours" / str(n), nearest, made_from="x")
        torch.save({"schema_version": 2, "student": {"w": torch.ones(n)}}, root / "checkpoint" / str(n))
        torch.save(torch.ones(n, 2), root / "pt" / str(n))
        with open(root / "npy" / str(n), "wb") as file:
            np.save(file, np.ones((n, 2), dtype="float32"))
        with open(root / "outputs" / str(n), "wb") as file:
            np.savez(file, x=np.ones(n))
    for format in ("JPEG", "PNG", "WEBP", "BMP"):
        Image.new("RGB", (9, 7), (200, 30, 10)).save(root / "image" / format, format=format)
    Image.new("P", (9, 7)).save(root / "image" / "palette", format="PNG")
    Image.new("I;16", (9, 7)).save(root / "image" / "grey16", format="PNG")


TARGETS = (
    *("manifest", "hdf5-shard", "tar-shard", "text-bank", "neighbours"),
    *("checkpoint", "image", "outputs", "npy", "pt"),
)


# --corpus is given to the process of one target, which libFuzzer ends.
OPTIONS = {"targets": list(TARGETS), "seconds": 60, "out": Path("artifacts") / "fuzz", "corpus": ""}


def fuzz(target: str, corpus: Path, out: Path, seconds: int) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris

    # Compiled parts are run as they are; what steers is our own code and the archives' readers.
    with atheris.instrument_imports(include=INSTRUMENTED):
        import distill.checkpoint
        import distill.judge.outputs  # noqa: F401
    from cache.runtime.errors import UserError
    from cache.sources.samples import UnreadableImage

    read = readers()[target]
    # In memory: a disk would be most of the time.
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=fast))

    def once(raw: bytes) -> None:
        try:
            read(raw, folder)
        except (UserError, UnreadableImage):
            return
        finally:
            for path in folder.iterdir():
                path.unlink()

    limits = [f"-max_total_time={seconds}", f"-timeout={SECONDS_AT_MOST}", f"-rss_limit_mb={MEGABYTES}"]
    atheris.Setup([sys.argv[0], str(corpus), f"-artifact_prefix={out}/{target}-", *limits], once)
    atheris.Fuzz()


def run(args: argparse.Namespace) -> int:
    """Fuzz the targets one after the other, print what comes of it; return the status to leave with."""
    if odd := [target for target in args.targets if target not in TARGETS]:
        sys.exit(f"--targets: {odd[0]!r} is not one; choose from {', '.join(TARGETS)}")
    if find_spec("atheris") is None:
        sys.exit('fuzzing needs atheris: pip install ".[fuzz]"')
    if args.corpus:
        fuzz(args.targets[0], Path(args.corpus), args.out, args.seconds)
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="fuzz-seeds-") as root:
        write_seeds(Path(root))
        for target in args.targets:
            command = [
                sys.executable,
                sys.argv[0],
                "fuzz",
                "--targets",
                target,
                "--corpus",
                str(Path(root) / target),
            ]
            command += ["--out", str(args.out), "--seconds", str(args.seconds)]
            ended = subprocess.run(command, capture_output=True, text=True)
            done = [line for line in ended.stderr.splitlines() if line.startswith("Done ")]
            verdict = "FINDING" if ended.returncode else "nothing"
            print(f"{target:12} {verdict}: {done[-1] if done else ''}", flush=True)
            if ended.returncode:
                failed = 1
                print(ended.stderr[-3000:])
    return failed
