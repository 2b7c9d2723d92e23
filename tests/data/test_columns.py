from __future__ import annotations

from typing import Any

import pytest

from distilvl.data.columns import Choice, Columns, ColumnType, captions_in, find_columns
from distilvl.errors import DistilvlError

Types = dict[str, ColumnType]


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (
            {"image": "bytes", "caption": "text", "sentids": "text", "split": "text", "img_id": "text"},
            Columns("image", ("caption",), "split", "img_id"),
        ),
        (
            {"photo": "bytes", "sentences_raw": "text", "filename": "text", "imgid": "number"},
            Columns("photo", ("sentences_raw",), None, "imgid"),
        ),
        (
            {"jpg": "bytes", "caption_0": "text", "caption_1": "text", "split": "number"},
            Columns("jpg", ("caption_0", "caption_1"), None, None),
        ),
        ({"image": "bytes", "caption": "text", "captions": "text"}, Columns("image", ("captions",), None, None)),
        ({"file_name": "text", "text": "text"}, Columns("file_name", ("text",), None, None)),
        (
            {"Image": "text", "TEXT": "text", "Split": "text", "IMG_ID": "number"},
            Columns("Image", ("TEXT",), "Split", "IMG_ID"),
        ),
    ],
)
def test_usual_tables(types: Types, expected: Columns) -> None:
    assert find_columns(types, "t", paths=True) == expected


@pytest.mark.parametrize(
    ("types", "words"),
    [
        ({"a": "bytes", "b": "bytes", "caption": "text"}, "several could be the image"),
        ({"image": "number", "caption": "text"}, r"columns image \(number\), caption \(text\): none .* holds images"),
        ({"image": "bytes", "text": "text", "sentence": "text"}, r"several could be the captions.*\?caption="),
        ({"image": "bytes", "text": "text", "caption_0": "text"}, "several could be the captions"),
        ({"image": "bytes", "words": "text"}, "none of them is known to hold captions"),
        ({"file_name": "text", "caption": "text"}, "none of them holds images"),
    ],
)
def test_unclear_tables(types: Types, words: str) -> None:
    with pytest.raises(DistilvlError, match=words):
        find_columns(types, "t", paths=False)


def test_the_users_choice() -> None:
    types: Types = {"a": "bytes", "b": "bytes", "x": "text", "y": "text"}
    assert find_columns(types, "t", Choice("b", ("y", "x")), paths=False) == Columns("b", ("y", "x"), None, None)
    with pytest.raises(DistilvlError, match="not 'z'"):
        find_columns(types, "t", Choice("z", ("x",)), paths=False)
    with pytest.raises(DistilvlError, match="'x' is no image column"):
        find_columns(types, "t", Choice("x", ("x",)), paths=False)
    with pytest.raises(DistilvlError, match="'a' is no caption column"):
        find_columns(types, "t", Choice("a", ("a",)), paths=False)


@pytest.mark.parametrize(
    ("value", "captions"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ({"raw": "a", "sentid": 3}, ["a"]), ([{"raw": "a"}], ["a"]), ([], [])],
)
def test_captions_in_a_cell(value: Any, captions: list[str]) -> None:
    assert captions_in(value) == captions
