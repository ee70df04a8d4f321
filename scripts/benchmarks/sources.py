"""The same photos from every source.

Stage 1 from opening the source to the finished cache, the teacher loaded before: a folder of class folders,
one with a folder more above them, a list that names the files in place, tars that plain webdataset wrote,
parquet with the files' bytes; and over HTTP (Python's own server, which sends files only whole) and S3
(moto), both on this machine. Tars and row groups hold whole batches, so that all have the same ones; then
every source must have the folder's keys (but for what is above, and the ending, which tars leave out) and its
rows bit for bit, or the benchmark stops. Each run is of a process of its own: memory is the most that was
resident, more than with the teacher alone, and what its largest worker had.
"""

from __future__ import annotations

import argparse
import http.server
import logging
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import webdataset

from benchmarks.cache_probe import resident
from benchmarks.turns import (
    Row,
    alone,
    forget_peak,
    in_turn,
    median_ratios,
    medians,
    one_number,
    weights_of,
)
from cache.build.options import Build, BuildOptions
from cache.build.pipeline import build_cache
from cache.reader import EmbeddingCache
from cache.runtime.devices import choose_device, default_workers
from cache.sources.data import open_data
from cache.sources.samples import DataFolder
from cache.sources.source_options import AS_THEY_ARE, LAST, SourceOptions
from cache.sources.splits import FOLDERS
from cache.store.spec import CacheSpec
from cache.teacher.load import load_teacher
from stress.load import TEACHER

FOLDER = "folder"
OPTIONS = {
    "data": Path,
    "model": f"local-dir:{TEACHER}",
    "batch_size": 32,
    "workers": -1,  # as many as a run has
    "device": "auto",
}
COLUMNS = {
    "source": "{}",
    "images/s": "{:,.1f}",
    "beside the folder": "{:.2f}",
    "opening": "{:.2f} s",
    "memory": "{:+,.0f} MB",
    "a worker": "{:,.0f} MB",
    "equal rows": "{:,}",
}
# Batches of a tar and of a row group of parquet.
BATCHES = 4
BUCKET = "benchmark"


@dataclass(frozen=True, kw_only=True)
class Way:
    """A source as stage 1 is told it; ``key`` makes of a key of the folder the one that it has."""

    place: str
    options: SourceOptions = AS_THEY_ARE
    key: Callable[[str], str] = str


def below(key: str) -> str:
    """Return a key with a folder above it."""
    return f"all/{key}"


def bare(key: str) -> str:
    """Return a key without its ending."""
    return str(PurePosixPath(key).with_suffix(""))


def write_nested(photos: DataFolder, out: Path) -> None:
    """Link the photos into ``SPLIT/all/CLASS``."""
    for name, source in photos.splits.items():
        for photo in source.all():
            link = out / FOLDERS[name] / "all" / photo.key
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path(photo.where).absolute())


def write_list(photos: DataFolder, out: Path) -> None:
    """Write a CSV that names the photos where they are."""
    import csv

    with out.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["path", "key", "label", "split"])
        for name, source in photos.splits.items():
            lines.writerows(
                (Path(one.where).absolute(), one.key, one.labels[0], name) for one in source.all()
            )


def write_tars(photos: DataFolder, out: Path, per_tar: int) -> None:
    """Write tars of so many photos with plain webdataset."""
    out.mkdir()
    for name, source in photos.splits.items():
        with webdataset.ShardWriter(
            f"{out}/{name}-%05d.tar", maxcount=per_tar, encoder=False, verbose=0
        ) as tars:
            for one in source.all():
                ending = PurePosixPath(one.key).suffix.removeprefix(".")
                sample = {"__key__": bare(one.key), ending: one.content(), "cls": one.labels[0].encode()}
                tars.write(sample)


def write_parquet(photos: DataFolder, out: Path, per_group: int) -> None:
    """Write a file of the photos' bytes for each split."""
    import pyarrow
    from pyarrow import parquet

    out.mkdir()
    for name, source in photos.splits.items():
        samples = source.all()
        table = pyarrow.table(
            {
                "image": [one.content() for one in samples],
                "key": [one.key for one in samples],
                "label": [one.labels[0] for one in samples],
            }
        )
        parquet.write_table(table, out / f"{name}-00000.parquet", row_group_size=per_group)


@contextmanager
def web(folder: Path) -> Iterator[str]:
    """Serve a folder; yields its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def s3() -> Iterator[Callable[[Path], str]]:
    """Serve an S3, which the environment names; yields what puts a folder there and returns its address."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    told = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)

        def put(folder: Path) -> str:
            for file in (file for file in folder.rglob("*") if file.is_file()):
                client.upload_file(str(file), BUCKET, f"{folder.name}/{file.relative_to(folder)}")
            return f"s3://{BUCKET}/{folder.name}"

        yield put
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        server.stop()


