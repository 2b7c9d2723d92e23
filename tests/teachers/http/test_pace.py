from __future__ import annotations

import threading
import time

from distilvl.teachers.http.client import RateLimiter


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
