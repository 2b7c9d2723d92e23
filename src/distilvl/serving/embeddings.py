"""`/v1/embeddings` and `/v1/models`, as OpenAI's clients know them."""

from __future__ import annotations

import base64
from functools import partial
from typing import Any

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Response
from pydantic_core import to_json

from distilvl.serving.batching import Rows
from distilvl.serving.deadline import within
from distilvl.serving.faults import Fault
from distilvl.serving.items import read_items
from distilvl.serving.model import ServedModel, shortened
from distilvl.serving.naming import ExactRoute
from distilvl.serving.questions import EmbeddingQuestion
from distilvl.serving.settings import ServeSettings

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
