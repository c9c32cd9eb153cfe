"""The HTTP application: routes that read a photo, wait for the model, and answer."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from pydantic import StringConstraints
from starlette.exceptions import HTTPException

from ... import __version__
from ...pipeline.errors import UserError
from ...pipeline.pictures import PictureError
from .answers import Explanation, Health, Hits, Labels, Problem, Text
from .batching import Batcher, QueueFull
from .guard import LOOPBACK, Guard
from .limits import MAX_NAME_LENGTH, MAX_NAMES, Limits, check_size, without_path
from .metrics import Metrics
from .service import START_WITH, PhotoQuestion, SearchQuestion, Service

_CODES = (400, 401, 403, 404, 408, 413, 422, 429, 503)
PROBLEMS: dict[int | str, dict[str, Any]] = {code: {"model": Problem} for code in _CODES}
Photo = Annotated[UploadFile, File(description="the photo: JPEG, PNG, WebP, …")]
ClassName = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_NAME_LENGTH, pattern=r"\S")
]
Names = Annotated[list[ClassName], Form(default_factory=list, max_length=MAX_NAMES)]
Top = Annotated[int, Form(ge=1, le=100, description="classes to return")]
Number = Annotated[int, Form(ge=1, le=100, description="photos to return")]
Words = Annotated[str, Form(max_length=1000)]
Question = Annotated[str, Form(min_length=1, max_length=1000, pattern=r"\S")]


class Desk:
    """Takes photos in, keeps them for as long as they are needed, and hands them to the model."""

    def __init__(self, service: Service, limits: Limits, metrics: Metrics) -> None:
        self.service, self.limits = service, limits
        self.model_thread = ThreadPoolExecutor(1, "model")
        self.readers = ThreadPoolExecutor(2, "photos")
        options = {
            "wait": limits.wait,
            "waiting": limits.waiting,
            "model_thread": self.model_thread,
            "seen": metrics.batch,
        }
        self.batchers: dict[str, Batcher[Any, Any]] = {
            "classify": Batcher(service.classify, size=limits.batch, **options),
            "search": Batcher(service.search, size=limits.batch, **options),
            "caption": Batcher(service.caption, size=limits.batch, **options),
            "ask": Batcher(service.ask, size=limits.batch, **options),
        }

    @contextlib.asynccontextmanager
    async def open(self, _: FastAPI) -> AsyncIterator[None]:
        """Start and stop with the application."""
        for batcher in self.batchers.values():
            batcher.start()
        yield
        for batcher in self.batchers.values():
            await batcher.stop()
        for pool in (self.readers, self.model_thread):
            pool.shutdown(wait=False, cancel_futures=True)

    def require(self, verb: str) -> None:
        """Refuse what is not offered, before a photo is looked at."""
        if verb not in self.service.offers:
            raise HTTPException(404, f"This server does not offer {verb}. {START_WITH[verb]}")

    async def ask(self, batcher: str, question: Any) -> Any:
        """Return the model's answer; an error of this question alone is raised."""
        answer = await self.batchers[batcher](question)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @contextlib.asynccontextmanager
    async def photo(self, upload: UploadFile) -> AsyncIterator[Path]:
        """Lay an upload in a private folder for a moment, size checked; its name is not used."""
        with tempfile.TemporaryDirectory(prefix="aape-") as folder:
            path = Path(folder, "photo")
            path.write_bytes(await upload.read())
            await self.read(check_size, path, self.limits)
            yield path

    async def read(self, function: Any, *arguments: Any) -> Any:
        """Run what reads a photo, beside the model and the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.readers, function, *arguments)

    async def classify(self, upload: UploadFile, **question: Any) -> Any:
        """Read a photo and return what the model says of it."""
        model = self.service.model
        assert model is not None
        async with self.photo(upload) as path:
            try:
                pixels = await self.read(model.pixels, path)
            except PictureError as error:
                told = without_path(error, path)
                raise UserError(f"The photo cannot be read: {told}.") from error
        return await self.ask("classify", PhotoQuestion(pixels, **question))


def create_app(
    service: Service,
    *,
    limits: Limits | None = None,
    token: str = "",
    hosts: tuple[str, ...] = LOOPBACK,
) -> FastAPI:
    """Return the application for an opened run.

    Args:
        service: what can be asked. limits: what a request may cost.
        token: wanted of every request but the page and ``/health``; empty is none.
        hosts: names that the server goes by; empty is any.
    """
    limits = limits or Limits()
    metrics = Metrics()
    desk = Desk(service, limits, metrics)
    app = FastAPI(
        title="aape",
        version=__version__,
        description="Photos to classes, explanations, captions and answers, by one trained run.",
        docs_url=None,  # both load scripts from elsewhere
        redoc_url=None,
        lifespan=desk.open,
        dependencies=[Depends(HTTPBearer(auto_error=False))] if token else [],
    )
    _add_verbs(app, desk)
    _add_pages(app, service, metrics, bool(token))
    _add_errors(app)
    app.add_middleware(Guard, limits=limits, token=token, hosts=hosts, observed=metrics.request)
    return app


def _add_verbs(app: FastAPI, desk: Desk) -> None:
    @app.post("/predict", responses=PROBLEMS)
    async def predict(photo: Photo, classes: Names, also: Names, top: Top = 3) -> Labels:
        """Label a photo: by the run's classes, by those named, and by others also named."""
        desk.require("predict")
        return await desk.classify(photo, top=top, classes=tuple(classes), also=tuple(also))

    @app.post("/explain", responses=PROBLEMS)
    async def explain(photo: Photo, classes: Names, also: Names, top: Top = 3) -> Explanation:
        """Label a photo and say what each term added, and which sentences are near."""
        desk.require("explain")
        names = {"classes": tuple(classes), "also": tuple(also)}
        return await desk.classify(photo, top=top, explain=True, **names)

    @app.post("/search", responses=PROBLEMS)
    async def search(
        text: Words = "",
        like: Annotated[UploadFile | None, File(description="a photo instead")] = None,
        k: Number = 10,
    ) -> Hits:
        """Find photos of the served folder by a sentence, or by another photo."""
        desk.require("search")
        if bool(text.strip()) == (like is not None):
            raise UserError("Search for one thing: a sentence, or a photo.")
        if like is None:
            return Hits(hits=await desk.ask("search", SearchQuestion(text, None, k)))
        async with desk.photo(like) as path:
            return Hits(hits=await desk.ask("search", SearchQuestion("", path, k)))

    @app.post("/caption", responses=PROBLEMS)
    async def caption(photo: Photo) -> Text:
        """Describe a photo in a sentence."""
        desk.require("caption")
        async with desk.photo(photo) as path:
            return await desk.ask("caption", path)

    @app.post("/ask", responses=PROBLEMS)
    async def ask(photo: Photo, question: Question) -> Text:
        """Answer a question about a photo."""
        desk.require("ask")
        async with desk.photo(photo) as path:
            return await desk.ask("ask", (path, question))


