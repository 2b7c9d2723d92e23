"""Unknown names: told with the nearest known one, in one short line."""

from __future__ import annotations

import pytest

from distilvl.serving.errors import RequestError, unknown
from distilvl.serving.requests import EmbeddingRequest, SearchParameters, SearchRequest, known_names, require_known


@pytest.mark.parametrize(
    ("name", "near"), [("foldr", "folder"), ("FOLDER", "folder"), ("untill", "until"), ("tops", "top")]
)
def test_the_nearest_known_name_is_told(name: str, near: str) -> None:
    error = unknown("field", [name], ["top", "folder", "until"])
    assert (error.status_code, error.param, error.code) == (422, name, "unknown_field")
    assert error.detail == f"unknown field {name!r}. Did you mean {near!r}?"


def test_without_a_near_one_all_are_told() -> None:
    assert unknown("parameter", ["xyz"], ["top", "q"]).detail == "unknown parameter 'xyz'. Known: top, q."
    assert unknown("parameter", ["xyz"], []).detail == "unknown parameter 'xyz'. Known: none."
    many = unknown("field", list("vwxyz"), ["top"], "input[3]")
    assert many.detail == "unknown fields 'v', 'w', 'x' and 2 more in input[3]. Known: top."
    assert many.param == "input[3].v"


def test_a_name_that_cannot_be_written_down_can_still_be_told() -> None:
    error = unknown("field", ["\ud800" + "x" * 1000], ["top"])
    assert error.response().status_code == 422
    assert len(error.detail) < 150


def test_names_with_other_spellings_are_known() -> None:
    assert {"encoding_format", "embedding_type", "normalize", "user"} <= set(known_names(EmbeddingRequest))
    assert set(known_names(SearchRequest)) - set(known_names(SearchParameters)) == {"text", "image"}
    require_known({"a": 1}, ["a", "b"])
    with pytest.raises(RequestError, match="unknown field 'c'"):
        require_known({"a": 1, "c": 2}, ["a", "b"])
