"""What a request to `distill serve` costs beside the bare work: decoding, the model, the answer.

    python scripts/bench_serve.py MODEL --images FOLDER --clients 1,64 --rounds 3

Bare is a loop in a process of its own: decode, prepare, embed one image, answer, JSON. The service is asked
by so many clients at once, each of which keeps its connection and sends its next image when it has its
answer. They take turns. Time of the processor is that of the process that serves, all its threads (Linux).
Prints a table of medians, writes JSON.
"""

from __future__ import annotations

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

import torch

from bench_parts import fresh, leave, listed, medians, parser_of, run, whole, write_result
from cache.runtime.atomic_files import write_json
from cache.sources.image_folder import load_rgb
from distill.deploy.model import Model
from distill.deploy.predict import image_files, labels_of

WARM = 50  # requests before each measurement, if it has so many


def bare(model: Path, images: list[bytes], requests: int, threads: int) -> dict[str, float]:
    """Return the milliseconds of processor and of wall that an image takes without a service."""
    opened = Model.open(model, threads=threads)
    classes = opened.class_set()

    def answer(raw: bytes) -> str:
        embedding = opened.embed(opened.prepare(load_rgb(io.BytesIO(raw)))[None])
        found = opened.answer(embedding, classes)
        labels = labels_of(classes, found.places[0], found.scores[0], found.similarities[0])
        return json.dumps([asdict(label) for label in labels])

    for i in range(min(WARM, requests)):
        answer(images[i % len(images)])
    began, cpu = time.perf_counter(), time.process_time()
    for i in range(requests):
        answer(images[i % len(images)])
    return {
        "cpu_ms": 1000 * (time.process_time() - cpu) / requests,
        "wall_ms": 1000 * (time.perf_counter() - began) / requests,
    }


@contextmanager
def served(model: Path, threads: int) -> Iterator[tuple[int, int]]:
    """Yield the process and the port of a running service."""
    command = [sys.executable, "-P", "-m", "cli", "serve", str(model), "--port", "0", "--rate", "1000000"]
    command += ["--threads", str(threads)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        if ":" not in said:
            leave("Error: distill serve did not start.", process.wait())
        yield process.pid, int(said.rsplit(":", 1)[1])
    finally:
        process.terminate()
        process.wait()


def cpu_seconds(pid: int) -> float:
    """Return the seconds of processor that a process has taken so far, user's and system's."""
    # Linux's clock of another process, which counts nanoseconds; /proc/PID/stat counts in steps of 10 ms.
    return time.clock_gettime((~pid << 3) | 2)


async def asked(port: int, images: list[bytes], clients: int, requests: int) -> list[float]:
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
            said = await reader.readexactly(length)
            if b" 200 " not in head.split(b"\r\n")[0]:
                leave(f"Error: the service said {said.decode():.200}", 1)
            took.append(1000 * (time.perf_counter() - began))
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return took


def service(pid: int, port: int, images: list[bytes], clients: int, requests: int) -> dict[str, float]:
    """Return what a request costs at so many clients."""
    asyncio.run(asked(port, images, clients, min(max(WARM, 2 * clients), requests)))
    cpu, began = cpu_seconds(pid), time.perf_counter()
    took = asyncio.run(asked(port, images, clients, requests))
    return {
        "cpu_ms": 1000 * (cpu_seconds(pid) - cpu) / requests,
        "wall_ms": 1000 * (time.perf_counter() - began) / requests,
        "p50_ms": statistics.median(took),
        "p99_ms": statistics.quantiles(took, n=100)[98],
    }


def main() -> None:
    """Parse, measure, print."""
    parser = parser_of(__file__, __doc__, rounds=3)
    parser.add_argument("model", type=Path)
    parser.add_argument(
        "--images", type=Path, required=True, help="Folder of images to send, again and again."
    )
    parser.add_argument("--clients", type=listed(whole(1)), default="1,64")
    parser.add_argument("--threads", type=whole(0), default=0, help="Of onnxruntime; 0: all cores.")
    parser.add_argument("--requests", type=whole(2), default=1000)
    parser.add_argument("--bare", action="store_true", help="The bare loop alone, as each round starts it.")
    args = parser.parse_args()
    images = [path.read_bytes() for path in image_files([args.images])]
    if args.bare:
        write_json(args.out, bare(args.model, images, args.requests, args.threads))
        return
    rounds: list[dict[str, dict[str, float]]] = []
    with served(args.model, args.threads) as (pid, port):
        for _ in range(args.rounds):
            shared = [args.model, "--images", args.images, "--requests", args.requests, "--bare"]
            shared += ["--threads", args.threads]
            found: dict[str, Any] = {"bare": fresh(Path(__file__), shared)}
            for clients in args.clients:
                found[str(clients)] = service(pid, port, images, clients, args.requests)
            rounds.append(found)
    result = {name: medians([one[name] for one in rounds]) for name in rounds[0]}
    print(f"{'clients':>10}{'CPU, ms':>10}{'by bare':>10}{'wall, ms':>10}{'p50, ms':>10}{'p99, ms':>10}")
    for name, medium in result.items():
        medium["ratio"] = statistics.median(one[name]["cpu_ms"] / one["bare"]["cpu_ms"] for one in rounds)
        print(
            f"{name:>10}{medium['cpu_ms']:10.2f}{medium['ratio']:10.2f}{medium['wall_ms']:10.2f}"
            f"{medium.get('p50_ms', medium['wall_ms']):10.2f}{medium.get('p99_ms', 0):10.2f}"
        )
    write_result(args, {"rounds": rounds, "clients": result}, torch.device("cpu"))


if __name__ == "__main__":
    run(main)
