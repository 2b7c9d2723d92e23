"""`/search` and thumbnails, for a server that was started with an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query, Response
from PIL import Image

from distilvl.errors import DistilvlError, OptionError
from distilvl.serving.batching import UnencodableError
from distilvl.serving.deadline import within
from distilvl.serving.faults import Fault
from distilvl.serving.items import checked_text
from distilvl.serving.model import ServedModel
from distilvl.serving.naming import ExactRoute
from distilvl.serving.questions import SEARCH, SearchAddress, SearchQuestion
from distilvl.serving.settings import ServeSettings
from distilvl.serving.spelling import Likeness, likeness

if TYPE_CHECKING:
    from distilvl.search import Index


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
