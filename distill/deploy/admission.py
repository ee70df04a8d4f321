"""Who may ask, before anything of a body is read: plain ASGI around the service. Leaves health alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import JSONResponse

from distill.deploy.limits import Rates, Refused, Room, Share

HEALTH = "/health"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


def refusal(error: Refused) -> JSONResponse:
    """Return the answer that says why there is none."""
    headers = None if error.after is None else {"Retry-After": str(error.after)}
    return JSONResponse({"error": error.why}, status_code=error.status, headers=headers)


class Admission:
    """Lets a request pass if its client has not asked too often and there is room for it and its body.

    What the application reads of a body is counted and has a deadline, whoever reads it: its ``receive``
    raises :class:`Refused` where either is passed.
    """

    def __init__(self, app: App, *, room: Room) -> None:
        self._app, self._room, self._rates = app, room, Rates(room.limits.rate)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http" or scope["path"] == HEALTH:
            await self._app(scope, receive, send)
            return
        try:
            self._rates.take(scope["client"][0] if scope.get("client") else "")
            with self._room.admit(_declared(scope)) as share:
                await self._app(scope, self._counted(receive, share), send)
        except Refused as refused:
            await refusal(refused)(scope, receive, send)
        except asyncio.CancelledError:  # the grace at the end of the service is over
            await refusal(Refused(503, "the service is stopping", after=10))(scope, receive, send)

    def _counted(self, receive: Receive, share: Share) -> Receive:
        """Return a ``receive`` that holds the bytes of a body as they come, and waits for them in bounds."""
        loop, limits = asyncio.get_running_loop(), self._room.limits
        until, total, whole = loop.time() + limits.body, 0, False

        async def counted() -> Message:
            nonlocal until, total, whole
            if whole:  # what comes now is that the client has gone
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                raise Refused(408, f"the body comes too slowly: {total:,} bytes so far") from None
            if message["type"] == "http.request":
                came, whole = len(message.get("body", b"")), not message.get("more_body", False)
                # What came fast buys no time to stop in.
                until = min(until + came / limits.slowest, loop.time() + limits.body)
                total += came
                share.hold(total)
            return message

        return counted


def _declared(scope: Message) -> int:
    """Return the length that a header declares; 0 where it declares none."""
    value = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return int(value) if value.isdigit() else 0
