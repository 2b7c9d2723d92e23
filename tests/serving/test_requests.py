"""Methods, parameters and fields: each is understood, or refused by its name."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("lancedb")

from distilvl.models.encoder import Encoder
from distilvl.search import Index


@pytest.fixture
def searching(serve: Any, tmp_path: Path) -> Any:
    """A server with an index of six pictures, three of them in a folder."""
    random = np.random.default_rng(2)
    for k in range(6):
        place = tmp_path / "photos" / ("some" if k % 2 else "others")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (20, 30, 3), np.uint8)).save(place / f"{k}.png")

    def make(encoder: Encoder) -> Index:
        index = Index.create(tmp_path / "index", encoder)
        index.update(tmp_path / "photos")
        return index

    return serve(make, max_wait_ms=1)


def raw(served: Any, request: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Status, headers and body of an answer, as they come over the line."""
    with socket.create_connection(("127.0.0.1", served.port), 10) as line:
        line.sendall(request)
        answer = b""
        while piece := line.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    return first.split()[1], dict(line.lower().split(b": ", 1) for line in lines), body


def test_head_is_get_without_a_body_everywhere(searching: Any) -> None:
    [hit] = searching.client.get("/search", params={"q": "a", "top": 1}).json()["hits"]
    paths = ["/healthz", "/", "/page/search.js", "/page/icon.svg", "/metrics", "/search?q=a", hit["thumbnail"],
             "/v1/models", "/v1/models/tiny", "/openapi.json"]  # fmt: skip
    for path in paths:
        got = searching.client.get(path)
        assert got.status_code == 200, path
        request = f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        status, headers, body = raw(searching, request)
        assert (status, body) == (b"200", b""), path
        assert headers[b"content-type"] == got.headers["Content-Type"].lower().encode(), path
        if path != "/metrics":
            assert int(headers[b"content-length"]) == len(got.content), path
    assert searching.metric("distilvl_requests_total", method="HEAD", route="/healthz", status="200") == 1


@pytest.mark.parametrize(
    ("path", "status"), [("/nothing", 404), ("/search?q=a&tpo=3", 422), ("/v1/embeddings", 405), ("/search", 422)]
)
def test_head_of_what_is_refused_has_no_body_either(searching: Any, path: str, status: int) -> None:
    request = f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    found, headers, body = raw(searching, request)
    assert (found, body) == (str(status).encode(), b"")
    assert headers[b"content-type"] == b"application/json"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/healthz", "GET, HEAD, OPTIONS"),
        ("/search", "GET, HEAD, OPTIONS, POST"),
        ("/v1/embeddings", "OPTIONS, POST"),
        ("/page/search.js", "GET, HEAD, OPTIONS"),
        ("/", "GET, HEAD, OPTIONS"),
    ],
)
def test_options_and_405_tell_the_methods(searching: Any, path: str, allowed: str) -> None:
    answer = searching.client.options(path)
    assert (answer.status_code, answer.headers["Allow"], answer.content) == (204, allowed, b"")
    assert "Access-Control-Allow-Origin" not in answer.headers
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "TRACE"} - set(allowed.split(", ")):
        answer = searching.client.request(method, path)
        assert searching.refusal(answer, 405)["code"] == "method_not_allowed"
        assert answer.headers["Allow"] == allowed
    searching.refusal(searching.client.options("/nothing"), 404)


def test_get_takes_the_filters_of_post(searching: Any) -> None:
    whole = searching.client.get("/search", params={"q": "a"}).json()["hits"]
    for asked in (
        {"folder": "some"},
        {"since": "2000", "until": "2001"},
        {"top": 2},
        {"like": whole[0]["id"]},
        {"like": whole[0]["id"], "weight": 0.9, "copies": True},
    ):
        params = {key: str(value).lower() for key, value in asked.items()}
        got = searching.client.get("/search", params={"q": "a", **params})
        posted = searching.client.post("/search", json={"text": "a", **asked})
        assert got.status_code == posted.status_code == 200, got.text
        assert got.json() == posted.json()
        assert got.json()["hits"] != whole
    assert searching.client.get("/search", params={"like": whole[0]["id"]}).status_code == 200


