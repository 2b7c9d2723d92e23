"""Who may ask a server, and which settings it takes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from distilvl.errors import DistilvlError
from distilvl.serving.errors import RequestError
from distilvl.serving.middleware import ConcurrencyLimit
from distilvl.serving.run import serve as run_server
from distilvl.serving.settings import ServeSettings, read_key


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer right-ke"},
        {"Authorization": "Basic right-key"},
        {"Authorization": "right-key"},
        {"Authorization": "Bearer rïght-këy".encode("latin-1")},
    ],
    ids=repr,
)
def test_a_wrong_key(serve: Any, headers: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    served = serve(api_key="right-key")
    for method, path in (
        ("POST", "/v1/embeddings"),
        ("GET", "/v1/models"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
    ):
        answer = served.client.request(method, path, headers=headers)
        assert answer.status_code == 401, path
        assert answer.json()["error"]["type"] == "authentication_error"
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert served.client.get("/healthz").status_code == 200
    good = served.client.post(
        "/v1/embeddings", json={"model": "tiny", "input": "a"}, headers={"Authorization": "Bearer right-key"}
    )
    assert good.status_code == 200
    assert "right-ke" not in caplog.text


def test_the_openai_client_says_that_the_key_is_wrong(serve: Any) -> None:
    openai = pytest.importorskip("openai")
    served = serve(api_key="right-key")
    with (
        openai.OpenAI(base_url=f"{served.url}/v1", api_key="wrong") as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.embeddings.create(model="tiny", input="a")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil@127.0.0.1", "evil.example:8000", "localhost.evil.example", "", "[", "10.0.0.1"],
)
def test_a_name_that_leads_here_by_a_trick(serve: Any, host: str) -> None:
    served = serve(hosts=frozenset({"localhost", "127.0.0.1", "::1"}))
    answer = served.client.get("/v1/models", headers={"Host": host})
    assert answer.status_code == 403
    refusal = served.refusal(answer, 403)
    assert refusal["code"] == "wrong_host"
    assert refusal["message"].endswith("Give it a key to call it by another name.")
    for good in ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000"):
        assert served.client.get("/v1/models", headers={"Host": good}).status_code == 200


def test_no_other_page_may_read_the_answers(served: Any) -> None:
    origin = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for answer in (
        served.client.get("/v1/models", headers=origin),
        served.client.options("/v1/embeddings", headers=origin),
        served.client.get("/nothing"),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_a_public_address_needs_a_key(host: str) -> None:
    with pytest.raises(DistilvlError, match="--api-key-env"):
        run_server("demo", None, ServeSettings(), host=host)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_batch": 0},
        {"max_wait_ms": -1.0},
        {"read_timeout": float("inf")},
        {"max_items": 9, "max_queue": 8},
        {"api_key": ""},
        {"api_key": "two words"},
        {"api_key": "schlüssel"},
    ],
    ids=str,
)
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(DistilvlError):
        ServeSettings(**settings)


def test_the_key_does_not_show_in_what_is_printed() -> None:
    assert "right-key" not in repr(ServeSettings(api_key="right-key"))


def test_the_key_comes_from_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", " one ")
    (tmp_path / "key").write_text("two\n", encoding="utf-8")
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    assert read_key("MY_KEY", None) == "one"
    assert read_key(None, tmp_path / "key") == "two"
    assert read_key(None, None) is None
    for variable, file in (("MY_KEY", tmp_path / "key"), ("NOT_SET_AT_ALL", None), (None, tmp_path / "empty")):
        with pytest.raises(DistilvlError, match="key"):
            read_key(variable, file)


def test_one_client_leaves_room_for_others() -> None:
    limit = ConcurrencyLimit("uploads", 100)
    with limit.hold("a") as first, limit.hold("a") as second, limit.hold("b") as other:
        first(70)
        with pytest.raises(RequestError, match="too many uploads"):
            second(10)
        second(5)
        other(20)
        with pytest.raises(RequestError, match="too many uploads"):
            other(10)
    with limit.hold("a") as alone:
        alone(100)
    with limit.hold("a") as again:
        again(100)
