from __future__ import annotations

import pytest

from distilvl.teachers.http.dialects import DIALECTS

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
    assert {name: dialect.request("image").path for name, dialect in DIALECTS.items()} == {
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
