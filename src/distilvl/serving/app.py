"""The application and its routes: `/v1/embeddings` as OpenAI's clients know it, `/search`, thumbnails and the page."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
from anyio import to_thread
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from PIL import Image
from prometheus_client import generate_latest
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from distilvl._version import __version__
from distilvl.errors import DistilvlError, OptionError, UnavailableError
from distilvl.models.encoder import Encoder
from distilvl.serving import requests
from distilvl.serving.batcher import Embeddings, UnencodableError
from distilvl.serving.errors import RequestError, on_http_error, on_validation_error, wrong_field
from distilvl.serving.middleware import (
    PAGE,
    AccessMiddleware,
    BodyMiddleware,
    Metrics,
    ResponseMiddleware,
    off_the_loop,
)
from distilvl.serving.model import ServedModel, shortened
from distilvl.serving.picture_strings import Likeness, likeness
from distilvl.serving.settings import ServeSettings

if TYPE_CHECKING:
    from distilvl.search import Index

logger = logging.getLogger("distilvl")

_FEW_NUMBERS = 4096
T = TypeVar("T")


def create_app(
    encoder: Encoder, settings: ServeSettings, *, name: str | None = None,
    open_index: Callable[[Encoder], Index] | None = None,
) -> FastAPI:  # fmt: skip
    """An ASGI application that serves `encoder`; its lifespan must run, as every ASGI server sees to.

    From here on only the application's worker thread calls the model, whose own name is used if no `name` is given.
    `open_index` opens the index to search, with an encoder that joins its queries with all others; it may raise.
    """
    metrics = Metrics()
    model = ServedModel(encoder, name or encoder.name, settings, metrics)
    index = open_index(model.encoder) if open_index is not None else None

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        model.close()

    layers = [Middleware(one, settings=settings) for one in (AccessMiddleware, BodyMiddleware)]
    app = FastAPI(
        title="distilvl serve",
        version=__version__,
        openapi_url=None,  # a route of ours has it, which refuses parameters
        lifespan=lifespan,
        middleware=[Middleware(ResponseMiddleware, metrics=metrics), *layers],
        exception_handlers={HTTPException: on_http_error, RequestValidationError: on_validation_error},
    )
    app.router.route_class = requests.CheckedRoute
    _add_embeddings(app, model, settings)
    if index is not None:
        _add_search(app, model, index, settings.request_timeout)

    @app.get("/healthz")
    async def health() -> dict[str, str]:
        """Whether the server is there."""
        return {"status": "ok", "model": model.name}

    @app.get("/metrics")
    async def prometheus() -> Response:
        """Counters for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/openapi.json", include_in_schema=False)
    async def schema() -> dict[str, Any]:
        return app.openapi()

    return app


