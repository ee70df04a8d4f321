"""A small HTTP service of a shipped model: ``distill serve``. The only importer of fastapi and uvicorn."""

from __future__ import annotations

import asyncio
import base64
import io
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from PIL import Image
from starlette.exceptions import HTTPException

from cache.errors import UserError
from cache.images import FORMATS, UnreadableImage, load_rgb
from distill.deploy.batching import Batcher, Full
from distill.deploy.class_sets import ClassSet
from distill.deploy.model import NONE, Model
from distill.deploy.neighbours import NEIGHBOURS, Neighbours
from distill.deploy.predict import labels_of

DECODERS = 4
BATCH = 32
PAGE = Path(__file__).parent / "templates" / "page.html"
# Nothing but what is in the page itself may run or be loaded in it.
PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src blob: data:; connect-src 'self'"
)
CLIENTS = 10_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may ask for.

    ``megabytes`` of a request, ``pixels`` of an image, requests a second of one client (``rate``; ten
    seconds' worth may come at once), requests that ``waiting`` may.
    """

    megabytes: float = 10
    pixels: int = 50_000_000
    rate: float = 100
    waiting: int = 1000


class Refused(Exception):
    """A request that gets no answer: its status, and one line that says why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


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
            raise Refused(429, f"more than {self._rate:g} requests a second; ask again in a second")


def create_app(model: Model, limits: Limits | None = None) -> FastAPI:
    """Return the service as an ASGI application, for any server."""
    limits = limits or Limits()
    rates = Rates(limits.rate)
    batcher = Batcher(model.embed, most=BATCH, waiting=limits.waiting)
    decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
    shown = _neighbours(model)

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        del app
        task = asyncio.create_task(batcher.run())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    app = FastAPI(
        title=f"{model.info.name}, an open-vocabulary image model",
        description="Post an image, get labels; the class set may change with every request.",
        lifespan=running,
    )
    _tell_errors(app)

    @app.middleware("http")
    async def limited(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            rates.take(request.client.host if request.client else "")
        except Refused as refused:
            return _error(refused.status, refused.why)
        return await answer(request)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page() -> HTMLResponse:
        return HTMLResponse(
            PAGE.read_text(encoding="utf-8"), headers={"Content-Security-Policy": PAGE_POLICY}
        )

    @app.get("/health")
    def health() -> dict[str, Any]:
        """Say that the service is alive, and how many images wait."""
        return {
            "status": "ok",
            "model": model.info.name,
            "precision": model.precision,
            "waiting": batcher.waiting,
        }

    @app.get("/labels")
    def labels() -> dict[str, Any]:
        """Return every text bank's labels; ``bank`` is the one that classifies unless another is chosen."""
        banks = {name: list(classes.labels) for name, classes in model.banks.items()}
        return {"bank": model.info.bank, "banks": banks, "can_reject": model.precision in model.info.reject}

    @app.post("/predict", openapi_extra=_BODY)
    async def predict(
        request: Request,
        labels: Annotated[list[str], Query(description="Choose from these; a,b,c or repeated.")] = [],  # noqa: B006
        bank: Annotated[str | None, Query(description="Choose from this text bank.")] = None,
        top: Annotated[int, Query(ge=1, le=1000, description="How many labels.")] = 5,
        reject: Annotated[bool, Query(description="Say when it is none of them.")] = False,
        neighbours: Annotated[int, Query(ge=0, le=20, description="Training images to show.")] = 0,
    ) -> dict[str, Any]:
        """Label the image in the body: its bytes as they are, or the first file of a form."""
        began = time.perf_counter()
        classes = _class_set(model, bank, labels)
        raw = await _image_of(request, limits)
        loop = asyncio.get_running_loop()
        image = await loop.run_in_executor(decoders, _decoded, model, raw, limits)
        try:
            embedding = await batcher.embed(image)
        except Full:
            raise Refused(503, f"{limits.waiting:,} images wait already; ask again in a moment") from None
        found = model.answer(embedding[None], classes, top=top, reject=reject)
        places = labels_of(classes, found.places[0], found.scores[0], found.similarities[0])
        return {
            "answer": NONE if found.none[0] else places[0].label,
            "none_of_these": bool(found.none[0]),
            "labels": [asdict(label) for label in places],
            "neighbours": _shown(shown, embedding, neighbours),
            "milliseconds": round(1000 * (time.perf_counter() - began), 2),
        }

    return app


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}}}
            },
        },
    }
}


