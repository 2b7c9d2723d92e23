"""How each embeddings API writes a request and a response, from the providers' public references;
and which are usable."""

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
class Question:
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
        text: how texts are asked.
        image: how images are asked.
        key_env: environment variable that holds the key, unless the spec names another.
        rows_at: path to the list of answers in the reply.
        vector: field of an answer that holds the row; None when the answer is the row itself.
        index: field of an answer that holds its item's position; None when answers come in order.
        dimensions: field of the body that asks for shorter rows; None when there is none.
        key_header: header that carries the key.
        key_format: its value.
    """

    name: str
    text: Question
    image: Question
    key_env: str
    rows_at: tuple[str, ...] = ("data",)
    vector: str | None = "embedding"
    index: str | None = "index"
    dimensions: str | None = "dimensions"
    key_header: str = "Authorization"
    key_format: str = "Bearer {key}"

    def question(self, modality: Modality) -> Question:
        """How items of `modality` are asked."""
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
            text=Question("/embeddings", "input", ITEM, 128, _FLOATS),
            image=Question("/embeddings", "input", ITEM, 16, _FLOATS),
            key_env="OPENAI_API_KEY",
        ),
        # Images are chat messages, and a request holds one conversation.
        Dialect(
            name="vllm",
            text=Question("/embeddings", "input", ITEM, 64, _FLOATS),
            image=Question(
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
            text=Question("/embeddings", "input", ITEM, 64, {**_FLOATS, "modality": "text"}),
            image=Question("/embeddings", "input", ITEM, 32, {**_FLOATS, "modality": "image"}),
            key_env="INFINITY_API_KEY",
        ),
        Dialect(
            name="jina",
            text=Question("/embeddings", "input", {"text": ITEM}, 128, {"embedding_type": "float"}),
            image=Question("/embeddings", "input", {"image": ITEM}, 32, {"embedding_type": "float"}),
            key_env="JINA_API_KEY",
        ),
        Dialect(
            name="voyage",
            text=Question("/multimodalembeddings", "inputs", {"content": [{"type": "text", "text": ITEM}]}, 128),
            image=Question(
                "/multimodalembeddings", "inputs", {"content": [{"type": "image_base64", "image_base64": ITEM}]}, 32
            ),
            key_env="VOYAGE_API_KEY",
            dimensions="output_dimension",
        ),
        # Version 2 of the API: rows in order, without an index; one image a request.
        Dialect(
            name="cohere",
            text=Question("/embed", "texts", ITEM, 96, {"input_type": "search_document", "embedding_types": ["float"]}),
            image=Question("/embed", "images", ITEM, 1, {"input_type": "image", "embedding_types": ["float"]}),
            key_env="COHERE_API_KEY",
            rows_at=("embeddings", "float"),
            vector=None,
            index=None,
            dimensions="output_dimension",
        ),
    )
}

Row = npt.NDArray[np.float32]


class BadReplyError(Exception):
    """A reply of which no row can be used; the message says why, as part of a sentence."""


def usable_rows(reply: Any, count: int, dim: int, dialect: Dialect) -> dict[int, Row]:
    """The good rows of `reply` by the position of their item; what is lacking has to be asked again.

    Args:
        reply: parsed JSON.
        count: number of items that were asked; positions are in [0, count).
        dim: width a row must have.
        dialect: where to find things.

    Raises:
        BadReplyError: no good row at all, or answers that cannot be matched with their items.
    """
    answers = _answers(reply, dialect)
    positions = _positions(answers, count, dialect)
    rows: dict[int, Row] = {}
    reason = "it holds no rows"
    for position, answer in zip(positions, answers, strict=True):
        vector = answer.get(dialect.vector) if dialect.vector is not None else answer
        row, fault = _row(vector, dim)
        if row is None:
            reason = fault
        else:
            rows[position] = row
    if not rows:
        raise BadReplyError(reason)
    return rows


def _answers(reply: Any, dialect: Dialect) -> list[Any]:
    for step in dialect.rows_at:
        reply = reply.get(step) if isinstance(reply, Mapping) else None
    if not isinstance(reply, list):
        raise BadReplyError(f"it has no list of rows at {'.'.join(dialect.rows_at)!r}")
    if dialect.vector is not None and not all(isinstance(answer, Mapping) for answer in reply):
        raise BadReplyError(f"its rows lack {dialect.vector!r}")
    return reply


def _positions(answers: list[Any], count: int, dialect: Dialect) -> list[int]:
    """Which item each answer belongs to: by its index, or by order where all items are there."""
    indices = [answer.get(dialect.index) for answer in answers] if dialect.index is not None else []
    if not indices or all(index is None for index in indices):
        if len(answers) != count:
            raise BadReplyError(f"it holds {len(answers)} rows for {count} items, and does not say whose they are")
        return list(range(count))
    if any(type(index) is not int or not 0 <= index < count for index in indices):
        raise BadReplyError(f"its rows have other indices than 0 to {count - 1}")
    if len(set(indices)) != len(indices):
        raise BadReplyError("it holds two rows with the same index")
    return indices


def _row(vector: Any, dim: int) -> tuple[Row | None, str]:
    if not isinstance(vector, list) or not all(type(value) in (int, float) for value in vector):
        return None, "a row is not a list of numbers"
    if len(vector) != dim:
        return None, f"a row has width {len(vector)}, not {dim}"
    try:
        row = np.array(vector, dtype=np.float64)
    except OverflowError:
        return None, "a row holds a number with more digits than any float"
    if not np.isfinite(row).all():
        return None, "a row holds numbers that are not finite"
    # Of normal size in float32, in which rows are kept.
    largest = float(np.abs(row).max())
    if largest < 1e-30:
        return None, "a row is all zero"
    if largest > 1e30:
        return None, "a row holds numbers that are too large"
    return row.astype(np.float32), ""