async def _within(seconds: float, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled after `seconds` with 504."""
    try:
        return await asyncio.wait_for(work, seconds)
    except TimeoutError as error:
        raise RequestError(504, f"No result within {seconds:g} s.", code="timeout") from error


def _add_embeddings(app: FastAPI, model: ServedModel, settings: ServeSettings) -> None:
    """The routes of the model."""
    about = {"id": model.name, "object": "model", "created": 0, "owned_by": "distilvl"}
    entry = about | {"revision": model.revision, "dimensions": sorted(model.dims)}

    def check_name(name: str) -> None:
        if name != model.name:
            message = f"This server has one model, {model.name!r}."
            raise RequestError(404, message, code="model_not_found", param="model")

    @app.post(requests.EMBEDDINGS)
    async def embeddings(request: requests.EmbeddingRequest, raw: Request) -> Response:
        """Embeddings of texts and pictures."""
        check_name(request.model)
        dim = request.dimensions if request.dimensions is not None else model.dim
        if dim not in model.dims:
            has = " or ".join(map(str, sorted(model.dims)))
            raise wrong_field("dimensions", f"is {dim}; this model has {has}.")
        size = raw.scope["body_bytes"]
        items = await off_the_loop(size, requests.read_items, request, settings.max_items)
        found = await _within(settings.request_timeout, model.encode(items))
        body = partial(_embeddings_json, shortened(found, dim), model.name, request.encoding_format == "base64")
        # Ten thousands of numbers to text: not in the event loop. A few cost less than the way to a thread.
        content = body() if found.size <= _FEW_NUMBERS else await to_thread.run_sync(body)
        return Response(content, media_type="application/json")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [entry]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        """The same, by its name."""
        check_name(name)
        return entry


def _embeddings_json(embeddings: Embeddings, name: str, is_base64: bool) -> bytes:
    """The JSON; base64 is of little-endian float32, as OpenAI's is."""
    numbers = np.asarray(embeddings, "<f4")
    values = [base64.b64encode(one.tobytes()).decode("ascii") for one in numbers] if is_base64 else numbers.tolist()
    data = [{"object": "embedding", "index": index, "embedding": value} for index, value in enumerate(values)]
    # Tokens are not counted: nobody pays for them, and a student's tokenizer is its own.
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    return to_json({"object": "list", "model": name, "data": data, "usage": usage})


def _add_search(app: FastAPI, model: ServedModel, index: Index, seconds: float) -> None:
    """The routes of `index`, whose encoder must be `model.encoder`, and the page that searches it."""

    async def answer(request: requests.SearchRequest, text_param: str) -> dict[str, Any]:
        text = (request.text or "").strip()
        if likeness(text) is not Likeness.TEXT:
            # Somebody may have wanted to search with it.
            wrong = "looks like a picture, or the place of one. Send a picture as image, in the body of POST."
            raise wrong_field(text_param, wrong)
        requests.checked_text(text, text_param)
        if request.minus is not None:
            requests.checked_text(request.minus, "minus")
        if not text and request.image is None and request.like is None:
            raise RequestError(422, "Give a text, an image, or the id of a picture (like).", code="invalid_value")
        # A text is encoded while the index is searched; here it only counts as one item.
        item = requests.Item("text", text, text_param)
        if request.image is not None:
            item = requests.Item("image", request.image, "image")

        async def found() -> dict[str, Any]:
            async with model.admitted([item]) as [value]:
                image = None if request.image is None else value
                return await to_thread.run_sync(_search, index, request, text or None, image, abandon_on_cancel=True)

        return await _within(seconds, found())

    @app.post(requests.SEARCH)
    async def search(request: requests.SearchRequest) -> dict[str, Any]:
        """Best pictures first."""
        return await answer(request, "text")

    @app.get(requests.SEARCH)
    async def search_by_address(parameters: Annotated[requests.SearchParameters, Query()]) -> dict[str, Any]:
        """The same without a picture of one's own."""
        return await answer(parameters.request(), "q")

    @app.get("/thumbnails/{picture}")
    async def thumbnail(picture: str) -> Response:
        """A JPEG of at most 256 pixels a side."""
        try:
            data = await to_thread.run_sync(index.thumbnail, picture)
        except UnavailableError as error:
            raise _unavailable(error) from error
        except DistilvlError as error:
            raise RequestError(404, "There is no such picture in the index.", code="unknown_picture") from error
        # An id stands for its picture's content for good.
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400, immutable"})

    folder = Path(__file__).with_name("page")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(folder / "search.html", headers={"Cache-Control": "no-cache"})

    app.mount(PAGE, _PageFiles(directory=folder), name="page")


def _search(
    index: Index, request: requests.SearchRequest, text: str | None, image: Image.Image | None
) -> dict[str, Any]:
    options = request.model_dump(exclude={"text", "image"})
    try:
        hits, photos = index.search(text, image, **options), len(index)
    except UnavailableError as error:
        raise _unavailable(error) from error
    except DistilvlError as error:
        option = error.option if isinstance(error, OptionError) else None
        raise RequestError(422, str(error), code="invalid_value", param=option) from error
    except UnencodableError as error:
        raise RequestError(500, "The model fails at this query.", code="unencodable") from error
    return {"hits": [{**hit.as_dict(), "thumbnail": f"/thumbnails/{hit.id}"} for hit in hits], "photos": photos}


def _unavailable(error: UnavailableError) -> RequestError:
    """503: the index is gone, damaged or being made anew; what is wrong is for the log, not for clients."""
    logger.warning("the index cannot be read: %s", error)
    message = "The index cannot be read at the moment; the server's log says why."
    return RequestError(503, message, code="index_unavailable", headers={"Retry-After": "5"})


class _PageFiles(StaticFiles):
    """Files of the page, which are there or not there before their parameters are looked at; they take none."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        found = await super().get_response(path, scope)
        requests.check_parameters(scope["query_string"])
        return found
