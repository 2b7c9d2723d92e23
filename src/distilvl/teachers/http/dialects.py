"""How each embeddings API writes requests and replies (from the providers' references); what of a reply is usable."""

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
    """How items of one modality are written."""

    items_field: str  # name of the list of items in the body
    item: Any  # what one entry of that list looks like, with `ITEM` where the text or data URI goes
    most: int  # items a request, at most
    fixed: Mapping[str, Any] = field(default_factory=dict)  # further entries of the body

    def body(self, model: str, items: Sequence[str]) -> dict[str, Any]:
        """The JSON object to send for `items`."""
        return {"model": model, **self.fixed, self.items_field: [_filled(self.item, item) for item in items]}


@dataclass(frozen=True)
class Dialect:
    """One API."""

    name: str  # before the `+` in the spec
    path: str  # appended to the address in the spec
    key_env: str  # environment variable that holds the key, unless the spec names another
    text: Request
    image: Request
    found_at: tuple[str, ...] = ("data",)  # path to the list of results in the reply
    vector: str | None = "embedding"  # field of a result that holds the embedding; None when the result is it
    index: str | None = "index"  # field of a result that holds its item's position; None when they come in order
    dimensions: str = "dimensions"  # field of the body that asks for shorter embeddings

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
_JINA = {"embedding_type": "float"}
_COHERE = {"embedding_types": ["float"]}
_CHAT = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": ITEM}}]}
_VOYAGE_TEXT = {"content": [{"type": "text", "text": ITEM}]}
_VOYAGE_IMAGE = {"content": [{"type": "image_base64", "image_base64": ITEM}]}
_ALL = (
    # OpenAI's own models take no images; gateways that speak its language take a data URI as input.
    Dialect(
        "openai", "/embeddings", "OPENAI_API_KEY",
        text=Request("input", ITEM, 128, _FLOATS), image=Request("input", ITEM, 16, _FLOATS),
    ),
    # Images are chat messages, and a request holds one conversation.
    Dialect(
        "vllm", "/embeddings", "VLLM_API_KEY",
        text=Request("input", ITEM, 64, _FLOATS), image=Request("messages", _CHAT, 1, _FLOATS),
    ),
    Dialect(
        "infinity", "/embeddings", "INFINITY_API_KEY",
        text=Request("input", ITEM, 64, {**_FLOATS, "modality": "text"}),
        image=Request("input", ITEM, 32, {**_FLOATS, "modality": "image"}),
    ),
    Dialect(
        "jina", "/embeddings", "JINA_API_KEY",
        text=Request("input", {"text": ITEM}, 128, _JINA), image=Request("input", {"image": ITEM}, 32, _JINA),
    ),
    Dialect(
        "voyage", "/multimodalembeddings", "VOYAGE_API_KEY",
        text=Request("inputs", _VOYAGE_TEXT, 128), image=Request("inputs", _VOYAGE_IMAGE, 32),
        dimensions="output_dimension",
    ),
    # Version 2 of the API: embeddings in order, without an index; one image a request.
    Dialect(
        "cohere", "/embed", "COHERE_API_KEY",
        text=Request("texts", ITEM, 96, {"input_type": "search_document", **_COHERE}),
        image=Request("images", ITEM, 1, {"input_type": "image", **_COHERE}),
        found_at=("embeddings", "float"), vector=None, index=None, dimensions="output_dimension",
    ),
)  # fmt: skip
DIALECTS = {dialect.name: dialect for dialect in _ALL}

Embedding = npt.NDArray[np.float32]


class BadReplyError(Exception):
    """A reply of which no embedding can be used; the message says why, as part of a sentence."""


def usable_embeddings(reply: Any, count: int, dim: int, dialect: Dialect) -> dict[int, Embedding]:
    """The good embeddings of `reply`, of dimension `dim`, by the position of their item in [0, count).

    The rest has to be requested again; `BadReplyError` if none is good, or they cannot be matched with their items.
    """
    results = _results(reply, dialect)
    positions = _positions(results, count, dialect)
    found: dict[int, Embedding] = {}
    fault = BadReplyError("it holds no embeddings")
    for position, result in zip(positions, results, strict=True):
        try:
            found[position] = _embedding(result.get(dialect.vector) if dialect.vector is not None else result, dim)
        except BadReplyError as error:
            fault = error
    if not found:
        raise fault
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
            what = f"it holds {len(results)} embeddings for {count} items"
            raise BadReplyError(f"{what}, and does not say whose they are")
        return list(range(count))
    if any(type(index) is not int or not 0 <= index < count for index in indices):
        raise BadReplyError(f"its embeddings have other indices than 0 to {count - 1}")
    if len(set(indices)) != len(indices):
        raise BadReplyError("it holds two embeddings with the same index")
    return indices


def _embedding(vector: Any, dim: int) -> Embedding:
    if not isinstance(vector, list) or not all(type(value) in (int, float) for value in vector):
        raise BadReplyError("an embedding is not a list of numbers")
    if len(vector) != dim:
        raise BadReplyError(f"an embedding has dimension {len(vector)}, not {dim}")
    try:
        wide = np.array(vector, dtype=np.float64)
    except OverflowError as error:
        raise BadReplyError("an embedding holds a number with more digits than any float") from error
    if not np.isfinite(wide).all():
        raise BadReplyError("an embedding holds numbers that are not finite")
    # Of normal size in float32, in which embeddings are kept.
    largest = float(np.abs(wide).max())
    if largest < 1e-30:
        raise BadReplyError("an embedding is all zero")
    if largest > 1e30:
        raise BadReplyError("an embedding holds numbers that are too large")
    return wide.astype(np.float32)
