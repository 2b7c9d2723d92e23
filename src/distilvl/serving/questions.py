"""What clients send, in the dialects of embeddings APIs that `distilvl.teachers.http` speaks itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field

from distilvl.serving.naming import Fields, known_names

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
