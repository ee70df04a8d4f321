"""Tars of very many tiny samples, written by several processes; nothing here loads torch."""

from __future__ import annotations

import io
import multiprocessing
import os
import tarfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from cache.runtime.atomic_files import replacing
from distill.demo.scenes import draw_scene
from distill.demo.words import CLASSES

SIDE = 16
# The second of 2026's first day: the same tars whenever they are written.
WRITTEN = 1_767_225_600


def write_tars(folder: Path, samples: int, per_tar: int) -> None:
    """Write tars ``train-NNNNN.tar`` of so many samples ``NUMBER.jpg`` and ``NUMBER.cls``, on all cores.

    The pictures are of 16 px, one drawn for each of the demo's classes; a comment in it, the sample's number,
    makes each file another one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, samples, per_tar)
    write = partial(_write_tar, folder, _pictures(), samples, per_tar)
    # Not a fork: whoever measures may have threads.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=spawn) as pool:
        for _ in pool.map(write, starts):
            pass


def _pictures() -> list[bytes]:
    files = []
    for number, one in enumerate(CLASSES):
        file = io.BytesIO()
        pixels = draw_scene(one, np.random.default_rng(number), image_size=SIDE).pixels
        Image.fromarray(pixels).save(file, "JPEG", quality=80)
        files.append(file.getvalue())
    return files


def _write_tar(folder: Path, pictures: Sequence[bytes], samples: int, per_tar: int, first: int) -> None:
    with (
        replacing(folder / f"train-{first // per_tar:05d}.tar") as temporary,
        open(temporary, "wb", buffering=2**20) as file,
    ):
        for number in range(first, min(first + per_tar, samples)):
            kind = number % len(pictures)
            # Behind the first marker of a JPEG: a comment, its length, and eight bytes.
            comment = b"\xff\xfe" + (10).to_bytes(2, "big") + number.to_bytes(8, "big")
            picture = pictures[kind][:2] + comment + pictures[kind][2:]
            for ending, content in (("jpg", picture), ("cls", CLASSES[kind].name.encode())):
                header = tarfile.TarInfo(f"{number:09d}.{ending}")
                header.size, header.mtime = len(content), WRITTEN
                file.write(header.tobuf(tarfile.USTAR_FORMAT))
                file.write(content + b"\0" * (-len(content) % tarfile.BLOCKSIZE))
        file.write(b"\0" * (2 * tarfile.BLOCKSIZE))
