"""Single requests: what the server's words mean, and the rate limiter before them."""

from __future__ import annotations

import email.utils
import threading
import time

import pytest

from distilvl.errors import DistilvlError
from distilvl.teachers.http import HttpSettings
from distilvl.teachers.http.client import Client, RateLimiter, RefusedError, StoppedError, TransientError, _retry_after


def exchange(url: str, stop: threading.Event | None = None, **options: object) -> Client:
    more = "".join(f"&{name}={value}" for name, value in options.items())
    settings = HttpSettings.from_spec(f"openai+{url}/v1?model=demo&dim=128{more}")
    return Client(settings, None, RateLimiter(), stop or threading.Event())


def test_retry_after_in_both_forms():
    assert _retry_after("2.5") == 2.5
    assert _retry_after("-1") == _retry_after(None) == _retry_after("soon") == 0
    assert 100 < _retry_after(email.utils.formatdate(time.time() + 120, usegmt=True)) <= 120


def test_path_and_body(server):
    with exchange(server.url, shorten="yes") as ask:
        rows = ask.encode("text", ["a red box", "\ud83d\ude00 \u0000"])
    path, headers, body = server.requests[0]
    assert (path, headers["Content-Type"]) == ("/v1/embeddings", "application/json")
    assert (body["model"], body["dimensions"], len(body["input"])) == ("demo", 128, 2)
    assert "Authorization" not in headers
    assert sorted(rows) == [0, 1]


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (429, TransientError, "status 429"),
        (503, TransientError, "status 503"),
        (408, TransientError, "status 408"),
        (400, RefusedError, "status 400"),
        (413, RefusedError, "status 413"),
        (401, DistilvlError, "wants a key"),
        (404, DistilvlError, "model's name"),
        (302, DistilvlError, "address"),
    ],
)
def test_what_a_status_means(server, status: int, kind: type[Exception], words: str):
    server.answer = lambda handler, body: handler.send_error(status)
    with exchange(server.url) as ask, pytest.raises(kind, match=words):
        ask.encode("text", ["a"])


def test_a_server_that_is_closed_for_the_day(server):
    def closed(handler, body) -> None:
        handler.send_response(429)
        handler.send_header("Retry-After", "7200")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.answer = closed
    with exchange(server.url) as ask, pytest.raises(DistilvlError, match="asks to wait 7200 s"):
        ask.encode("text", ["a"])


def test_nothing_is_sent_after_a_stop(server):
    stop = threading.Event()
    stop.set()
    with exchange(server.url, stop) as ask, pytest.raises(StoppedError):
        ask.encode("text", ["a"])
    assert not server.requests


def waited(pace: RateLimiter, stop: threading.Event) -> float:
    begin = time.monotonic()
    pace.wait(stop)
    return time.monotonic() - begin


def test_requests_are_spread_over_the_minute():
    pace, stop = RateLimiter(rpm=600), threading.Event()
    begin = time.monotonic()
    for _ in range(4):
        pace.wait(stop)
    assert time.monotonic() - begin >= 0.3


def test_without_a_limit_nothing_waits_until_the_server_asks():
    pace, stop = RateLimiter(), threading.Event()
    assert waited(pace, stop) < 5
    pace.pause(0.2)
    pace.pause(0.01)
    assert waited(pace, stop) >= 0.15


def test_stop_ends_a_pause():
    pace, stop = RateLimiter(), threading.Event()
    pace.pause(600)
    threading.Timer(0.05, stop.set).start()
    assert waited(pace, stop) < 300