def ways_of(args: argparse.Namespace, root: Path, stack: ExitStack) -> dict[str, Way]:
    """Write the photos in every form, and serve them as long as the stack is there."""
    photos, whole = open_data([args.data]), BATCHES * args.batch_size
    write_nested(photos, root / "nested")
    write_list(photos, root / "list.csv")
    write_tars(photos, root / "tars", whole)
    ways = {
        FOLDER: Way(place=str(args.data)),
        "nested folder": Way(place=str(root / "nested"), options=SourceOptions(class_depth=LAST), key=below),
        "CSV": Way(place=str(root / "list.csv")),
        "tars": Way(place=str(root / "tars"), key=bare),
    }
    if _is_there("pyarrow", "parquet"):
        write_parquet(photos, root / "parquet", whole)
        ways["parquet"] = Way(place=str(root / "parquet"))
    if _is_there("fsspec", "HTTP") and _is_there("aiohttp", "HTTP"):
        (root / "photos").symlink_to(args.data.absolute())
        address = stack.enter_context(web(root))
        ways["folder, HTTP"] = Way(place=f"{address}/photos")
        ways["tars, HTTP"] = Way(place=f"{address}/tars", key=bare)
    if _is_there("s3fs", "S3") and _is_there("moto", "S3"):
        put = stack.enter_context(s3())
        ways["folder, S3"] = Way(place=put(args.data.absolute()))
        ways["tars, S3"] = Way(place=put(root / "tars"), key=bare)
    return ways


def _is_there(package: str, what: str) -> bool:
    there = find_spec(package) is not None
    if not there:
        print(f"{what} is left out: {package} is not installed", file=sys.stderr)
    return there


def run(args: argparse.Namespace, way: Way, weights: str | None, out: Path) -> dict[str, float]:
    """Do a whole stage-1 run; return its images/s, seconds of opening, and memory in MB."""
    device = choose_device(args.device)
    teacher = load_teacher(args.model, pretrained=weights, device=device)
    workers = default_workers(device) if args.workers < 0 else args.workers
    options = BuildOptions(model="", batch_size=args.batch_size, workers=workers)
    shutil.rmtree(out, ignore_errors=True)
    forget_peak()
    before, began = resident()["all"], time.perf_counter()
    folder = open_data([way.place], way.options)
    opening = time.perf_counter() - began
    spec = CacheSpec(teacher=teacher.spec)
    summary = build_cache(Build(folder=folder, out=out, teacher=teacher, spec=spec, options=options))
    seconds = time.perf_counter() - began
    return {
        "images/s": summary.new_rows / seconds,
        "opening": opening,
        "memory": (resident()["peak"] - before) / 1e6,
        "a worker": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6,
    }


def equal_rows(folder: Path, other: Path, key: Callable[[str], str]) -> int:
    """Return how many rows two caches have, each the other's; AssertionError if any is not."""
    ours, theirs = EmbeddingCache.open(folder), EmbeddingCache.open(other)
    assert ours.split_names == theirs.split_names, (ours.split_names, theirs.split_names)
    rows = 0
    for name in ours.split_names:
        split, same = ours.split(name), theirs.split(name)
        at = {one: number for number, one in enumerate(same.keys)}
        keys = [key(one) for one in split.keys]
        assert at.keys() == {*keys}, f"{other}: other keys in {name}: {sorted(at.keys() ^ {*keys})[:3]}"
        found = same.embeddings[[at[one] for one in keys]]
        assert np.array_equal(split.embeddings[:], found), f"{other}: other rows in {name}"
        rows += len(keys)
    return rows


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Let all sources take turns."""
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        root = Path(scratch)
        ways = ways_of(args, root, stack)
        weights = weights_of(args.model, root)
        takes = {
            name: partial(alone, args, run, args, way, weights, root / "caches" / name)
            for name, way in ways.items()
        }
        rounds = in_turn(takes, args.rounds)
        folder = root / "caches" / FOLDER
        equal = {name: equal_rows(folder, root / "caches" / name, way.key) for name, way in ways.items()}
    ratios = median_ratios(one_number(rounds, "images/s"), FOLDER)
    numbers = {what: medians(one_number(rounds, what)) for what in rounds[0][FOLDER]}
    table: list[Row] = [
        {
            "source": name,
            **{what: of_ways[name] for what, of_ways in numbers.items()},
            "beside the folder": ratios[name],
            "equal rows": equal[name],
        }
        for name in ways
    ]
    return table, rounds
