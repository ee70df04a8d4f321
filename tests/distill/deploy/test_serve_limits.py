"""What the service does where too much is asked of it, or too slowly, and when it is told to end."""

from __future__ import annotations

import asyncio
import io
import signal
import socket
import threading
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.exported import invoke, val_photos
from helpers.pictures import png_of
from helpers.services import Ask, answered, connected, post, rest, running, serving, started, until
from PIL import Image

from cache.sources.decoding import load_rgb
from distill.deploy.decoding import Decoders, Pixels
from distill.deploy.limits import Limits, Rates, Refused, Room
from distill.deploy.model import Model


@pytest.fixture(scope="module")
def opened(exported: Path) -> Model:
    """An open model."""
    return Model.open(exported)


@pytest.fixture
def raw(trained: Path) -> bytes:
    """A small photo."""
    return val_photos(trained)[0].read_bytes()


def png(side: int) -> bytes:
    """A plain picture."""
    file = io.BytesIO()
    Image.new("L", (side, side), 100).save(file, format="PNG")
    return file.getvalue()


def in_work(ask: Ask) -> int:
    """How many requests the service says are in work."""
    status, health = ask("/health")
    assert status == 200
    waiting: int = health["waiting"]
    return waiting


def half(ask: Ask, raw: bytes) -> socket.socket:
    """A connection that has sent all of a request but its end, and is known to be in work."""
    before = in_work(ask)
    connection = connected(ask, post(b"Content-Length: %d\r\n" % len(raw)) + raw[:-9])
    until(lambda: in_work(ask) == before + 1)
    return connection


def test_a_client_gets_ten_seconds_worth_at_once_and_no_more():
    rates = Rates(2)
    for _ in range(20):
        rates.take("a")
    with pytest.raises(Refused, match="more than 2 requests a second"):
        rates.take("a")
    rates.take("b")


