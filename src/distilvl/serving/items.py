"""What clients send for embedding, in the dialects of several APIs: each item is a text or a picture,
or is refused by its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field

from distilvl.serving.batching import Modality
from distilvl.serving.errors import Fault, Fields, known_names, require_known
from distilvl.serving.spelling import Likeness, likeness

MOST_HITS = 200


def _number(value: Any) -> Any:
    """JSON has numbers; Python takes true for one, and pydantic the text of one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("Input should be a number, without quotes")
    return value


Whole = Annotated[int, BeforeValidator(_number)]
"""A whole number of JSON."""

Fraction = Annotated[float, BeforeValidator(_number)]
"""A number of JSON."""


class EmbeddingQuestion(Fields):
    """Body of `POST /v1/embeddings`."""

    model: str
    input: Any = Field(None, description="a text or picture (data URI), or a list of them")
    messages: Any = Field(None, description="instead of input: one chat message with one text or picture")
    modality: Literal["text", "image"] | None = Field(None, description="of all of input; else each tells by itself")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, validation_alias=AliasChoices("encoding_format", "embedding_type")
    )
    dimensions: Whole | None = None
    normalized: Literal[True] | None = Field(
        None, validation_alias=AliasChoices("normalized", "normalize"), description="rows always are of unit length"
    )
    user: str | None = Field(None, description="who asks; not used")


class _Asked(BaseModel):
    """What GET and POST take alike."""

    like: str | None = Field(None, description="id of a picture in the index")
    folder: str | None = Field(None, description="only below this folder")
    since: str | None = Field(None, description="YYYY, YYYY-MM, YYYY-MM-DD or a time")
    until: str | None = Field(None, description="YYYY, YYYY-MM, YYYY-MM-DD or a time")


class SearchQuestion(_Asked, Fields):
    """Body of `POST /search`: at least one of text, image and like; together they are one combined query."""

    text: str | None = None
    image: str | None = Field(None, description="a picture as a data URI")
    top: Whole = Field(10, ge=1, le=MOST_HITS)
    weight: Fraction | None = Field(
        None, ge=0, le=1, description="of text and picture together, the text's share; 0.5 if not given"
    )
    copies: Annotated[bool, Field(strict=True)] = Field(False, description="each copy of a picture by itself")


class SearchAddress(_Asked, Fields):
    """Parameters of `GET /search`: the same but for the picture, which needs a body."""

    q: str | None = Field(None, description="a text")
    top: int = Field(10, ge=1, le=MOST_HITS)
    weight: float | None = Field(
        None, ge=0, le=1, description="of text and picture together, the text's share; 0.5 if not given"
    )
    copies: bool = Field(False, description="each copy of a picture by itself")

    def question(self) -> SearchQuestion:
        """The same question as a body."""
        return SearchQuestion(text=self.q, **self.model_dump(exclude={"q"}))


SEARCH = "/search"
PAGE = "/"
QUERIES = {
    SEARCH: known_names(SearchAddress),
    PAGE: [name for name in known_names(SearchAddress) if name not in ("top", "weight")],
}
"""Parameters that GET takes; the page reads its own address, to show the query again."""

BODIES = {SEARCH: known_names(SearchQuestion), "/v1/embeddings": known_names(EmbeddingQuestion)}
"""Fields that POST takes."""

# Far above what any text tower reads; the tokenizer would still go through all of it.
LONGEST_TEXT = 100_000

_PART_FIELDS = ("text", "image", "image_url", "type", "detail")
_KINDS = {
    "text": ("text", "input_text"),
    "image": ("image", "image_url", "input_image"),
    "image_url": ("image", "image_url", "input_image"),
}
"""What `type` may say beside each field."""