def _add_pages(app: FastAPI, service: Service, metrics: Metrics, token: bool) -> None:
    page = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")

    @app.get("/", include_in_schema=False)
    async def home() -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}';"
            " connect-src 'self'; img-src blob: data:; base-uri 'none'; form-action 'none';"
            " frame-ancestors 'none'"
        )
        headers = {"content-security-policy": policy}
        return HTMLResponse(page.replace("{nonce}", nonce), headers=headers)

    problems: dict[int | str, dict[str, Any]] = {
        code: PROBLEMS[code] for code in (401, 403, 408, 413, 429, 503)
    }

    @app.get("/health", responses=problems)
    async def health() -> Health:
        """Say that the server is up and what it can be asked."""
        return Health(version=__version__, offers=service.offers, token=token)

    @app.get("/metrics", response_class=PlainTextResponse, responses=problems)
    async def prometheus() -> PlainTextResponse:
        """Return counts and times in Prometheus' text format."""
        return PlainTextResponse(metrics.text(), media_type=metrics.media_type)


def _add_errors(app: FastAPI) -> None:
    def problem(status: int, error: str, hint: str = "", **headers: str) -> JSONResponse:
        content = Problem(error=error, hint=hint).model_dump()
        return JSONResponse(content, status, headers)

    @app.exception_handler(UserError)
    async def bad_input(_: Request, error: Any) -> JSONResponse:
        return problem(400, error.message, error.hint)

    @app.exception_handler(QueueFull)
    async def full(_: Request, __: Any) -> JSONResponse:
        return problem(
            503, "Too many requests are waiting.", "Try again soon.", **{"Retry-After": "1"}
        )

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: Any) -> JSONResponse:
        return problem(error.status_code, str(error.detail), **(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: Any) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or "the request"
        return problem(422, f"{place}: {first['msg']}.", "See /openapi.json for what is taken.")

    @app.exception_handler(Exception)
    async def bug(_: Request, __: Any) -> JSONResponse:
        return problem(500, "Something went wrong in the server.", "Its log says what.")
