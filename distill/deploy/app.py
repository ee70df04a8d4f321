"""The service as an ASGI application: its routes and its errors. The only importer of fastapi."""

# Annotations are evaluated here: what /predict takes is written with the names of the model's banks.

import asyncio
import base64
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from cache.runtime.errors import UserError, WrongOption, shortened
from distill.deploy.admission import HEALTH, Admission, refusal
from distill.deploy.answers import BODY, HealthAnswer, LabelsAnswer, PredictAnswer, errors
from distill.deploy.batching import Batcher
from distill.deploy.beside_teacher import TeacherBeside
from distill.deploy.class_sets import ClassSet
from distill.deploy.decoding import Decoders
from distill.deploy.docs_page import docs_page
from distill.deploy.limits import Limits, Refused, Room
from distill.deploy.model import Model
from distill.deploy.nearest_images import NEAREST_IMAGES, NearestImages

BATCH = 32
Name = Annotated[str, Field(json_schema_extra={"minLength": 1, "pattern": r'[^\s,"]'})]
PAGE = Path(__file__).parent / "templates" / "page.html"
# Nothing but what is in the page itself may run or be loaded in it.
PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src blob: data:; connect-src 'self'"
)


def create_app(model: Model, limits: Limits | None = None, teacher: TeacherBeside | None = None) -> FastAPI:
    """Return the service as an ASGI application, for any server; ``teacher`` answers beside the model."""
    limits = limits or Limits()
    room = Room(limits)
    # It warns of each form that is none, which its sender is told.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    batcher = Batcher(model.embed, most=BATCH)
    decoders = Decoders(model.prepare_file, limits)
    beside = Beside(teacher, limits) if teacher is not None else None

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        del app
        batchers = [batcher, *([beside.batcher] if beside is not None else [])]
        tasks = [asyncio.create_task(one.run()) for one in batchers]
        yield
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        for one in batchers:
            one.close()
        for reading in (decoders, *([beside.decoders] if beside is not None else [])):
            reading.close()

    app = FastAPI(
        title=f"{model.info.name}, an open-vocabulary image model",
        description="Post an image, get labels; the class set may change with every request.",
        lifespan=running,
        docs_url=None,  # theirs asks the network for its scripts; ours is below
        redoc_url=None,
    )
    app.add_middleware(Admission, room=room)
    _tell_errors(app)
    _tell_about(app, model, room, teacher=teacher is not None)
    _predict(app, model, Working(decoders=decoders, batcher=batcher, beside=beside))
    _tell_docs(app)
    return app


class Beside:
    """A teacher at work beside the model, with threads of its own."""

    def __init__(self, teacher: TeacherBeside, limits: Limits) -> None:
        self.decoders = Decoders(teacher.prepare, limits)
        self.batcher = Batcher(teacher.embed, most=BATCH)

    async def answer(self, model: Model, raw: bytes, classes: ClassSet, top: int) -> dict[str, Any]:
        """Return what the teacher says of an image's bytes, among the same classes."""
        embedding = await self.batcher.embed(await self.decoders.prepared(raw))
        (of_image,) = model.answer(embedding[None], classes, top=top)
        labels = [
            {"label": one.label, "class_name": one.class_name, "similarity": one.similarity}
            for one in of_image.labels
        ]
        return {"answer": of_image.answer, "labels": labels}


@dataclass(frozen=True, kw_only=True)
class Working:
    """What a request goes through: decoding, the model, and where there is one the teacher."""

    decoders: Decoders
    batcher: Batcher
    beside: Beside | None


def _tell_docs(app: FastAPI) -> None:
    """Add a page that tells every path, made of openapi.json."""

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        page = docs_page(app.openapi(), address=str(request.base_url))
        return HTMLResponse(page, headers={"Content-Security-Policy": PAGE_POLICY})


def _tell_about(app: FastAPI, model: Model, room: Room, *, teacher: bool) -> None:
    """Add what says something of the service: a page, its health, its labels."""
    page_text = PAGE.read_text(encoding="utf-8")
    banks = {name: list(classes.labels) for name, classes in model.banks.items()}
    about = {
        "bank": model.info.bank,
        "banks": banks,
        "can_reject": model.precision in model.info.reject,
        "vocabulary": len(model.vocabulary) if model.vocabulary is not None else 0,
        "teacher": teacher,
    }

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(page_text, headers={"Content-Security-Policy": PAGE_POLICY})

    @app.get(HEALTH, response_model=HealthAnswer)
    async def health() -> Response:
        """Say that the service is alive, and how many requests are in work. No limit holds for it."""
        return JSONResponse(
            {"status": "ok", "model": model.info.name, "precision": model.precision, "waiting": room.requests}
        )

    @app.get("/labels", response_model=LabelsAnswer, responses=errors(413, 429, 503))
    async def labels() -> Response:
        """Return every text bank's labels; ``bank`` is the one that classifies unless another is chosen."""
        return JSONResponse(about)


def _wanted(model: Model, *, teacher: bool) -> dict[str, Any]:
    """Return what each parameter of /predict is called and may be; ``teacher``: one is at hand."""

    def only(possible: bool) -> dict[str, Any]:
        return {} if possible else {"enum": [False]}

    return {
        "names": Query(
            description="Choose from these, labels of any bank or words of the vocabulary: one, or a,b,c; or "
            "the parameter repeated.",
            json_schema_extra={"uniqueItems": True},
        ),
        "bank": Query(
            description="Choose from this text bank.", json_schema_extra={"enum": list(model.banks)}
        ),
        "reject": Query(
            description="Say when it is none of them.",
            json_schema_extra=only(model.precision in model.info.reject),
        ),
        "open": Query(
            alias="open",
            description="Choose from all words of the vocabulary; without names, bank and reject.",
            json_schema_extra=only(model.vocabulary is not None),
        ),
        "teacher": Query(description="Ask the teacher as well.", json_schema_extra=only(teacher)),
    }