@pytest.mark.parametrize(
    ("address", "param", "says"),
    [
        ("/search?q=a&tpo=3", "tpo", "Did you mean 'top'?"),
        ("/search?q=a&Folder=x", "Folder", "Did you mean 'folder'?"),
        ("/search?q=a&date=2020", "date", "Known: like, minus, folder"),
        ("/search?q=a&image=x", "image", "JSON body of POST"),
        ("/search?text=a", "text", "JSON body of POST"),
        ("/search?q=a&q=b", "q", "twice"),
        ("/search?q=a&top=1&top=2", "top", "twice"),
        ("/search?q=a&top=1.5", "top", "integer"),
        ("/search?q=a&top=many", "top", "integer"),
        ("/search?q=a&top=", "top", "integer"),
        ("/search?q=a&top=0", "top", "greater"),
        ("/search?q=a&weight=2", "weight", "less"),
        ("/search?q=a&weight=nan", "weight", ""),
        ("/search?q=a&copies=maybe", "copies", "boolean"),
        ("/search?q=a&since=yesterday", "since", "not a date"),
        ("/search?q=a&until=2020-13", "until", "not a date"),
        ("/search?q=a&since=2021&until=2020", "until", "no time"),
        ("/search?q=a&since=2020-01-01T00:00Z", "since", "zone"),
        ("/search?q=a&folder=../x", "folder", "'..'"),
        ("/search?q=a&folder=nosuch", "folder", "no photograph in a folder 'nosuch'"),
        ("/search?q=a&weight=0.5", "weight", "not both"),
        ("/search?weight=0.3&like=" + "0" * 32, "weight", "not both"),
        ("/search?q=a&like=1", "like", "not the id"),
        ("/search?like=" + "0" * 32, None, "no photograph"),
        ("/search?q=caf%E9", "query", "UTF-8"),
        ("/search?q=https://example.org/a.jpg", "q", "looks like a picture"),
        ("/search", None, "Give a text"),
        ("/search?" + "&".join(f"a{k}=1" for k in range(200)), "query", "more than 100"),
        ("/healthz?verbose=1", "verbose", "Known: none"),
        ("/metrics?x", "x", "unknown parameter"),
        ("/v1/models?limit=3", "limit", "unknown parameter"),
        ("/thumbnails/" + "0" * 32 + "?size=9", "size", "unknown parameter"),
        ("/page/search.js?v=2", "v", "unknown parameter"),
        ("/?query=a", "query", "unknown parameter"),
    ],
)  # fmt: skip
def test_addresses_that_are_not_understood(searching: Any, address: str, param: str | None, says: str) -> None:
    error = searching.refusal(searching.client.get(address), 422)
    assert error["param"] == param
    assert says in error["message"]
    assert len(error["message"]) < 400


def test_post_takes_no_parameters(searching: Any) -> None:
    answer = searching.client.post("/search?top=3", json={"text": "a"})
    assert "JSON body" in searching.refusal(answer, 422)["message"]
    searching.refusal(searching.client.post("/v1/embeddings?model=tiny", json={"model": "tiny", "input": "a"}), 422)


def test_the_page_reads_what_its_address_may_hold(searching: Any) -> None:
    assert searching.client.get("/?q=a&folder=b&since=2020&until=2021&copies=true&like=" + "0" * 32).status_code == 200
    searching.refusal(searching.client.get("/nothing?x=1"), 404)


