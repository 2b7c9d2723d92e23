from __future__ import annotations

import pytest

from distilvl.errors import DistilvlError
from distilvl.teachers.http import HttpSettings

BASE = "openai+https://api.example.com/v1"


def test_all_options():
    settings = HttpSettings.from_spec(
        "voyage+http://localhost:8000/v1/?model=org/name-1&dim=256&shorten=yes&revision=3&batch=7&concurrency=2"
        "&rpm=90&timeout=5&retries=0&backoff=0.5&price=0.12&image_price=3&key_env=KEY&image_format=jpeg&max_side=336"
    )
    assert (settings.dialect.name, settings.url) == ("voyage", "http://localhost:8000/v1")
    assert (settings.model, settings.dim, settings.shorten, settings.revision) == ("org/name-1", 256, True, "3")
    assert (settings.batch, settings.concurrency, settings.rpm, settings.timeout) == (7, 2, 90.0, 5.0)
    assert (settings.retries, settings.backoff, settings.price, settings.image_price) == (0, 0.5, 0.12, 3.0)
    assert (
        settings.preprocessing == "images as JPEG, at most 336 pixels a side, by the voyage API; rows shortened to 256"
    )


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (f"{BASE}?dim=3", r"lacks model="),
        (f"{BASE}?model=m", r"lacks dim="),
        (f"{BASE}?model=m&dim=0", r"'dim' is '0', not a positive whole number"),
        (f"{BASE}?model=m&dim=3&rpm=inf", r"'rpm' is 'inf', not a positive number"),
        (f"{BASE}?model=m&dim=3&shorten=maybe", r"'shorten' is 'maybe', not yes or no"),
        (f"{BASE}?model=m&dim=3&image_format=webp", r"not png or jpeg"),
        (f"{BASE}?model=m&dim=3&modle=x", r"has no option 'modle'. Did you mean 'model'"),
        (f"{BASE}?model=&dim=3", r"'model' is ''"),
        ("gopher+https://api.example.com/v1?model=m&dim=3", r"not an address that is understood.*openai, vllm"),
        ("openai+ftp://x?model=m&dim=3", r"not an address"),
    ],
)
def test_bad_specs_are_named(spec: str, words: str):
    with pytest.raises(DistilvlError, match=words):
        HttpSettings.from_spec(spec)


@pytest.mark.parametrize(
    "spec",
    [
        f"{BASE}?model=m&dim=3&api_key=sesame",
        f"{BASE}?model=m&dim=3&key=sesame",
        "openai+https://user:sesame@api.example.com/v1?model=m&dim=3",
        "nosuch+https://user:sesame@api.example.com/v1?model=m&dim=3",
    ],
)
def test_keys_in_the_spec_are_refused_and_not_repeated(spec: str):
    with pytest.raises(DistilvlError) as caught:
        HttpSettings.from_spec(spec)
    assert "sesame" not in str(caught.value)


def test_key_comes_from_the_dialects_variable(monkeypatch):
    settings = HttpSettings.from_spec(f"{BASE}?model=m&dim=3")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert settings.key() is None
    monkeypatch.setenv("OPENAI_API_KEY", " sk-1 ")
    assert settings.key() == "sk-1"