def _predict(app: FastAPI, model: Model, working: Working) -> None:
    """Add the path that labels an image."""
    class_set, shown = _class_sets(model), _shown(model)
    wanted = _wanted(model, teacher=working.beside is not None)

    @app.post(
        "/predict",
        openapi_extra=BODY,
        response_model=PredictAnswer,
        responses=errors(400, 404, 408, 413, 415, 422, 429, 503),
    )
    async def predict(
        request: Request,
        names: Annotated[list[Name], wanted["names"]] = [],  # noqa: B006
        open_: Annotated[bool, wanted["open"]] = False,
        bank: Annotated[str | SkipJsonSchema[None], wanted["bank"]] = None,
        top: Annotated[int, Query(ge=1, le=1000, description="How many labels.")] = 5,
        reject: Annotated[bool, wanted["reject"]] = False,
        nearest_images: Annotated[int, Query(ge=0, le=20, description="Training images to show.")] = 0,
        teacher: Annotated[bool, wanted["teacher"]] = False,
    ) -> Response:
        """Label the image in the body: its bytes as they are, or the first file of a multipart form."""
        began = time.perf_counter()
        _check_asked(request)
        try:
            if open_ and (names or bank or reject):
                raise Refused(422, "open chooses from all words: leave names, bank and reject out")
            classes = model.open_set if open_ else class_set(bank, tuple(names))
            if reject:
                model.rejection(classes)
        except UserError as error:
            raise Refused(422, str(error)) from error
        beside = working.beside if teacher else None
        if teacher and beside is None:
            raise Refused(422, "no teacher is at hand: start the service with --teacher-model")
        raw = await _image_of(request)
        embedding = await working.batcher.embed(await working.decoders.prepared(raw))
        (of_image,) = model.answer(embedding[None], classes, top=top, reject=reject)
        answer = {
            "answer": of_image.answer,
            "none_of_these": of_image.none_of_these,
            "labels": [vars(label) for label in of_image.labels],
            "nearest_images": shown(embedding, nearest_images),
            "teacher": await beside.answer(model, raw, classes, top) if beside is not None else None,
            "milliseconds": round(1000 * (time.perf_counter() - began), 2),
        }
        # A Response, not the dict: FastAPI would check and copy what was made a line above.
        return JSONResponse(answer)


def _check_asked(request: Request) -> None:
    """Refuse what no parameter of the path is called: its answer would be one to another question."""
    known = [field.alias for field in request.scope["route"].dependant.query_params]
    if unknown := sorted({*request.query_params} - {*known}):
        raise Refused(
            422, f"there is no parameter {shortened(unknown[0])}. Fix: there are {', '.join(sorted(known))}."
        )


def _class_sets(model: Model) -> Callable[[str | None, tuple[str, ...]], ClassSet]:
    """Return what finds the class set of a bank's name and some names, and remembers the last ones."""

    def class_set(bank: str | None, given: tuple[str, ...]) -> ClassSet:
        try:
            return model.class_set(bank=bank, names=given)
        except WrongOption:
            raise
        except UserError as error:  # a bank or a name that is not there
            raise Refused(404, str(error)) from error

    remembered = lru_cache(maxsize=64)(class_set)
    # Of a few names: what clients can make it remember is bounded.
    return lambda bank, given: (remembered if sum(map(len, given)) <= 1000 else class_set)(bank, given)


def _shown(model: Model) -> Callable[[Any, int], list[dict[str, Any]]]:
    """Return what finds the training images to show beside an embedding."""
    if NEAREST_IMAGES not in model.info.files or not (model.folder / NEAREST_IMAGES).is_file():
        return lambda embedding, k: []
    images = NearestImages.load(model.info.checked(model.folder, NEAREST_IMAGES))
    pictures = ["data:image/jpeg;base64," + base64.b64encode(raw).decode() for raw in images.pictures]

    def nearest(embedding: Any, k: int) -> list[dict[str, Any]]:
        return [
            {
                "key": images.keys[place],
                "label": images.labels[place],
                "similarity": cosine,
                "picture": pictures[place],
            }
            for place, cosine in (images.nearest(embedding, k) if k else ())
        ]

    return nearest


async def _image_of(request: Request) -> bytes:
    """Return the bytes of the image in a request's body; how many they may be is the admission's business."""
    raw = await request.body()
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raw = await _file_of_form(request)
    if not raw:
        raise Refused(400, "the body is empty: post the bytes of an image, or a form with one")
    return raw


async def _file_of_form(request: Request) -> bytes:
    try:
        async with request.form(max_files=1, max_fields=20) as form:
            for part in form.values():
                if not isinstance(part, str):
                    return await part.read()
    except HTTPException as error:
        raise Refused(400, f"the form cannot be read ({error.detail})") from error
    raise Refused(400, "the form has no file: post one, called image")


def _error(status: int, why: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": " ".join(why.split())}, status_code=status, headers=headers)


def _tell_errors(app: FastAPI) -> None:
    """Make every error one line of JSON."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        return refusal(error)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=400)  # which nobody reads

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        name = first["loc"][-1] if first["loc"] else "the request"
        return _error(422, f"{name} is {first.get('input')!r:.100}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        return _error(
            error.status_code, f"{request.method} {request.url.path:.200}: {error.detail}", error.headers
        )

    @app.exception_handler(Exception)
    async def ours(request: Request, error: Exception) -> JSONResponse:  # the server prints its traceback
        return _error(500, "the service failed; its log says how")
