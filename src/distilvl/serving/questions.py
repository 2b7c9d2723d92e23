"""What clients send, in the dialects of embeddings APIs that `distilvl.teachers.http` speaks itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, Field

from distilvl.serving.batching import Modality
from distilvl.serving.faults import Fault
from distilvl.serving.pictures import PREFIX

# Far above what any text tower reads; the tokenizer would still go through all of it.
LONGEST_TEXT = 100_000


class EmbeddingQuestion(BaseModel):
    """Body of `POST /v1/embeddings`; fields that we do not know are passed over, as such servers do."""

    model: str
    input: Any = Field(None, description="a text or picture (data URI), or a list of them")
    messages: Any = Field(None, description="instead of input: one chat message with one text or picture")
    modality: Literal["text", "image"] | None = Field(None, description="of all of input; else each tells by itself")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, validation_alias=AliasChoices("encoding_format", "embedding_type")
    )
    dimensions: int | None = None


class SearchQuestion(BaseModel):
    """Body of `POST /search`: at least one of text, image and like; together they are one combined query."""

    model_config = {"extra": "forbid"}

    text: str | None = None
    image: str | None = Field(None, description="a picture as a data URI")
    like: str | None = Field(None, description="id of a picture in the index")
    top: int = Field(10, ge=1, le=200)
    folder: str | None = None
    since: str | None = Field(None, description="YYYY, YYYY-MM or YYYY-MM-DD")
    until: str | None = Field(None, description="YYYY, YYYY-MM or YYYY-MM-DD")


@dataclass(frozen=True)
class Item:
    """A text, or a picture's data URI, that is to be encoded.

    Attributes:
        modality: which of the two.
        value: the text or the data URI.
        param: where it stood in the request.
    """

    modality: Modality
    value: str
    param: str


def read_items(question: EmbeddingQuestion, most: int) -> list[Item]:
    """The items of a request, in order; one of 1 to `most`.

    Raises:
        Fault: 422, naming the entry that is not understood.
    """
    if (question.input is None) == (question.messages is None):
        raise Fault(422, "Give either input or messages.", code="invalid_value", param="input")
    if question.messages is not None:
        return [_from_messages(question.messages)]
    entries = question.input if isinstance(question.input, list) else [question.input]
    if not 1 <= len(entries) <= most:
        message = f"input has {len(entries)} entries; give 1 to {most} in one request."
        raise Fault(422, message, code="batch_size", param="input")
    single = not isinstance(question.input, list)
    return [_item(entry, question.modality, "input" if single else f"input[{k}]") for k, entry in enumerate(entries)]


def checked_text(text: str, param: str) -> str:
    """`text`, if a tokenizer can take it.

    Raises:
        Fault: 422, too long or not text.
    """
    if len(text) > LONGEST_TEXT:
        message = f"{param} has {len(text):,} characters; at most {LONGEST_TEXT:,} are read."
        raise Fault(422, message, code="text_too_long", param=param)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        message = f"{param} holds half of a surrogate pair, which is no character."
        raise Fault(422, message, code="invalid_value", param=param) from error
    return text


def _item(entry: Any, modality: Modality | None, param: str) -> Item:
    if isinstance(entry, str):
        if modality == "image" or (modality is None and entry.startswith(PREFIX)):
            return Item("image", entry, param)
        return Item("text", checked_text(entry, param), param)
    if isinstance(entry, Mapping):
        return _from_object(entry, param)
    if isinstance(entry, int | list):
        message = f"{param} holds token numbers; which tokens they are depends on the tokenizer, so send text."
        raise Fault(422, message, code="tokens_not_supported", param=param)
    raise _not_understood(param)


def _from_object(entry: Mapping[str, Any], param: str) -> Item:
    """`{"text": T}`, `{"image": URI}`, or a part of a chat message."""
    kind = entry.get("type")
    values = [(name, entry[name]) for name in ("text", "image", "image_url") if name in entry]
    if len(values) != 1 or (kind is not None and kind != values[0][0]):
        raise _not_understood(param)
    name, value = values[0]
    if name == "image_url" and isinstance(value, Mapping):
        value = value.get("url")
    if not isinstance(value, str):
        raise _not_understood(param)
    return Item("text", checked_text(value, param), param) if name == "text" else Item("image", value, param)


def _from_messages(messages: Any) -> Item:
    content = messages[0].get("content") if _is_single(messages) and isinstance(messages[0], Mapping) else None
    if isinstance(content, str):
        return Item("text", checked_text(content, "messages"), "messages")
    if content is None or not _is_single(content) or not isinstance(content[0], Mapping):
        message = "messages is not one message with one text or one picture; a row stands for a single one."
        raise Fault(422, message, code="invalid_value", param="messages")
    return _from_object(content[0], "messages")


def _is_single(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 1


def _not_understood(param: str) -> Fault:
    message = f'{param} is neither a text nor a picture: send a string, {{"text": ...}} or {{"image": data URI}}.'
    return Fault(422, message, code="invalid_value", param=param)