@pytest.mark.parametrize(
    ("path", "body", "param", "says"),
    [
        ("/search", '{"text": "a", "foldr": "x"}', "foldr", "Did you mean 'folder'?"),
        ("/search", '{"text": "a", "limit": 3}', "limit", "Known: like, minus, folder"),
        ("/search", '{"text": "a", "text": "b"}', "text", "twice"),
        ("/search", '{"text": "a", "top": "5"}', "top", "number"),
        ("/search", '{"text": "a", "top": true}', "top", "number"),
        ("/search", '{"text": "a", "top": 2.5}', "top", "integer"),
        ("/search", '{"text": "a", "top": NaN}', "top", ""),
        ("/search", '{"text": "a", "top": Infinity}', "top", ""),
        ("/search", '{"text": "a", "top": 1e30}', "top", ""),
        ("/search", '{"text": "a", "top": null}', "top", ""),
        ("/search", '{"text": "a", "weight": NaN}', "weight", ""),
        ("/search", '{"text": "a", "weight": "0.5"}', "weight", "number"),
        ("/search", '{"text": "a", "copies": 1}', "copies", "boolean"),
        ("/search", '{"text": "a", "copies": "true"}', "copies", "boolean"),
        ("/search", '{"text": ["a"]}', "text", "string"),
        ("/search", '{"text": "a", "folder": 3}', "folder", "string"),
        ("/search", '{"text": "a", "folder": "nosuch"}', "folder", "It has some in"),
        ("/search", '{"text": "a", "weight": 0.5}', "weight", "not both"),
        ("/search", '{"text": "a", "folder": "\\ud800"}', "folder", ""),
        ("/search", '{"text": "a", "since": 2020}', "since", "string"),
        ("/search", '{"like": 3}', "like", "string"),
        ("/search", '{"like": "\\ud800"}', "like", "not the id"),
        ("/search", '{"text": "a", "\\ud800": 1}', "?", "unknown field"),
        ("/search", '{"text": "a.jpg"}', "text", "looks like a picture"),
        ("/v1/embeddings", '{"model": "tiny", "input": "a", "dimension": 16}', "dimension", "'dimensions'"),
        ("/v1/embeddings", '{"model": "tiny", "input": "a", "x": NaN}', "x", "Known: model, input"),
        ("/v1/embeddings", '{"model": "tiny", "input": "a", "dimensions": "16"}', "dimensions", "number"),
        ("/v1/embeddings", '{"model": "tiny", "input": "a", "dimensions": true}', "dimensions", "number"),
        ("/v1/embeddings", '{"model": "tiny", "input": "a", "dimensions": NaN}', "dimensions", ""),
        ("/v1/embeddings", '{"model": "tiny", "input": "a", "user": 7}', "user", "string"),
        ("/v1/embeddings", '{"model": "tiny", "input": "a", "encoding_format": "hex"}', "encoding_format", "float"),
        ("/v1/embeddings", '{"model": "tiny", "input": "a", "normalized": false}', "normalized", ""),
        ("/v1/embeddings", '{"model": "tiny", "input": [true]}', "input[0]", "neither"),
        ("/v1/embeddings", '{"model": "tiny", "input": [NaN]}', "input[0]", "neither"),
        ("/v1/embeddings", '{"model": "tiny", "input": {"text": "a", "txet": 1}}', "input.txet", "'text'"),
        ("/v1/embeddings", '{"model": "tiny", "input": [{"image_url": {"link": "x"}}]}', "input[0].image_url.link", ""),
        ("/v1/embeddings", '{"model": "tiny", "input": [{"text": "a", "text": "b"}]}', "text", "twice"),
        ("/v1/embeddings", '{"model": "tiny", "messages": [{"rol": "me", "content": "a"}]}', "messages.rol", "'role'"),
    ],
)  # fmt: skip
def test_bodies_that_are_not_understood(searching: Any, path: str, body: str, param: str, says: str) -> None:
    answer = searching.client.post(path, content=body, headers={"Content-Type": "application/json"})
    error = searching.refusal(answer, 422)
    assert error["param"] == param
    assert says in error["message"]


def test_what_openais_clients_send_is_known(served: Any) -> None:
    row = served.rows("a")
    sent = {"encoding_format": "float", "dimensions": 16, "user": "me", "normalized": True}
    np.testing.assert_array_equal(served.rows("a", **sent), row)
    np.testing.assert_array_equal(served.rows("a", dimensions=16.0, user=None, encoding_format=None), row)


def test_very_many_unknown_fields_are_told_in_one_line(served: Any) -> None:
    body = {"model": "tiny", "input": "a"} | {f"field {k} " + "x" * 99: k for k in range(20_000)}
    error = served.refusal(served.client.post("/v1/embeddings", json=body), 422)
    assert "and 19,997 more" in error["message"]
    assert len(error["message"]) < 400


def test_what_is_not_http_is_refused_in_the_same_form(served: Any) -> None:
    status, headers, body = raw(served, b"NOT HTTP\r\n\r\n")
    assert (status, headers[b"content-type"]) == (b"400", b"application/json")
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


_URIS = [
    "data:image/png;base64,AAAA",
    "data:,",
    "data:image/jpeg;base64,/9j/4AAQ",
    "a.jpg",
    "https://a.example/b.png",
    "\ud800",
]
_WORDS = [
    "model", "input", "messages", "modality", "dimensions", "encoding_format", "normalized", "user", "text", "image",
    "image_url", "url", "like", "weight", "top", "folder", "since", "until", "copies", "role", "content", "type",
]  # fmt: skip
_LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(), st.text(max_size=30), st.sampled_from(_URIS),
    st.sampled_from(["tiny", "float", "base64", "text", "image", "2021", "user", "0" * 32]),
)  # fmt: skip
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_WORDS), inner, max_size=4),
    max_leaves=12,
)
_BODIES = st.dictionaries(st.sampled_from(_WORDS) | st.text(max_size=8), _VALUES, max_size=5)


def test_any_json_is_answered_or_refused_by_name(searching: Any) -> None:
    @settings(max_examples=300, deadline=None)
    @given(st.sampled_from(["/v1/embeddings", "/search"]), _BODIES, st.booleans())
    def ask(path: str, body: dict[str, Any], named: bool) -> None:
        body = {"model": "tiny", **body} if named and path == "/v1/embeddings" else body
        answer = searching.client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
        told = answer.json()
        if answer.status_code == 200:
            assert set(told) >= {"data"} or set(told) >= {"hits"}
        else:
            assert answer.status_code in (400, 404, 413, 422)
            assert 0 < len(told["error"]["message"]) <= 600

    ask()
    assert searching.rows("still there").shape == (1, 16)
