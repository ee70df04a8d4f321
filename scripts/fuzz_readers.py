"""Coverage-guided fuzzing of all that reads a file from elsewhere: ``python scripts/fuzz_readers.py all``.

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
        found = load_neighbours(kept(raw, folder, "x.h5"), made_from="x", k=1, rows=2)
        if found is not None:
            np.asarray(found[0])

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
        found = (np.zeros((2, n), dtype="int32"), np.ones((2, n), dtype="float32"))
        save_neighbours(root / "neighbours" / str(n), found, made_from="x")
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


def main() -> None:
    """Fuzz the targets one after the other, print what was found, and leave with 1 if anything was."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", choices=["all", *TARGETS])
    parser.add_argument("--seconds", type=int, default=60, help="For each target; 60 unless given.")
    parser.add_argument(
        "--out", type=Path, default=Path("artifacts") / "fuzz", help="Where findings are kept."
    )
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)  # given to the process of one target
    given = parser.parse_args()
    if given.corpus:
        fuzz(given.target, given.corpus, given.out, given.seconds)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    failed = False
    with tempfile.TemporaryDirectory(prefix="fuzz-seeds-") as root:
        write_seeds(Path(root) / "seeds")
        for target in TARGETS if given.target == "all" else [given.target]:
            corpus = Path(root) / "seeds" / target
            command = [sys.executable, __file__, target, "--corpus", str(corpus), "--out", str(given.out)]
            ended = subprocess.run(
                [*command, "--seconds", str(given.seconds)], capture_output=True, text=True
            )
            done = next(
                (line for line in reversed(ended.stderr.splitlines()) if line.startswith("Done ")), ""
            )
            print(f"{target:12} {'nothing found' if not ended.returncode else 'FOUND'}: {done}", flush=True)
            if ended.returncode:
                failed = True
                print(ended.stderr[-3000:])
    sys.exit(failed)


if __name__ == "__main__":
    main()
