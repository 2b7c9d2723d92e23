"""The routes: `/v1/embeddings` and `/v1/models` as OpenAI's clients know them, `/search` and thumbnails."""

from __future__ import annotations

import base64
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Query, Response
from PIL import Image
from pydantic_core import to_json

from distilvl.errors import DistilvlError, OptionError
from distilvl.serving.batching import Rows, UnencodableError
from distilvl.serving.errors import ExactRoute, Fault
from distilvl.serving.items import SEARCH, EmbeddingQuestion, SearchAddress, SearchQuestion, checked_text, read_items
from distilvl.serving.limits import ServeSettings, within
from distilvl.serving.model import ServedModel, shortened
from distilvl.serving.spelling import Likeness, likeness

if TYPE_CHECKING:
    from distilvl.search import Index


_FEW_NUMBERS = 4096


def embedding_routes(model: ServedModel, settings: ServeSettings) -> APIRouter:
    """The routes of `model`."""
    routes = APIRouter(prefix="/v1", route_class=ExactRoute)

    @routes.post("/embeddings")
    async def embeddings(question: EmbeddingQuestion) -> Response:
        """Rows for texts and pictures."""
        _check_name(question.model, model.name)
        width = question.dimensions if question.dimensions is not None else model.dim
        if width not in model.widths:
            widths = " or ".join(map(str, sorted(model.widths)))
            message = f"dimensions is {width}; this model gives rows of {widths}."
            raise Fault(422, message, code="invalid_value", param="dimensions")
        items = read_items(question, settings.max_items)
        rows = await within(settings.request_timeout, model.rows(items))
        is_base64 = question.encoding_format == "base64"
        answer = partial(_answer, shortened(rows, width), model.name, is_base64)
        # Ten thousands of numbers to text: not in the event loop. A few cost less than the way to a thread.
        body = answer() if rows.size <= _FEW_NUMBERS else await to_thread.run_sync(answer)
        return Response(body, media_type="application/json")

    @routes.get("/models")
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [_entry(model)]}

    @routes.get("/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        """The same, by its name."""
        _check_name(name, model.name)
        return _entry(model)

    return routes


def _check_name(asked: str, served: str) -> None:
    if asked != served:
        raise Fault(404, f"This server has one model, {served!r}.", code="model_not_found", param="model")


def _entry(model: ServedModel) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": "distilvl",
        "revision": model.revision,
        "dimensions": sorted(model.widths),
    }


def _answer(rows: Rows, name: str, is_base64: bool) -> bytes:
    """The JSON; base64 is of little-endian float32, as OpenAI's is."""
    values: list[Any]
    if is_base64:
        values = [base64.b64encode(row.astype("<f4").tobytes()).decode("ascii") for row in rows]
    else:
        values = np.asarray(rows, np.float32).tolist()
    data = [{"object": "embedding", "index": index, "embedding": value} for index, value in enumerate(values)]
    # Tokens are not counted: nobody pays for them, and a student's tokenizer is its own.
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    return to_json({"object": "list", "model": name, "data": data, "usage": usage})


def search_routes(model: ServedModel, index: Index, settings: ServeSettings) -> APIRouter:
    """The routes of `index`, whose encoder must be `model.encoder`."""
    routes = APIRouter(route_class=ExactRoute)

    async def answer(question: SearchQuestion, name: str) -> dict[str, Any]:
        text = _checked((question.text or "").strip(), name) or None
        if text is None and question.image is None and question.like is None:
            raise Fault(422, "Give a text, an image, or the id of a picture (like).", code="invalid_value")

        async def found() -> dict[str, Any]:
            async with model.picture(question.image, "image") as image:
                return await to_thread.run_sync(_search, index, question, text, image, abandon_on_cancel=True)

        return await within(settings.request_timeout, found())

    @routes.post(SEARCH)
    async def search(question: SearchQuestion) -> dict[str, Any]:
        """Best pictures first."""
        return await answer(question, "text")

    @routes.get(SEARCH)
    async def search_by_address(address: Annotated[SearchAddress, Query()]) -> dict[str, Any]:
        """The same without a picture of one's own."""
        return await answer(address.question(), "q")

    @routes.get("/thumbnails/{picture}")
    async def thumbnail(picture: str) -> Response:
        """A JPEG of at most 256 pixels a side."""
        try:
            data = await to_thread.run_sync(index.thumbnail, picture)
        except DistilvlError as error:
            raise Fault(404, "There is no such picture in the index.", code="unknown_picture") from error
        # An id stands for its picture's content for good.
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400, immutable"})

    return routes


def _checked(text: str, name: str) -> str:
    """A text to search for, which must not be a picture that somebody wanted to search with."""
    if likeness(text) is not Likeness.TEXT:
        message = f"{name} looks like a picture, or the place of one. Send a picture as image, in the body of POST."
        raise Fault(422, message, code="invalid_value", param=name)
    return checked_text(text, name)


def _search(index: Index, question: SearchQuestion, text: str | None, image: Image.Image | None) -> dict[str, Any]:
    try:
        hits = index.search(
            text,
            image,
            like=question.like,
            weight=question.weight,
            top=question.top,
            folder=question.folder,
            since=question.since,
            until=question.until,
            copies=question.copies,
        )
    except OptionError as error:
        raise Fault(422, str(error), code="invalid_value", param=error.option) from error
    except DistilvlError as error:
        raise Fault(422, str(error), code="invalid_value") from error
    except UnencodableError as error:
        raise Fault(500, "The model fails at this query.", code="unencodable") from error
    return {"hits": [{**hit.as_dict(), "thumbnail": f"/thumbnails/{hit.id}"} for hit in hits], "photos": len(index)}
