"""What is sent in each dialect, and what of a reply is usable."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.teachers.http.dialects import DIALECTS, BadReplyError, usable_embeddings

URI = "data:image/png;base64,AAAA"

# Written by hand from the providers' references; two items where a request may hold two.
BODIES = {
    ("openai", "text"): {"model": "m", "encoding_format": "float", "input": ["a", "b"]},
    ("openai", "image"): {"model": "m", "encoding_format": "float", "input": [URI, URI]},
    ("vllm", "text"): {"model": "m", "encoding_format": "float", "input": ["a", "b"]},
    ("vllm", "image"): {
        "model": "m",
        "encoding_format": "float",
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": URI}}]}],
    },
    ("infinity", "text"): {"model": "m", "encoding_format": "float", "modality": "text", "input": ["a", "b"]},
    ("infinity", "image"): {"model": "m", "encoding_format": "float", "modality": "image", "input": [URI, URI]},
    ("jina", "text"): {"model": "m", "embedding_type": "float", "input": [{"text": "a"}, {"text": "b"}]},
    ("jina", "image"): {"model": "m", "embedding_type": "float", "input": [{"image": URI}, {"image": URI}]},
    ("voyage", "text"): {
        "model": "m",
        "inputs": [{"content": [{"type": "text", "text": "a"}]}, {"content": [{"type": "text", "text": "b"}]}],
    },
    ("voyage", "image"): {"model": "m", "inputs": [{"content": [{"type": "image_base64", "image_base64": URI}]}] * 2},
    ("cohere", "text"): {
        "model": "m",
        "input_type": "search_document",
        "embedding_types": ["float"],
        "texts": ["a", "b"],
    },
    ("cohere", "image"): {"model": "m", "input_type": "image", "embedding_types": ["float"], "images": [URI]},
}


@pytest.mark.parametrize(("dialect", "modality"), BODIES)
def test_body(dialect: str, modality: str):
    question = DIALECTS[dialect].request(modality)  # type: ignore[arg-type]
    items = (["a", "b"] if modality == "text" else [URI, URI])[: question.most]
    assert question.body("m", items) == BODIES[dialect, modality]


def test_the_table_is_complete():
    assert {name for name, _ in BODIES} == set(DIALECTS)
    assert {name: dialect.path for name, dialect in DIALECTS.items()} == {
        "openai": "/embeddings",
        "vllm": "/embeddings",
        "infinity": "/embeddings",
        "jina": "/embeddings",
        "voyage": "/multimodalembeddings",
        "cohere": "/embed",
    }


def test_a_text_that_looks_like_a_placeholder_is_sent_as_it_is():
    body = DIALECTS["voyage"].text.body("m", ["{item}", "{key}"])
    assert [entry["content"][0]["text"] for entry in body["inputs"]] == ["{item}", "{key}"]


OPENAI, COHERE = DIALECTS["openai"], DIALECTS["cohere"]


def reply(*answers: tuple[object, object]) -> dict:
    return {"data": [{"index": index, "embedding": row} for index, row in answers]}


@given(st.permutations(range(6)), st.integers(1, 6))
def test_rows_are_matched_by_index_and_some_may_lack(order, kept):
    rows = usable_embeddings(reply(*((k, [k, 1.5]) for k in order[:kept])), 6, 2, OPENAI)
    assert {k: row.tolist() for k, row in rows.items()} == {k: [k, 1.5] for k in order[:kept]}
    assert all(row.dtype == np.float32 for row in rows.values())


def test_one_bad_row_does_not_spoil_the_others():
    for bad in ([1.0], [float("nan"), 1], [0, 0], "AAAA", None, [True, 1], [1e300, 1], [10**400, 1]):
        assert list(usable_embeddings(reply((0, [1, 2]), (1, bad)), 2, 2, OPENAI)) == [0]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (reply((0, [1.0, 2, 3])), "dimension 3, not 2"),
        (json.loads('{"data": [{"index": 0, "embedding": [NaN, 1]}]}'), "not finite"),
        (reply((0, [0.0, 0])), "all zero"),
        (reply((0, "AAAA")), "not a list of numbers"),
        (reply((7, [1, 2])), "other indices than 0 to 1"),
        (reply((0, [1, 2]), (0, [3, 4])), "same index"),
        (reply((True, [1, 2])), "other indices"),
        (reply((0, [1, 2]), (None, [3, 4])), "other indices"),
        (reply(), "holds 0 embeddings for 2 items"),
        ({"data": [{"embedding": [1, 2]}]}, "holds 1 embeddings for 2 items"),
        ({"data": [[1, 2]]}, "lack 'embedding'"),
        ({"error": "x"}, "no list of embeddings at 'data'"),
        ([1], "no list of embeddings"),
    ],
)
def test_useless_replies_say_why(value, words: str):
    with pytest.raises(BadReplyError, match=words):
        usable_embeddings(value, 2, 2, OPENAI)


def test_answers_without_index_count_by_order_when_all_are_there():
    rows = usable_embeddings({"embeddings": {"float": [[1, 2], [3, 4]]}}, 2, 2, COHERE)
    assert [rows[0].tolist(), rows[1].tolist()] == [[1, 2], [3, 4]]
    with pytest.raises(BadReplyError, match="holds 1 embeddings for 2 items"):
        usable_embeddings({"embeddings": {"float": [[1, 2]]}}, 2, 2, COHERE)
    plain = {"data": [{"embedding": [1, 2]}, {"embedding": [3, 4]}]}
    assert usable_embeddings(plain, 2, 2, OPENAI)[1].tolist() == [3, 4]
