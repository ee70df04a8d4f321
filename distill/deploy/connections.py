"""Connections of the service: a header that does not come, or a body that does not end, holds none."""

from __future__ import annotations

import asyncio
import itertools
import json
import re

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from distill.deploy.limits import Limits

HEADER_BYTES = 65_536
_UPGRADE = re.compile(rb"(?im)^upgrade(?=[ \t]*:)")


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP with what it lacks: deadlines, and a bound on headers and on connections.

    ``limits`` are given by :func:`connections_within`. One timer at a time: until a header is there, and
    again from an answer that came before the request's body was there.
    """

    limits: Limits
    _turns = itertools.count()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a header; of too many connections end the oldest idle one."""
        self._timer: asyncio.TimerHandle | None = None
        self._heading, self._header_bytes, self._last = True, 0, False
        self._turn = next(self._turns)
        super().connection_made(transport)
        self._wait(self.limits.header)
        if len(self.connections) > self.limits.connections:
            others = [one for one in self.connections if isinstance(one, Connection) and one.idle]
            min(others, key=lambda one: one._turn).transport.abort()

    @property
    def idle(self) -> bool:
        """Whether no request is in work."""
        return self.cycle is None or self.cycle.response_complete

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._wait(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, within what a header may have."""
        if self._heading:
            self._header_bytes += len(data)
            if self._timer is None:
                self._wait(self.limits.header)
            data = _without_upgrade(data)
        super().data_received(data)
        if self._heading and self._header_bytes > HEADER_BYTES and not self.transport.is_closing():
            self._refuse(431, f"the header is larger than {HEADER_BYTES:,} bytes")

    def on_headers_complete(self) -> None:
        """Wait no more: what comes now has the deadline of a body."""
        self._heading = False
        self._wait(None)
        super().on_headers_complete()
        # uvicorn would close with the answer, and a client that still sends would never read it.
        self._last, self.cycle.keep_alive = self._last or not self.cycle.keep_alive, True

    def on_message_complete(self) -> None:
        """Be ready for another header."""
        super().on_message_complete()
        self._heading, self._header_bytes = True, 0
        self._turn = next(self._turns)
        if self.idle and self._last:
            self.transport.close()
        elif self.idle:
            self._wait(self.limits.header)

    def on_response_complete(self) -> None:
        """Give the rest of a body that nobody will read a moment, so that its sender reads the answer."""
        super().on_response_complete()
        if self.idle and not self._heading:
            self._wait(self.limits.linger)
        elif self.idle and self._last:
            self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        """End a connection that asks no more, also of a client that does not read its last answer."""
        super().timeout_keep_alive_handler()
        self._wait(self.limits.body)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as any other error."""
        self._refuse(400, msg)

    def _refuse(self, status: int, why: str) -> None:
        if self._heading and not self.idle:  # the answer to the request before is on its way
            self._last = True
            self.flow.pause_reading()
            return
        if not self.idle:  # a body of broken chunks, for which somebody waits
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = json.dumps({"error": why}).encode()
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % len(body) + body)
        self.transport.close()

    def _wait(self, seconds: float | None) -> None:
        """Close the connection after so many seconds; None: not any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        self._timer = None
        if self.idle:
            self.transport.abort()


def _without_upgrade(data: bytes) -> bytes:
    """Return bytes that hold a header, or some of it, in which no other protocol is asked for.

    There is none here; but the parser would take the body for that protocol's, and Java's HttpClient asks for
    HTTP/2 in this way with every first request.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"x-upgrade", head) + end + rest


def connections_within(limits: Limits) -> type[Connection]:
    """Return the class of connections that keep to limits, for uvicorn's ``http``."""
    return type("Connection", (Connection,), {"limits": limits})
