"""How each embeddings API writes a question and an answer: one table, from the providers' public references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

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
