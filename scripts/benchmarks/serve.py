"""A request to `distill serve`.

Milliseconds of processor of the process that serves, all its threads (Linux), beside a bare loop of
decoding, preparing, onnxruntime and JSON in a process of its own. So many clients ask at once; each keeps
its connection and sends its next image when it has its answer. They take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.turns import Row, alone, command_failed, in_turn, median_ratios, medians, one_number
from cache.sources.decoding import load_rgb
from distill.deploy.model import Model
from distill.deploy.pictures import Pictures

WARM = 50  # requests before each measurement, if it has so many
BARE = "bare"
# Threads are onnxruntime's, 0 all cores; the images are sent again and again.
OPTIONS = {"model": Path, "images": Path, "clients": [1, 64], "threads": 0, "requests": 1000}
COLUMNS = {
    "model, requests": "{}",
    "clients": "{}",
    "processor": "{:.2f} ms",
    "by bare": "{:.2f}",
    "wall": "{:.2f} ms",
    "p50": "{:.2f} ms",
    "p99": "{:.2f} ms",
}


def bare(model: Path, images: list[bytes], requests: int, threads: int) -> dict[str, float]:
    """Return the milliseconds of processor and of wall that an image takes without a service."""
    opened = Model.open(model, threads=threads)
    classes = opened.class_set()

    def answer(raw: bytes) -> str:
        embedding = opened.embed(opened.prepare(load_rgb(io.BytesIO(raw)))[None])
        (best,) = opened.answer(embedding, classes)
        return json.dumps([asdict(label) for label in best.labels])

    for i in range(min(WARM, requests)):
        answer(images[i % len(images)])
    began, cpu = time.perf_counter(), time.process_time()
    for i in range(requests):
        answer(images[i % len(images)])
    cpu, wall = time.process_time() - cpu, time.perf_counter() - began
    return {"processor": 1000 * cpu / requests, "wall": 1000 * wall / requests}


@contextmanager
def served(model: Path, threads: int) -> Iterator[tuple[int, int]]:
    """Yield the process and the port of a running service."""
    command = [sys.executable, "-P", "-m", "cli", "serve", str(model), "--port", "0", "--rate", "1000000"]
    command += ["--threads", str(threads)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if ":" not in line:
                raise command_failed("distill serve", process.wait(), line)
            yield process.pid, int(line.rsplit(":", 1)[1])
        finally:
            process.terminate()


def cpu_seconds(pid: int) -> float:
    """Return the seconds of processor that a process has taken so far, user's and system's."""
    # Linux's clock of another process, which counts nanoseconds; /proc/PID/stat counts in steps of 10 ms.
    return time.clock_gettime((~pid << 3) | 2)


async def ask(port: int, images: list[bytes], clients: int, requests: int) -> list[float]:
    """Send so many requests by so many clients; return the milliseconds of each."""
    left = iter(range(requests))
    took: list[float] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for i in left:
            raw, began = images[i % len(images)], time.perf_counter()
            writer.write(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(raw) + raw)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
            answer = await reader.readexactly(length)
            if b" 200 " not in head.split(b"\r\n")[0]:
                raise RuntimeError(f"the service answers {answer.decode():.200}")
            took.append(1000 * (time.perf_counter() - began))
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return took


def service(pid: int, port: int, images: list[bytes], clients: int, requests: int) -> dict[str, float]:
    """Return what a request costs at so many clients."""
    asyncio.run(ask(port, images, clients, min(max(WARM, 2 * clients), requests)))
    cpu, began = cpu_seconds(pid), time.perf_counter()
    took = asyncio.run(ask(port, images, clients, requests))
    cpu, wall = cpu_seconds(pid) - cpu, time.perf_counter() - began
    quantiles = {"p50": statistics.median(took), "p99": statistics.quantiles(took, n=100)[98]}
    return {"processor": 1000 * cpu / requests, "wall": 1000 * wall / requests, **quantiles}


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Let the bare loop and the service take turns."""
    images = [sample.content() for _, sample in Pictures.of([str(args.images)])]
    Model.open(args.model, threads=args.threads)  # what is wrong with it is told before anything is measured
    with served(args.model, args.threads) as (pid, port):
        ways = {BARE: lambda: alone(args, bare, args.model, images, args.requests, args.threads)}
        for clients in args.clients:
            ways[str(clients)] = lambda n=clients: service(pid, port, images, n, args.requests)
        rounds = in_turn(ways, args.rounds)
    ratios = median_ratios(one_number(rounds, "processor"), BARE)
    about = {"model, requests": f"{args.model.name}, {args.requests}"}
    rows = [
        {**about, "clients": name, **medians([turn[name] for turn in rounds]), "by bare": ratios[name]}
        for name in ways
    ]
    return rows, rounds
