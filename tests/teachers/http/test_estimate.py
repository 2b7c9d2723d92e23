from __future__ import annotations

from distilvl.teachers.http import HttpSettings
from distilvl.teachers.http.settings import estimate_line

BASE = "infinity+http://localhost:7997?model=m&dim=3"


def test_requests_time_and_price_by_hand():
    # 100 images in batches of 32 are 4 requests, 1,000 texts in batches of 50 are 20; 40,000 characters, 10,000 tokens.
    settings = HttpSettings.from_spec(f"{BASE}&batch=50&rpm=12&price=0.5&image_price=20")
    line = estimate_line(settings, 100, ["x" * 40] * 1000)
    assert "24 requests for 100 images and 1,000 captions (about 10,000 tokens)" in line
    assert "at least 120 s" not in line
    assert "at least 2 min at 12 requests a minute" in line
    assert line.endswith("price about 0.0070")


def test_nothing_is_made_up():
    line = estimate_line(HttpSettings.from_spec(f"{BASE}&concurrency=4"), 320, ["abcd"])
    assert "about 3 s if a request takes one second, 4 at a time" in line
    assert line.endswith("price not known without price= and image_price= (for a million tokens, and images)")
    line = estimate_line(HttpSettings.from_spec(f"{BASE}&price=1"), 0, ["abcd"] * 250_000)
    assert line.endswith("price about 0.2500")


def test_long_runs_are_told_in_hours():
    line = estimate_line(HttpSettings.from_spec(f"{BASE}&rpm=1"), 32 * 600, [])
    assert "at least 10.0 h" in line
