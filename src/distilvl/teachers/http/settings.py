"""What the spec of a teacher behind an API says, and what its requests will cost."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from urllib.parse import urlsplit

from distilvl.errors import DistilvlError
from distilvl.io.specs import COUNT, Reader, choice, number, parse_spec, word
from distilvl.teachers.http.dialects import DIALECTS, Dialect, Modality

_ADDRESS = re.compile(r"([a-z0-9]+)\+(https?://[^?#]+)")
_FORM = "Write DIALECT+https://host/v1?model=NAME&dim=D with a dialect of " + ", ".join(DIALECTS) + "."
_ABOVE_ZERO = sys.float_info.min
_SECRETS = ("key", "api_key", "apikey", "token", "secret", "password")


@dataclass(frozen=True, kw_only=True)
class HttpSettings:
    """A checked spec. It never holds the key, only the name of the environment variable."""

    dialect: Dialect
    url: str  # the API's address, without a slash at the end
    model: str  # its name, as the API knows it
    dim: int  # D, the embedding dimension
    shorten: bool = False  # request embeddings of `dim` numbers, of models that can shorten theirs
    revision: str = "as-served"  # what tells this version of the model from another one
    batch: int | None = None  # items a request, at most; the dialect's own limit if not given
    concurrency: int = 8  # requests at a time
    rpm: float | None = None  # requests a minute, at most; no limit if not given
    timeout: float = 60.0  # seconds of silence after which a request is given up
    retries: int = 8  # how often a request is tried again
    backoff: float = 1.0  # seconds before the first retry; doubles each time, at most a minute
    price: float | None = None  # of a million text tokens, in any currency; from the provider's list
    image_price: float | None = None  # of a million images
    key_env: str | None = None  # environment variable that holds the key
    image_format: str = "png"  # how images are sent: `png` (exact) or `jpeg` (smaller; quality 95)
    max_side: int | None = None  # images are reduced to this many pixels on their longer side first

    @classmethod
    def from_spec(cls, spec: str) -> HttpSettings:
        """Read `spec`; `DistilvlError` for what is unknown, wrong or missing, or a key in the spec itself."""
        parsed = parse_spec(spec, noun="teacher")
        match = _ADDRESS.fullmatch(parsed.place)
        if match is None or match[1] not in DIALECTS:
            start = spec.partition("?")[0].rpartition("@")[2]
            raise DistilvlError(f"the teacher {start!r} is not an address that is understood.", _FORM)
        address = urlsplit(match[2])
        if address.username is not None or address.password is not None:
            raise DistilvlError("the teacher's address holds a password.", _NO_SECRETS)
        for name in parsed.options:
            if name.lower() in _SECRETS:
                raise DistilvlError(f"the teacher's spec holds {name!r}.", _NO_SECRETS)
        values = parsed.read(_OPTIONS, _FORM)
        for name in ("model", "dim"):
            if name not in values:
                raise DistilvlError(f"the teacher at {match[2]} lacks {name}=.", _FORM)
        return cls(dialect=DIALECTS[match[1]], url=match[2].rstrip("/"), **values)

    def key(self) -> str | None:
        """The key, read from the environment now; `DistilvlError` if a variable that the spec names is not set."""
        name = self.key_env or self.dialect.key_env
        value = os.environ.get(name, "").strip()
        if not value:
            if self.key_env is not None:
                raise DistilvlError(f"the environment variable {name} is not set.", "Put the API's key into it.")
            return None
        # A header takes nothing else, and the HTTP library's own complaint would print the key.
        if not (value.isascii() and value.isprintable()):
            raise DistilvlError(f"the key in {name} holds characters that no key has.", "Set the variable again.")
        return value

    def most(self, modality: Modality) -> int:
        """Items a request."""
        most = self.dialect.request(modality).most
        return min(self.batch or most, most)

    @property
    def preprocessing(self) -> str:
        """What is done to an item before it is sent, and what decides its embedding: for the manifest."""
        side = f", at most {self.max_side} pixels a side" if self.max_side else ""
        short = f"; rows shortened to {self.dim}" if self.shorten else ""
        return f"images as {self.image_format.upper()}{side}, by the {self.dialect.name} API{short}"


_NO_SECRETS = "Keys are read from the environment only; key_env=NAME names the variable."
_YES_NO = choice("yes", "no")
_OPTIONS = {
    "model": word("a name"),
    "dim": COUNT,
    "shorten": Reader(lambda text: _YES_NO.read(text) == "yes", _YES_NO.wanted),
    "revision": word("a name"),
    "batch": COUNT,
    "concurrency": COUNT,
    "rpm": number("a positive number", _ABOVE_ZERO),
    "timeout": number("a positive number of seconds", _ABOVE_ZERO),
    "retries": number("a whole number", whole=True),
    "backoff": number("a number of seconds"),
    "price": number("a number"),
    "image_price": number("a number"),
    "key_env": word("the name of an environment variable"),
    "image_format": choice("png", "jpeg"),
    "max_side": COUNT,
}
assert set(_OPTIONS) == {entry.name for entry in fields(HttpSettings)} - {"dialect", "url"}
CHARACTERS_A_TOKEN = 4  # of English text in the tokenizers of today's embedding models


def estimate_line(settings: HttpSettings, images: int, texts: Sequence[str]) -> str:
    """Requests, time and price of encoding `images` images and `texts`: one line; prices are the user's, never ours."""
    tokens = math.ceil(sum(map(len, texts)) / CHARACTERS_A_TOKEN)
    requests = math.ceil(images / settings.most("image")) + math.ceil(len(texts) / settings.most("text"))
    what = f"{images:,} images and {len(texts):,} captions (about {tokens:,} tokens)"
    head = f"{settings.model} at {settings.url}: {requests:,} requests for {what}"
    return f"{head}; {_time(settings, requests)}; {_price(settings, images, tokens)}"


def _time(settings: HttpSettings, requests: int) -> str:
    if settings.rpm is not None:
        return f"at least {_duration(60 * requests / settings.rpm)} at {settings.rpm:g} requests a minute"
    seconds = requests / settings.concurrency
    return f"about {_duration(seconds)} if a request takes one second, {settings.concurrency} at a time"


def _price(settings: HttpSettings, images: int, tokens: int) -> str:
    parts = (("price=", settings.price, tokens), ("image_price=", settings.image_price, images))
    lacking = [option for option, price, amount in parts if price is None and amount]
    if lacking:
        return f"price not known without {' and '.join(lacking)} (for a million tokens, and images)"
    return f"price about {sum((price or 0.0) * amount / 1e6 for _, price, amount in parts):,.4f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
