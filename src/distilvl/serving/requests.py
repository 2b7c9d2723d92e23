"""What clients may send: parameters, bodies and items (a text or a picture); each is understood, or refused by name."""

import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from distilvl.serving.errors import RequestError, unknown, wrong_field
from distilvl.serving.picture_strings import Likeness, likeness

Modality = Literal["image", "text"]
SEARCH, EMBEDDINGS = "/search", "/v1/embeddings"
MOST_HITS = 200
# Far above what any text tower reads; the tokenizer would still go through all of it.
LONGEST_TEXT = 100_000
_MOST_PARAMETERS = 100
_MOST_MARKS, _DEEPEST = 100_000, 32
_STRING, _BETWEEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL), re.compile(rb"[^\[\]{}:,]+")
_FORMAT = AliasChoices("encoding_format", "embedding_type")
_NORMALIZED = AliasChoices("normalized", "normalize")
_WEIGHT = "of text and picture together, the text's share; 0.5 if not given"
_COPIES = "each copy of a picture by itself"


class _Fields(BaseModel):
    """An object of a request; a field that it does not have is a `RequestError` that names it."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _require_known(cls, values: Any) -> Any:
        # Before pydantic, which would list every one of them, whatever their number.
        if isinstance(values, Mapping):
            require_known(values, known_names(cls))
        return values


@functools.cache
def known_names(kind: type[BaseModel]) -> tuple[str, ...]:
    """What the fields of `kind` are called in a request."""
    aliases = {name: field.validation_alias for name, field in kind.model_fields.items()}
    names = (alias.choices if isinstance(alias, AliasChoices) else [name] for name, alias in aliases.items())
    return tuple(str(name) for alike in names for name in alike)


def require_known(values: Mapping[str, Any], known: Collection[str], param: str = "") -> None:
    """`RequestError` if an object of a request has a field that is not among `known`."""
    if names := [name for name in values if name not in known]:
        raise unknown("field", names, known, param)


def _number(value: Any) -> Any:
    """JSON has numbers; Python takes true for one, and pydantic the text of one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("Input should be a number, without quotes")
    return value


Whole = Annotated[int, BeforeValidator(_number)]
Fraction = Annotated[float, BeforeValidator(_number)]


class EmbeddingRequest(_Fields):
    """Body of `POST /v1/embeddings`."""

    model: str
    input: Any = Field(None, description="a text or picture (data URI), or a list of them")
    messages: Any = Field(None, description="instead of input: one chat message with one text or picture")
    modality: Modality | None = Field(None, description="of all of input; else each tells by itself")
    encoding_format: Literal["float", "base64"] | None = Field(None, validation_alias=_FORMAT)
    dimensions: Whole | None = None
    normalized: Literal[True] | None = Field(None, validation_alias=_NORMALIZED, description="embeddings always are")
    user: str | None = Field(None, description="who sends it; not used")


class _Search(_Fields):
    """What GET and POST take alike."""

    like: str | None = Field(None, description="id of a picture in the index")
    minus: str | None = Field(None, description="what the pictures should not show")
    folder: str | None = Field(None, description="only below this folder")
    since: str | None = Field(None, description="YYYY, YYYY-MM, YYYY-MM-DD or a time")
    until: str | None = Field(None, description="YYYY, YYYY-MM, YYYY-MM-DD or a time")


class SearchRequest(_Search):
    """Body of `POST /search`: at least one of text, image and like; together they are one combined query."""

    text: str | None = None
    image: str | None = Field(None, description="a picture as a data URI")
    top: Whole = Field(10, ge=1, le=MOST_HITS)
    weight: Fraction | None = Field(None, ge=0, le=1, description=_WEIGHT)
    copies: Annotated[bool, Field(strict=True)] = Field(False, description=_COPIES)


class SearchParameters(_Search):
    """Parameters of `GET /search`: the same but for the picture, which needs a body."""

    q: str | None = Field(None, description="a text")
    top: int = Field(10, ge=1, le=MOST_HITS)
    weight: float | None = Field(None, ge=0, le=1, description=_WEIGHT)
    copies: bool = Field(False, description=_COPIES)

    def request(self) -> SearchRequest:
        """The same as a body."""
        return SearchRequest(text=self.q, **self.model_dump(exclude={"q"}))