@dataclass(frozen=True)
class Item:
    """A text, or a picture's data URI, that is to be encoded.

    Attributes:
        modality: which of the two.
        value: the text, or the data URI or base64 of the picture.
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
        return [_from_messages(question.messages, question.modality)]
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
        return _from_text(entry, modality, param)
    if isinstance(entry, Mapping):
        return _from_object(entry, modality, param)
    if isinstance(entry, list) or (isinstance(entry, int) and not isinstance(entry, bool)):
        message = f"{param} holds token numbers; which tokens they are depends on the tokenizer, so send text."
        raise Fault(422, message, code="tokens_not_supported", param=param)
    raise _not_understood(param)


def _from_text(entry: str, modality: Modality | None, param: str) -> Item:
    """A string that may be either; what looks like a picture must not become the row of a text."""
    if modality is None:
        found = likeness(entry)
        if found is Likeness.PLACE:
            message = f"{param} is the address or the path of a picture, and the server fetches and opens none."
            remedy = 'Send the picture itself as data:image/TYPE;base64,..., or {"text": ...} if it is meant as a text.'
            raise Fault(422, f"{message} {remedy}", code="invalid_image", param=param)
        if found is Likeness.WRAPPED:
            message = f"{param} has a picture in a spelling that is not read, or looks like encoded data."
            remedy = 'Send it alone as data:image/TYPE;base64,..., or {"text": ...} if it is meant as a text.'
            raise Fault(422, f"{message} {remedy}", code="invalid_image", param=param)
        modality = "image" if found is Likeness.PICTURE else "text"
    return Item("image", entry, param) if modality == "image" else Item("text", checked_text(entry, param), param)


def _from_object(entry: Mapping[str, Any], modality: Modality | None, param: str) -> Item:
    """`{"text": T}`, `{"image": URI}`, or a part of a chat message."""
    require_known(entry, _PART_FIELDS, param)
    values = [(name, entry[name]) for name in _KINDS if name in entry]
    kind = entry.get("type")
    if len(values) != 1 or (kind is not None and kind not in _KINDS[values[0][0]]):
        raise _not_understood(param)
    name, value = values[0]
    _require_detail(entry, param, of_text=name == "text")
    if name != "text" and isinstance(value, Mapping):
        require_known(value, ("url", "detail"), f"{param}.{name}")
        _require_detail(value, f"{param}.{name}")
        value = value.get("url")
    if not isinstance(value, str):
        raise _not_understood(param)
    own: Modality = "text" if name == "text" else "image"
    if modality is not None and modality != own:
        message = f"{param} is a {'text' if own == 'text' else 'picture'}, and modality says {modality}."
        raise Fault(422, message, code="invalid_value", param=param)
    return Item("text", checked_text(value, param), param) if own == "text" else Item("image", value, param)


def _require_detail(part: Mapping[str, Any], param: str, *, of_text: bool = False) -> None:
    """`Fault` for a `detail` that is no word, or that a text has; a picture's is taken and changes nothing."""
    if of_text and "detail" in part:
        message = f"{param} has detail, which is of pictures, and is a text. Leave it out."
        raise Fault(422, message, code="invalid_value", param=f"{param}.detail")
    _require_string(part, "detail", param)


def _require_string(values: Mapping[str, Any], name: str, param: str) -> None:
    if values.get(name) is not None and not isinstance(values[name], str):
        raise Fault(422, f"{param}.{name} is not a string.", code="invalid_value", param=f"{param}.{name}")


def _from_messages(messages: Any, modality: Modality | None) -> Item:
    message = messages[0] if _is_single(messages) else None
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(message, Mapping):
        require_known(message, ("role", "content", "name"), "messages")
        for name in ("role", "name"):
            _require_string(message, name, "messages")
    if isinstance(content, str):
        return _from_text(content, modality, "messages")
    if content is None or not _is_single(content) or not isinstance(content[0], Mapping):
        text = "messages is not one message with one text or one picture; a row stands for a single one."
        raise Fault(422, text, code="invalid_value", param="messages")
    return _from_object(content[0], modality, "messages")


def _is_single(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 1


def _not_understood(param: str) -> Fault:
    message = f'{param} is neither a text nor a picture: send a string, {{"text": ...}} or {{"image": data URI}}.'
    return Fault(422, message, code="invalid_value", param=param)
