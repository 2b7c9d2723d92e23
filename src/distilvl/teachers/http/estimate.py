"""What a run will take, said before its first request."""

from __future__ import annotations

import math
from collections.abc import Sequence

from distilvl.teachers.http.settings import HttpSettings

# English text in the tokenizers of today's embedding models.
CHARACTERS_A_TOKEN = 4


def estimate_line(settings: HttpSettings, images: int, texts: Sequence[str]) -> str:
    """Requests, time and price of asking for `images` images and for `texts`: one line.

    Prices are the user's, never ours. The time is the least that `rpm` allows; without `rpm`, that of one second a
    request, which the line says.
    """
    tokens = math.ceil(sum(map(len, texts)) / CHARACTERS_A_TOKEN)
    requests = _requests(settings, "image", images) + _requests(settings, "text", len(texts))
    what = f"{images:,} images and {len(texts):,} captions (about {tokens:,} tokens)"
    head = f"{settings.model} at {settings.url}: {requests:,} requests for {what}"
    return f"{head}; {_time(settings, requests)}; {_price(settings, images, tokens)}"


def _requests(settings: HttpSettings, modality: str, items: int) -> int:
    most = (settings.dialect.image if modality == "image" else settings.dialect.text).most
    return math.ceil(items / min(settings.batch or most, most))


def _time(settings: HttpSettings, requests: int) -> str:
    if settings.rpm is not None:
        return f"at least {_duration(60 * requests / settings.rpm)} at {settings.rpm:g} requests a minute"
    seconds = requests / settings.concurrency
    return f"about {_duration(seconds)} if a request takes one second, {settings.concurrency} at a time"


def _price(settings: HttpSettings, images: int, tokens: int) -> str:
    lacking = []
    total = 0.0
    for option, price, amount in (("price", settings.price, tokens), ("image_price", settings.image_price, images)):
        if price is None:
            lacking += [f"{option}="] if amount else []
        else:
            total += price * amount / 1e6
    if lacking:
        return f"price not known without {' and '.join(lacking)} (for a million tokens, and images)"
    return f"price about {total:,.4f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