# Fields that POST to an address takes, for the advice to send them there.
_BODIES = {SEARCH: known_names(SearchRequest), EMBEDDINGS: known_names(EmbeddingRequest)}
# The page reads its own address, to show the query again.
_PARAMETERS = {SEARCH: known_names(SearchParameters), "/": ("like", "minus", "folder", "since", "until", "q", "copies")}


class CheckedRoute(APIRoute):
    """A route that refuses unknown parameters, and parameters or fields given twice; most parsers take the last."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As FastAPI calls for it."""
        handle = super().get_route_handler()
        takes_body = "POST" in (self.methods or ())
        known = () if takes_body else _PARAMETERS.get(self.path, ())
        in_body = _BODIES.get(self.path, ())

        async def checked(request: Request) -> Response:
            check_parameters(request.scope["query_string"], known, in_body)
            return await handle(_ExactRequest(request.scope, request.receive) if takes_body else request)

        return checked


def check_parameters(query: bytes, known: Collection[str] = (), in_body: Collection[str] = ()) -> None:
    """`RequestError` for parameters that are not `known`, given twice, or not to be read."""
    if not query:
        return
    try:
        text = query.decode("ascii")
        fields = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS)
    except ValueError as error:
        wrong = f"has more than {_MOST_PARAMETERS} parameters"
        wrong = "is not UTF-8, percent-encoded" if isinstance(error, UnicodeError) else wrong
        raise RequestError(422, f"The query {wrong}.", code="invalid_query", param="query") from error
    counts = Counter(name for name, _ in fields)
    if strange := [name for name in counts if name not in known]:
        advice = "Send it in the JSON body of POST." if strange[0] in in_body else ""
        raise unknown("parameter", strange, known, advice=advice)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise wrong_field(twice[0], "is given twice. Give it once.", "repeated_parameter")


class _ExactRequest(Request):
    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = json.loads(await self.body(), object_pairs_hook=_once)
        return self._json


def check_shape(body: bytes) -> None:
    """`RequestError` for JSON of more values, or nested more deeply, than any request needs; before it is parsed.

    A million fields would hold the server for seconds and take gigabytes; long texts and pictures are one value each.
    """
    quotes = body.count(b'"') - body.count(b'\\"')  # counted in no time, where taking the strings out takes some
    marks = b"" if quotes > 2 * _MOST_MARKS else _BETWEEN.sub(b"", _STRING.sub(b"", body))
    if quotes > 2 * _MOST_MARKS or len(marks) > _MOST_MARKS:
        message = f"The body has more than {_MOST_MARKS:,} values, or brackets, colons and commas between them."
        raise RequestError(422, message, code="too_complex")
    depth = 0
    for mark in marks:
        depth += 1 if mark in b"[{" else -1 if mark in b"]}" else 0
        if depth > _DEEPEST:
            raise RequestError(422, f"The body is nested more than {_DEEPEST} deep.", code="too_complex")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0][:60]
        readable = twice.encode("utf-8", "replace").decode("utf-8")
        raise RequestError(422, f"{twice!r} is given twice. Give it once.", code="repeated_field", param=readable)
    return found


_IMAGE_TYPES = ("image", "image_url", "input_image")
# What `type` may say beside each field.
_TYPES = {"text": ("text", "input_text"), "image": _IMAGE_TYPES, "image_url": _IMAGE_TYPES}


_WRONG = {
    Likeness.PLACE: "is the address or the path of a picture, and the server fetches and opens none",
    Likeness.WRAPPED: "has a picture in a spelling that is not read, or looks like encoded data",
}


@dataclass(frozen=True)
class Item:
    """A text, or a picture's data URI or base64, that is to be encoded; `param` is where it stood in the request."""

    modality: Modality
    value: str
    param: str


