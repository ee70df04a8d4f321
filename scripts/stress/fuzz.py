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
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache import EmbeddingCache

SEEDS = 3
MEGABYTES, SECONDS_AT_MOST = 4096, 10
INSTRUMENTED = ["cache", "distill", "webdataset", "tarfile", "zipfile"]
Read = Callable[[bytes, Path], None]
JOURNAL = "journal/main.jsonl"
# The format of a small cache, and which of its files is changed.
FILES = {
    "manifest": ("hdf5", "manifest.json"),
    "journal": ("hdf5", JOURNAL),
    "keys": ("hdf5", "rows/train-00000/keys.h5"),
    "column": ("hdf5", "rows/train-00000/image_embedding.h5"),
    "captions": ("hdf5", "rows/train-00000/caption_embedding.h5"),
    "index": ("hdf5", "index/train.h5"),
    "text-bank": ("hdf5", "texts/labels.h5"),
    "tar": ("webdataset", "tars/train-00000.tar"),
    "chunks": ("hdf5", "index/train.chunks.json"),
}
IN_A_CACHE = tuple(target for target in FILES if target != "chunks")
TARGETS = (*FILES, "touched", "checkpoint", "image", "outputs", "npy", "pt")


def readers() -> dict[str, Read]:
    """Return what each target does with some bytes and a folder of its own."""
    from cache.build.chunk_identities import rows_when_done
    from cache.build.touched_files import TouchedFiles
    from cache.sources.arrays import load_array
    from cache.sources.decoders import DECODERS, squash
    from cache.sources.decoding import Decoding, load_rgb
    from cache.store.checksums import append_checksum
    from distill.checkpoint import read_checkpoint
    from distill.judge.outputs import load_outputs

    small = Decoding(max_pixels=1_000_000)

    def kept(raw: bytes, folder: Path, name: str) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        return path

    def checkpoint(raw: bytes, folder: Path) -> None:
        path = kept(raw, folder, "last.pt")
        append_checksum(path)
        read_checkpoint(path)

    def image(raw: bytes, folder: Path) -> None:
        assert load_rgb(kept(raw, folder, "x.jpg"), decoding=small).mode == "RGB"
        for decoder in DECODERS:
            squash(raw, 8, small, decoder=decoder, name="x.jpg")

    def chunks(raw: bytes, folder: Path) -> None:
        kept(raw, folder, FILES["chunks"][1])
        rows_when_done(folder, "train", ())

    def touched(raw: bytes, folder: Path) -> None:
        kept(raw, folder, "index/train.touched.h5")
        TouchedFiles.load(folder, "train").hashes.sum()

    return {
        **{target: in_a_cache(*FILES[target]) for target in IN_A_CACHE},
        "chunks": chunks,
        "touched": touched,
        "checkpoint": checkpoint,
        "image": image,
        "outputs": lambda raw, folder: load_outputs(kept(raw, folder, "outputs.npz")) and None,
        "npy": lambda raw, folder: load_array(str(kept(raw, folder, "x.npy"))) is None,
        "pt": lambda raw, folder: load_array(str(kept(raw, folder, "x.pt"))) is None,
    }


def in_a_cache(format: str, name: str) -> Read:
    """Return what reads a whole small cache, one file of which is the given bytes."""
    from dataclasses import replace

    from cache import EmbeddingCache
    from cache.store.journal import Journal
    from cache.store.manifest import NAME, Manifest

    mended = {NAME: mended_manifest, JOURNAL: mended_journal}.get(name, bytes)

    def read(raw: bytes, folder: Path) -> None:
        if not (folder / NAME).exists():
            write_cache(folder, format)
        (folder / name).write_bytes(mended(raw))
        manifest, journal = Manifest.load(folder), Journal.load(folder)
        if line := journal.files.get(name):
            journal.add(replace(line, bytes=len(raw)))
        for bank in manifest.banks.values():
            if bank.file == name:
                manifest = replace(manifest, banks={"labels": replace(bank, sha256=sha256(raw).hexdigest())})
        read_all(EmbeddingCache(folder, manifest, journal))

    return read


def read_all(cache: EmbeddingCache) -> None:
    """Read what training and evaluation read."""
    for split in cache.split_names:
        rows = cache.split(split)
        keys = list(rows.keys)
        assert len(rows.labels) == len(keys) == len(rows)
        everything = [rows.embeddings[:], rows.files.content[:], rows.find(keys)]
        if rows.captions is not None and rows.caption_embeddings is not None:
            everything += [list(rows.captions), rows.caption_embeddings[[0]]]
    for bank in cache.bank_names:
        cache.text_bank(bank).class_texts(["a"])


def mended_manifest(raw: bytes) -> bytes:
    """Return a manifest with the checksum that it should have."""
    from cache.store.checksums import with_checksum

    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return raw
    return with_checksum(value).encode(errors="surrogatepass") if isinstance(value, dict) else raw


