"""What requests may ask for, each and all together, and the error of one that asks for more."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Bodies up to this size find room where larger ones do not any more: of all bytes the last quarter is theirs.
SMALL_BODY = 1_000_000
CLIENTS = 10_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What requests may ask for; times are seconds.

    One request: ``megabytes`` of a body, ``pixels`` of an image, ``rate`` requests a second of one client
    (ten seconds' worth may come at once). All together: ``waiting`` requests in work, ``memory`` megabytes
    of bodies, ``queue`` times ``pixels`` of large images that wait to be decoded, for ``patience`` at most;
    ``connections``. A request's header may take ``header``; its body ``slowest`` bytes a second and
    pauses of ``body``; a connection between two requests stays ``idle``, one whose request was
    answered before its body had come ``linger``. ``grace`` is what requests in work have when the service is
    stopped.
    """

    megabytes: float = 10
    pixels: int = 50_000_000
    rate: float = 100
    waiting: int = 1000
    memory: float = 128
    queue: int = 4
    patience: float = 30
    connections: int = 2000
    header: float = 10
    body: float = 10
    slowest: float = 50_000
    idle: int = 5
    linger: float = 2
    grace: int = 10


class Refused(Exception):
    """A request that gets no answer: its status, one line that says why, and when to ask again."""

    def __init__(self, status: int, why: str, *, after: int | None = None) -> None:
        super().__init__(why)
        self.status, self.why, self.after = status, why, after


class Rates:
    """A bucket of requests for every client: it fills at ``rate`` a second and holds ten seconds' worth."""

    def __init__(self, rate: float) -> None:
        self._rate, self._most = rate, max(1.0, 10 * rate)
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, client: str) -> None:
        """Take one request; Refused with 429 where none is left."""
        now = time.monotonic()
        left, since = self._left.pop(client, (self._most, now))
        left = min(self._most, left + (now - since) * self._rate)
        if len(self._left) >= CLIENTS:  # the one that has not asked for longest
            self._left.pop(next(iter(self._left)))
        self._left[client] = (left - 1 if left >= 1 else left, now)
        if left < 1:
            after = math.ceil((1 - left) / self._rate)
            raise Refused(
                429, f"more than {self._rate:g} requests a second; ask again in {after} s", after=after
            )


class Room:
    """What the requests in work hold together: how many they are, and the bytes of their bodies."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.requests, self.bytes = limits, 0, 0

    @contextmanager
    def admit(self, declared: int) -> Iterator[Share]:
        """Hold a request's place, and the bytes that its header declares, while the block runs.

        Refused with 503 where there is no room, with 413 where no request may have so many bytes.
        """
        if self.requests >= self.limits.waiting:
            raise Refused(
                503, f"{self.limits.waiting:,} requests are in work already; ask again in a moment", after=1
            )
        share = Share(self)
        share.hold(declared)
        self.requests += 1
        try:
            yield share
        finally:
            self.requests -= 1
            self.bytes -= share.held


class Share:
    """The bytes that one request holds of a room."""

    def __init__(self, room: Room) -> None:
        self._room, self.held = room, 0

    def hold(self, total: int) -> None:
        """Hold ``total`` bytes, if it does not yet; Refused as :meth:`Room.admit`."""
        room, limits = self._room, self._room.limits
        if total <= self.held:
            return
        if total > limits.megabytes * 1e6:
            raise Refused(413, f"the request is larger than {limits.megabytes:g} MB")
        # Where one body may be large, a few of them must find room.
        most = max(limits.memory, 4 * limits.megabytes) * 1e6 * (1 if total <= SMALL_BODY else 0.75)
        if room.bytes + total - self.held > most:
            raise Refused(
                503, "the bodies of other requests take all the memory; ask again in a moment", after=1
            )
        room.bytes += total - self.held
        self.held = total