def read_items(request: EmbeddingRequest, most: int) -> list[Item]:
    """The items of a request, in order; 1 to `most`. `RequestError` (422) names the entry that is not understood."""
    if (request.input is None) == (request.messages is None):
        raise RequestError(422, "Give either input or messages.", code="invalid_value", param="input")
    if request.messages is not None:
        return [_from_messages(request.messages, request.modality)]
    if not isinstance(request.input, list):
        return [_item(request.input, request.modality, "input")]
    if not 1 <= len(request.input) <= most:
        raise wrong_field("input", f"has {len(request.input)} entries; give 1 to {most} in one request.", "batch_size")
    return [_item(entry, request.modality, f"input[{k}]") for k, entry in enumerate(request.input)]


def checked_text(text: str, param: str) -> str:
    """`text`, if a tokenizer can take it; `RequestError` (422) if it is too long or no Unicode."""
    if len(text) > LONGEST_TEXT:
        wrong = f"has {len(text):,} characters; at most {LONGEST_TEXT:,} are read."
        raise wrong_field(param, wrong, "text_too_long")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise wrong_field(param, "holds half of a surrogate pair, which is no character.") from error
    return text


def _item(entry: Any, modality: Modality | None, param: str) -> Item:
    if isinstance(entry, str):
        return _from_string(entry, modality, param)
    if isinstance(entry, Mapping):
        return _from_object(entry, modality, param)
    if isinstance(entry, list) or (isinstance(entry, int) and not isinstance(entry, bool)):
        wrong = "holds token numbers; which tokens they are depends on the tokenizer, so send text."
        raise wrong_field(param, wrong, "tokens_not_supported")
    raise _not_understood(param)


def _from_string(entry: str, modality: Modality | None, param: str) -> Item:
    """A string that may be either; what looks like a picture must not be encoded as a text."""
    if modality is None:
        found = likeness(entry)
        if wrong := _WRONG.get(found):
            remedy = 'Send the picture itself as data:image/TYPE;base64,..., or {"text": ...} if it is meant as a text.'
            raise wrong_field(param, f"{wrong}. {remedy}", "invalid_image")
        modality = "image" if found is Likeness.PICTURE else "text"
    return Item(modality, entry if modality == "image" else checked_text(entry, param), param)


def _from_object(entry: Mapping[str, Any], modality: Modality | None, param: str) -> Item:
    """`{"text": T}`, `{"image": URI}`, or a part of a chat message."""
    require_known(entry, (*_TYPES, "type", "detail"), param)
    names = [name for name in _TYPES if name in entry]
    if len(names) != 1 or entry.get("type") not in (None, *_TYPES[names[0]]):
        raise _not_understood(param)
    value = entry[names[0]]
    own: Modality = "text" if names[0] == "text" else "image"
    if own == "text" and "detail" in entry:
        message = f"{param} has detail, which is of pictures, and is a text. Leave it out."
        raise RequestError(422, message, code="invalid_value", param=f"{param}.detail")
    _require_string(entry, "detail", param)
    if own == "image" and isinstance(value, Mapping):
        require_known(value, ("url", "detail"), f"{param}.{names[0]}")
        _require_string(value, "detail", f"{param}.{names[0]}")
        value = value.get("url")
    if not isinstance(value, str):
        raise _not_understood(param)
    if modality not in (None, own):
        raise wrong_field(param, f"is a {'text' if own == 'text' else 'picture'}, and modality says {modality}.")
    return Item(own, value if own == "image" else checked_text(value, param), param)


def _require_string(values: Mapping[str, Any], name: str, param: str) -> None:
    if not isinstance(values.get(name), str | None):
        raise wrong_field(f"{param}.{name}", "is not a string.")


def _from_messages(messages: Any, modality: Modality | None) -> Item:
    content: Any = None
    match messages:
        case [dict(message)]:
            require_known(message, ("role", "content", "name"), "messages")
            for name in ("role", "name"):
                _require_string(message, name, "messages")
            content = message.get("content")
    match content:
        case str():
            return _from_string(content, modality, "messages")
        case [dict(part)]:
            return _from_object(part, modality, "messages")
    wrong = "is not one message with one text or one picture; an embedding is of a single one."
    raise wrong_field("messages", wrong)


def _not_understood(param: str) -> RequestError:
    return wrong_field(param, 'is neither a text nor a picture: send a string, {"text": ...} or {"image": data URI}.')