def mended_journal(raw: bytes) -> bytes:
    """Return lines with the checksums that they should have."""
    return b"\n".join(map(_mended_line, raw.split(b"\n")))


def _mended_line(line: bytes) -> bytes:
    head, checksum, _ = line.rpartition(b',"crc32":')
    text = head + b"}"
    return head + b',"crc32":%d}' % zlib.crc32(text) if checksum else line


def write_cache(out: Path, format: str, seed: int = 0) -> None:
    """Write a small cache of pictures with captions: two in one split, one in another."""
    import numpy as np
    from PIL import Image

    from cache.maintain.import_embeddings import import_embeddings
    from cache.maintain.imported import Imported
    from cache.maintain.imported_banks import ImportedTexts
    from cache.sources.data import open_data

    rng, keys = np.random.default_rng(seed), ["train/a/0.jpg", "train/a/1.jpg", "val/b/0.jpg"]
    with tempfile.TemporaryDirectory(prefix="fuzz-photos-") as photos:
        for key in keys:
            (Path(photos) / key).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), tuple(rng.integers(0, 255, 3).tolist())).save(Path(photos) / key)
        given = rng.normal(size=(len(keys), 3)).astype("float32")
        bank = ImportedTexts(name="labels", classes=["a", "b"], embeddings=np.eye(2, 3, dtype="float32"))
        import_embeddings(
            out,
            Imported(
                keys=keys,
                embeddings=given,
                texts=[bank],
                format=format,
                caption_embeddings=given,
                folder=open_data([Path(photos)]),
            ),
        )


def write_seeds(root: Path) -> None:
    """Write small sound files of every target into ``root/TARGET``."""
    import numpy as np
    import torch

    from cache.store.hdf5_columns import write_columns

    for target in TARGETS:
        (root / target).mkdir(parents=True)
    for n in range(1, SEEDS + 1):
        for format in ("hdf5", "webdataset"):
            write_cache(root / f"made-{format}-{n}", format, seed=n - 1)
        for target in IN_A_CACHE:
            format, name = FILES[target]
            shutil.copyfile(root / f"made-{format}-{n}" / name, root / target / str(n))
        (root / "chunks" / str(n)).write_text(json.dumps({f"{i:04x}": "0" * 64 for i in range(n)}))
        seen = {"hash": np.arange(n, dtype=np.uint64), "seen": np.ones((n, 3), dtype=np.int64)}
        write_columns(root / "touched" / str(n), seen)
        torch.save({"schema_version": 3, "student": {"w": torch.ones(n)}}, root / "checkpoint" / str(n))
        torch.save(torch.ones(n, 2), root / "pt" / str(n))
        with open(root / "npy" / str(n), "wb") as file:
            np.save(file, np.ones((n, 2), dtype="float32"))
        with open(root / "outputs" / str(n), "wb") as file:
            np.savez(file, x=np.ones(n))
    write_pictures(root / "image")


def write_pictures(folder: Path) -> None:
    """Write a small picture of every format, and of the modes that are decoded in a way of their own."""
    from PIL import Image, features

    exif = Image.Exif()
    exif[0x0112] = 6
    for format in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF"):
        if format != "AVIF" or features.check("avif"):
            options = {"exif": exif} if format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") else {}
            Image.new("RGB", (9, 7), (200, 30, 10)).save(folder / format, format=format, **options)
    if find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.from_pillow(Image.new("RGB", (9, 7), (200, 30, 10))).save(folder / "HEIF")
    Image.new("P", (9, 7)).save(folder / "palette", format="PNG")
    Image.new("CMYK", (9, 7)).save(folder / "cmyk", format="JPEG")
    for mode in ("I;16", "I", "F"):
        Image.new(mode, (9, 7), 900).save(folder / f"grey-{mode.replace(';', '')}", format="TIFF")


# --corpus is given to the process of one target, which libFuzzer ends.
OPTIONS = {"targets": list(TARGETS), "seconds": 60, "out": Path("artifacts") / "fuzz", "corpus": ""}


def fuzz(target: str, corpus: Path, out: Path, seconds: int) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris

    # Beside the corpus, and so removed with it: libFuzzer ends this process.
    folder = corpus.with_name(f"{target}-read")
    folder.mkdir()
    # Compiled parts are run as they are; what steers is our own code and the archives' readers.
    with atheris.instrument_imports(include=INSTRUMENTED):
        read = readers()[target]
        read(min(corpus.iterdir()).read_bytes(), folder)  # which imports the rest of it
    from cache.runtime.errors import UserError
    from cache.sources.decoding import UnreadableImage

    def once(raw: bytes) -> None:
        try:
            read(raw, folder)
        except (UserError, UnreadableImage):
            return

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
    # In memory: a disk would be most of the time.
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=fast) as root:
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
                print(f"status {ended.returncode}: {ended.stderr[-3000:]}")
    return failed
