"""The application: routes, and around them the layers that refuse what must not reach them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from distilvl._version import __version__
from distilvl.models.encoder import Encoder
from distilvl.serving.addresses import PAGE, Access, Addresses, PageFiles
from distilvl.serving.batching import Metrics
from distilvl.serving.errors import http_fault, validation_fault
from distilvl.serving.items import BODIES, QUERIES
from distilvl.serving.limits import ServeSettings
from distilvl.serving.middleware import Bodies, Edge
from distilvl.serving.model import ServedModel
from distilvl.serving.routes import embedding_routes, search_routes

if TYPE_CHECKING:
    from distilvl.search import Index

OpenIndex = Callable[[Encoder], "Index"]
"""Opens an index for the given encoder."""


def create_app(
    encoder: Encoder, settings: ServeSettings, *, name: str | None = None, open_index: OpenIndex | None = None
) -> FastAPI:
    """An ASGI application that serves `encoder`; its lifespan must run, as every ASGI server sees to.

    Args:
        encoder: the model; from here on only the application's worker thread calls it.
        settings: limits and key.
        name: what clients call the model; its own name if not given.
        open_index: opens the index to search, with an encoder that joins its queries with all others.

    Raises:
        DistilvlError: the index cannot be opened, or was made with another model.
    """
    metrics = Metrics()
    model = ServedModel(encoder, name or encoder.name, settings, metrics)
    index = open_index(model.encoder) if open_index is not None else None

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        model.close()

    app = FastAPI(
        title="distilvl serve",
        version=__version__,
        # The framework's documentation pages fetch their scripts from elsewhere; the schema alone needs nothing.
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        middleware=[
            Middleware(Edge, metrics=metrics),
            Middleware(Access, settings=settings),
            Middleware(Addresses, queries=QUERIES, bodies=BODIES),
            Middleware(Bodies, settings=settings),
        ],
        exception_handlers={HTTPException: http_fault, RequestValidationError: validation_fault},
    )
    app.include_router(embedding_routes(model, settings))
    if index is not None:
        app.include_router(search_routes(model, index, settings))
        _add_page(app)

    @app.get("/healthz")
    async def health() -> dict[str, str]:
        """Whether the server is there."""
        return {"status": "ok", "model": model.name}

    @app.get("/metrics")
    async def prometheus() -> Response:
        """Counters for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


def _add_page(app: FastAPI) -> None:
    """The search page at `/`, and its files."""
    folder = Path(__file__).with_name("page")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(folder / "search.html", headers={"Cache-Control": "no-cache"})

    app.mount(PAGE, PageFiles(directory=folder), name="page")