def _neighbours(model: Model) -> Neighbours | None:
    if NEIGHBOURS not in model.info.files or not (model.folder / NEIGHBOURS).is_file():
        return None
    return Neighbours.load(model.info.checked(model.folder, NEIGHBOURS))


def _class_set(model: Model, bank: str | None, labels: list[str]) -> ClassSet:
    wanted = [word.strip() for line in labels for word in line.split(",") if word.strip()]
    if labels and not wanted:
        raise Refused(400, "labels names nothing: give at least one, as labels=a,b,c")
    try:
        return model.class_set(bank=bank, labels=wanted)
    except UserError as error:
        raise Refused(422, str(error)) from error


async def _image_of(request: Request, limits: Limits) -> bytes:
    """Return the bytes of the image in a request's body, of which no more than allowed are read."""
    most = int(limits.megabytes * 1e6)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise Refused(413, f"the request is larger than {limits.megabytes:g} MB")
    raw = bytes(body)
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        raw = await _file_of_form(request, raw)
    if not raw:
        raise Refused(400, "the body is empty: post the bytes of an image, or a form with one")
    return raw


async def _file_of_form(request: Request, body: bytes) -> bytes:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        async with Request(request.scope, receive).form(max_files=1, max_fields=20) as form:
            for part in form.values():
                if not isinstance(part, str):
                    return await part.read()
    except HTTPException as error:
        raise Refused(400, f"the form cannot be read ({error.detail})") from error
    raise Refused(400, "the form has no file: post one, called image")


def _decoded(model: Model, raw: bytes, limits: Limits) -> Any:
    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        raise Refused(413, f"the image has more than {limits.pixels:,} pixels") from None
    except Exception:  # Pillow's decoders raise nearly anything
        raise Refused(415, "the body is no image (JPEG, PNG, WebP or BMP)") from None
    if width * height > limits.pixels:
        raise Refused(413, f"the image has {width:,} x {height:,} pixels, more than {limits.pixels:,}")
    try:
        return model.prepare(load_rgb(io.BytesIO(raw)))
    except UnreadableImage as error:
        raise Refused(415, f"the image is damaged ({error})") from error


def _shown(neighbours: Neighbours | None, embedding: Any, k: int) -> list[dict[str, Any]]:
    if neighbours is None or not k:
        return []
    return [
        {
            "key": neighbours.keys[place],
            "label": neighbours.labels[place],
            "similarity": cosine,
            "picture": "data:image/jpeg;base64," + base64.b64encode(neighbours.pictures[place]).decode(),
        }
        for place, cosine in neighbours.nearest(embedding, k)
    ]


def _error(status: int, why: str) -> JSONResponse:
    return JSONResponse({"error": why}, status_code=status)


def _tell_errors(app: FastAPI) -> None:
    """Make every error one line of JSON."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        return _error(error.status, error.why)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        name = first["loc"][-1] if first["loc"] else "the request"
        return _error(422, f"{name} is {first.get('input')!r:.100}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, f"{request.method} {request.url.path}: {error.detail}")


def serve(model: Model, *, host: str, port: int, limits: Limits, ready: Callable[[str], None]) -> None:
    """Serve until a signal comes; ``ready`` is told the address.

    Raises
    ------
    UserError
        If the address cannot be listened on.
    """
    app = create_app(model, limits)
    try:
        listener = socket.create_server((host, port), family=_family(host), backlog=2048)
    except OSError as error:
        raise UserError(
            f"{host}:{port} cannot be listened on ({error.strerror or error})",
            fix="choose another --port (0: any that is free) or --host.",
        ) from error
    with listener:
        bound = listener.getsockname()
        ready(f"http://{f'[{bound[0]}]' if ':' in bound[0] else bound[0]}:{bound[1]}")
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=10)
        uvicorn.Server(config).run(sockets=[listener])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