def test_a_client_that_was_away_has_saved_up_no_more_than_ten_seconds_worth(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("distill.deploy.limits.time", SimpleNamespace(monotonic=lambda: now[0]))
    rates = Rates(2)
    rates.take("a")
    now[0] = 3600.0
    for _ in range(20):
        rates.take("a")
    with pytest.raises(Refused, match="ask again in 1 s"):
        rates.take("a")
    now[0] += 0.5
    rates.take("a")


def test_a_client_that_asks_too_often_is_told_when_to_come_again_and_health_is_not_counted(opened):
    with running(opened, rate=0.01) as ask:
        for _ in range(3):
            assert ask("/health")[0] == 200
        assert ask("/labels")[0] == 200
        message = "more than 0.01 requests a second; ask again in 100 s"
        assert ask("/labels") == (429, {"error": message})
        assert ask.headers["Retry-After"] == "100"
        assert ask("/health")[0] == 200
        assert ask("/health/x")[0] == 429


def test_a_thousand_requests_may_be_in_work_and_no_more():
    room = Room(Limits())
    with ExitStack() as held:
        for _ in range(1000):
            held.enter_context(room.admit(0))
        with pytest.raises(Refused, match="1,000 requests are in work") as refused, room.admit(0):
            pass
        assert (refused.value.status, refused.value.after) == (503, 1)
    with room.admit(0):
        assert room.requests == 1


def test_bodies_share_memory_of_which_a_quarter_is_for_small_ones():
    room = Room(Limits(megabytes=10, memory=40))
    with ExitStack() as held:
        large = [held.enter_context(room.admit(10_000_000)) for _ in range(3)]
        with pytest.raises(Refused, match="take all the memory"), room.admit(1_000_001):
            pass
        for _ in range(10):
            held.enter_context(room.admit(1_000_000))
        with pytest.raises(Refused, match="take all the memory"), room.admit(1):
            pass
        large[0].hold(10_000_000)  # which it has
        with pytest.raises(Refused, match="larger than 10 MB"):
            large[0].hold(10_000_001)
    assert (room.bytes, room.requests) == (0, 0)
    with room.admit(0) as undeclared:
        undeclared.hold(6_000_000)
        assert room.bytes == 6_000_000
    assert room.bytes == 0


def test_a_request_without_room_is_refused_before_its_body_is_there_and_health_answers(opened, raw):
    with running(opened, waiting=2) as ask:
        first, second = half(ask, raw), half(ask, raw)
        with connected(ask, post(b"Content-Length: 100\r\n")) as third:
            status, head = answered(third)
        assert status == 503
        assert "retry-after: 1\r\n" in head
        assert ask("/labels")[0] == 503
        assert in_work(ask) == 2
        first.close()
        until(lambda: in_work(ask) == 1)
        assert ask("/predict", raw)[0] == 200
        second.sendall(raw[-9:])
        assert answered(second)[0] == 200
        second.close()


def test_a_body_that_is_declared_too_large_or_grows_so_is_refused_and_its_connection_ends(opened):
    with running(opened, megabytes=0.01, linger=0.1) as ask:
        declared = rest(connected(ask, post(b"Content-Length: 10001\r\n")))
        assert declared.startswith(b"HTTP/1.1 413 ")
        growing = rest(connected(ask, post(b"Transfer-Encoding: chunked\r\n") + b"2711\r\n" + b"x" * 10001))
        assert growing.startswith(b"HTTP/1.1 413 ")
        assert ask("/predict", b"x" * 10_000)[0] == 415


def test_a_body_that_stops_is_refused_and_its_connection_ends(opened, raw):
    with running(opened, body=0.2, linger=0.1) as ask:
        answer = rest(connected(ask, post(b"Content-Length: 5000\r\n") + b"x" * 99))
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"the body comes too slowly: 99 bytes so far" in answer
        assert in_work(ask) == 0
    # What came fast buys no time: these bytes would be worth an hour.
    with running(opened, body=0.2, slowest=0.1, linger=0.1) as ask:
        answer = rest(connected(ask, post(b"Content-Length: 5000\r\n") + b"x" * 400))
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_connections_whose_header_does_not_come_are_closed(opened, raw):
    with running(opened, header=0.3, idle=1) as ask:
        begun = (b"", b"\r\n", b"POST /predict HTTP/1.1\r\nHost: x\r\nX-A: ")
        silent = [connected(ask, begun[i % 3]) for i in range(30)]
        assert ask("/predict", raw)[0] == 200
        assert {rest(connection) for connection in silent} == {b""}
        kept = connected(ask, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health")
        assert rest(kept).count(b"HTTP/1.1 200") == 1


def test_of_too_many_connections_the_oldest_that_does_nothing_goes(opened, raw):
    with running(opened, connections=3, header=60) as ask:
        working = half(ask, raw)
        oldest, younger = connected(ask, b"GET"), connected(ask, b"GET")
        assert ask("/health")[0] == 200
        assert rest(oldest) == b""
        working.sendall(raw[-9:])
        assert answered(working)[0] == 200
        working.close()
        younger.sendall(b" /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert rest(younger).startswith(b"HTTP/1.1 200")


class Gate:
    """A way to prepare images, of which large ones wait until it opens."""

    def __init__(self, side: int) -> None:
        self.open, self._side, self._lock = threading.Event(), side, threading.Lock()
        self.pixels = self.most = 0

    def prepare(self, raw: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(raw))
        pixels = image.width * image.height
        if image.width >= self._side:
            with self._lock:
                self.pixels += pixels
                self.most = max(self.most, self.pixels)
            assert self.open.wait(60)
            with self._lock:
                self.pixels -= pixels
        return np.array([image.width])


def test_small_images_are_answered_while_large_ones_wait_and_of_those_only_some_may():
    gate = Gate(1500)

    async def ask() -> list[Any]:
        decoders = Decoders(gate.prepare, Limits(pixels=5_000_000, queue=1))
        large = [asyncio.create_task(decoders.prepared(png(1500))) for _ in range(5)]
        (refused,), waiting = await asyncio.wait(large, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(Refused, match="many large images wait") as error:
            refused.result()
        assert (error.value.status, error.value.after) == (503, 5)
        small = [await decoders.prepared(png(8)) for _ in range(20)]
        gate.open.set()
        answers = small + list(await asyncio.gather(*waiting))
        decoders.close()
        return answers

    assert [int(one[0]) for one in asyncio.run(ask())] == [8] * 20 + [1500] * 4
    assert 0 < gate.most <= 5_000_000


def test_all_images_that_fit_begin_when_a_large_one_is_done():
    async def both() -> list[str]:
        pixels, begun, leave = Pixels(Limits(pixels=100)), [], asyncio.Event()

        async def one(name: str) -> None:
            async with pixels.taken(40):
                begun.append(name)
                await leave.wait()

        async with pixels.taken(100):
            tasks = [asyncio.create_task(one(name)) for name in "ab"]
            await asyncio.sleep(0)
        for _ in range(10):  # turns of the loop, not time
            await asyncio.sleep(0)
        at_once = list(begun)
        leave.set()
        await asyncio.gather(*tasks)
        return at_once

    assert asyncio.run(both()) == ["a", "b"]


def test_of_images_that_wait_the_smallest_goes_first_and_none_waits_for_ever():
    order: list[int] = []

    async def one(pixels: Pixels, size: int) -> None:
        async with pixels.taken(size):
            order.append(size)
            await asyncio.sleep(0)

    async def ask() -> None:
        pixels = Pixels(Limits(pixels=10))
        async with pixels.taken(10):
            waiting = [asyncio.create_task(one(pixels, size)) for size in (9, 8, 7)]
            await asyncio.sleep(0)
            waiting[1].cancel()
            await asyncio.sleep(0)
        await asyncio.gather(waiting[0], waiting[2])
        late = Pixels(Limits(pixels=10, patience=0.01))
        async with late.taken(10):
            with pytest.raises(Refused, match="wait too long"):
                await one(late, 1)
        await one(late, 10)

    asyncio.run(ask())
    assert order == [7, 9, 10]


def test_a_large_image_is_what_predict_makes_of_it(opened):
    raw = png(1500)
    prepared = asyncio.run(Decoders(opened.prepare_file, Limits()).prepared(raw))
    np.testing.assert_array_equal(prepared, opened.prepare(load_rgb(io.BytesIO(raw))))


def test_images_of_more_pixels_than_asked_for_are_refused_on_the_command_line_too(exported, raw):
    with serving(exported, "--max-pixels", "1000") as ask:
        for size, expected in (((25, 40), 200), ((13, 77), 413)):
            Image.new("RGB", size).save(file := io.BytesIO(), format="PNG")
            status, answer = ask("/predict", file.getvalue())
            assert status == expected, answer
    assert "13 x 77 pixels, more than 1,000" in answer["error"]
    too_many = invoke("serve", exported, "--max-pixels", "90000000")
    assert (too_many.exit_code, "89000000" in too_many.output) == (2, True)


def test_an_image_that_says_it_is_huge_is_not_decoded(opened):
    with running(opened) as ask:
        for side in (7072, 10_000, 30_000):
            status, answer = ask("/predict", png_of(side))
            assert (status, "pixels" in answer["error"]) == (413, True)


def test_uploads_that_are_aborted_say_nothing_in_the_log(exported, raw):
    with serving(exported) as ask:
        for _ in range(5):
            half(ask, raw).close()
            connected(ask, post(b"Content-Length: %d\r\n" % len(raw)) + raw).close()
            until(lambda: in_work(ask) == 0)
        assert ask("/predict", raw)[0] == 200


def refuses(ask: Ask) -> bool:
    """Whether the service takes no connection any more."""
    try:
        connected(ask, b"").close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_service_once_what_is_in_work_is_answered(exported, raw, number):
    with started(exported) as (process, ask):
        working = half(ask, raw)
        process.send_signal(number)
        until(lambda: refuses(ask))
        working.sendall(raw[-9:])
        assert answered(working)[0] == 200
        working.close()
        printed = process.communicate(timeout=60)
        assert (process.returncode, *printed) == (0, "stopped\n", "")


def test_a_second_signal_ends_it_at_once(exported, raw):
    with started(exported) as (process, ask):
        working = half(ask, raw)
        process.send_signal(signal.SIGTERM)
        until(lambda: refuses(ask))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
        working.close()


def test_what_is_not_answered_within_the_grace_is_told_so(opened, raw):
    with running(opened, grace=1) as ask:
        working = half(ask, raw)
    answer = rest(working)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"the service is stopping" in answer
