"""How each embeddings API writes requests and replies (from the providers' references); what of a reply is usable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Modality = Literal["image", "text"]
ITEM = "{item}"
"""Stands for the text, or for the image's data URI, in an item's template."""


@dataclass(frozen=True)
class Request:
    """How items of one modality are written.

    Attributes:
        path: appended to the address in the spec.
        items_field: name of the list of items in the body.
        item: what one entry of that list looks like, with `ITEM` where the text or data URI goes.
        most: items a request, at most.
        fixed: further entries of the body.
    """

    path: str
    items_field: str
    item: Any
    most: int
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def body(self, model: str, items: Sequence[str]) -> dict[str, Any]:
        """The JSON object to send for `items`."""
        return {"model": model, **self.fixed, self.items_field: [_filled(self.item, item) for item in items]}


@dataclass(frozen=True)
class Dialect:
    """One API.

    Attributes:
        name: before the `+` in the spec.
        text, image: how items of each modality are written.
        key_env: environment variable that holds the key, unless the spec names another.
        found_at: path to the list of results in the reply.
        vector: field of a result that holds the embedding; None when the result is the embedding itself.
        index: field of a result that holds its item's position; None when results come in order.
        dimensions: field of the body that asks for shorter embeddings; None when there is none.
        key_header: header that carries the key.
        key_format: its value.
    """

    name: str
    text: Request
    image: Request
    key_env: str
    found_at: tuple[str, ...] = ("data",)
    vector: str | None = "embedding"
    index: str | None = "index"
    dimensions: str | None = "dimensions"
    key_header: str = "Authorization"
    key_format: str = "Bearer {key}"

    def request(self, modality: Modality) -> Request:
        """How items of `modality` are written."""
        return self.text if modality == "text" else self.image


def _filled(template: Any, item: str) -> Any:
    if isinstance(template, str):
        return item if template == ITEM else template
    if isinstance(template, Mapping):
        return {key: _filled(value, item) for key, value in template.items()}
    return [_filled(value, item) for value in template]


_FLOATS = {"encoding_format": "float"}

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        # OpenAI's own models take no images; gateways that speak its language take a data URI as input.
        Dialect(
            name="openai",
            text=Request("/embeddings", "input", ITEM, 128, _FLOATS),
            image=Request("/embeddings", "input", ITEM, 16, _FLOATS),
            key_env="OPENAI_API_KEY",
        ),
        # Images are chat messages, and a request holds one conversation.
        Dialect(
            name="vllm",
            text=Request("/embeddings", "input", ITEM, 64, _FLOATS),
            image=Request(
                "/embeddings",
                "messages",
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": ITEM}}]},
                1,
                _FLOATS,
            ),
            key_env="VLLM_API_KEY",
        ),
        Dialect(
            name="infinity",
            text=Request("/embeddings", "input", ITEM, 64, {**_FLOATS, "modality": "text"}),
            image=Request("/embeddings", "input", ITEM, 32, {**_FLOATS, "modality": "image"}),
            key_env="INFINITY_API_KEY",
        ),
        Dialect(
            name="jina",
            text=Request("/embeddings", "input", {"text": ITEM}, 128, {"embedding_type": "float"}),
            image=Request("/embeddings", "input", {"image": ITEM}, 32, {"embedding_type": "float"}),
            key_env="JINA_API_KEY",
        ),
        Dialect(
            name="voyage",
            text=Request("/multimodalembeddings", "inputs", {"content": [{"type": "text", "text": ITEM}]}, 128),
            image=Request(
                "/multimodalembeddings", "inputs", {"content": [{"type": "image_base64", "image_base64": ITEM}]}, 32
            ),
            key_env="VOYAGE_API_KEY",
            dimensions="output_dimension",
        ),
        # Version 2 of the API: embeddings in order, without an index; one image a request.
        Dialect(
            name="cohere",
            text=Request("/embed", "texts", ITEM, 96, {"input_type": "search_document", "embedding_types": ["float"]}),
            image=Request("/embed", "images", ITEM, 1, {"input_type": "image", "embedding_types": ["float"]}),
            key_env="COHERE_API_KEY",
            found_at=("embeddings", "float"),
            vector=None,
            index=None,
            dimensions="output_dimension",
        ),
    )
}

Embedding = npt.NDArray[np.float32]


class BadReplyError(Exception):
    """A reply of which no embedding can be used; the message says why, as part of a sentence."""


def usable_embeddings(reply: Any, count: int, dim: int, dialect: Dialect) -> dict[int, Embedding]:
    """The good embeddings of `reply` by the position of their item; the rest has to be requested again.

    Args:
        reply: parsed JSON.
        count: number of items of the request; positions are in [0, count).
        dim: dimension an embedding must have.
        dialect: where to find things.

    Raises:
        BadReplyError: no good embedding at all, or results that cannot be matched with their items.
    """
    results = _results(reply, dialect)
    positions = _positions(results, count, dialect)
    found: dict[int, Embedding] = {}
    reason = "it holds no embeddings"
    for position, result in zip(positions, results, strict=True):
        vector = result.get(dialect.vector) if dialect.vector is not None else result
        embedding, fault = _embedding(vector, dim)
        if embedding is None:
            reason = fault
        else:
            found[position] = embedding
    if not found:
        raise BadReplyError(reason)
    return found


def _results(reply: Any, dialect: Dialect) -> list[Any]:
    for step in dialect.found_at:
        reply = reply.get(step) if isinstance(reply, Mapping) else None
    if not isinstance(reply, list):
        raise BadReplyError(f"it has no list of embeddings at {'.'.join(dialect.found_at)!r}")
    if dialect.vector is not None and not all(isinstance(result, Mapping) for result in reply):
        raise BadReplyError(f"its embeddings lack {dialect.vector!r}")
    return reply


def _positions(results: list[Any], count: int, dialect: Dialect) -> list[int]:
    """Which item each result belongs to: by its index, or by order where all items are there."""
    indices = [result.get(dialect.index) for result in results] if dialect.index is not None else []
    if not indices or all(index is None for index in indices):
        if len(results) != count:
            raise BadReplyError(
                f"it holds {len(results)} embeddings for {count} items, and does not say whose they are"
            )
        return list(range(count))
    if any(type(index) is not int or not 0 <= index < count for index in indices):
        raise BadReplyError(f"its embeddings have other indices than 0 to {count - 1}")
    if len(set(indices)) != len(indices):
        raise BadReplyError("it holds two embeddings with the same index")
    return indices


def _embedding(vector: Any, dim: int) -> tuple[Embedding | None, str]:
    if not isinstance(vector, list) or not all(type(value) in (int, float) for value in vector):
        return None, "an embedding is not a list of numbers"
    if len(vector) != dim:
        return None, f"an embedding has dimension {len(vector)}, not {dim}"
    try:
        wide = np.array(vector, dtype=np.float64)
    except OverflowError:
        return None, "an embedding holds a number with more digits than any float"
    if not np.isfinite(wide).all():
        return None, "an embedding holds numbers that are not finite"
    # Of normal size in float32, in which embeddings are kept.
    largest = float(np.abs(wide).max())
    if largest < 1e-30:
        return None, "an embedding is all zero"
    if largest > 1e30:
        return None, "an embedding holds numbers that are too large"
    return wide.astype(np.float32), ""
