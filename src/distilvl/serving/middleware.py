"""The middleware: who may send requests, bodies within limits, headers of every response, counts; and how it counts."""

import asyncio
import contextlib
import hmac
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from distilvl.serving.errors import RequestError
from distilvl.serving.requests import check_shape
from distilvl.serving.settings import ServeSettings

logger = logging.getLogger("distilvl")
T = TypeVar("T")

# Nothing from elsewhere, nothing inline; pictures that the page has fetched or was given are blobs.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
# A client in the midst of sending reads our response only if the connection is not torn down under it.
_LINGER_S, _LINGER_BYTES = 1.0, 2**26
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PAGE = "/page"
_ASIDE = ThreadPoolExecutor(1, thread_name_prefix="aside")
_FEW_BYTES = 1 << 16  # are worked through in less time than the way to a thread takes
_WITHOUT_KEY = ("/", "/healthz")
# So many of the largest bodies are held at a time, of all requests.
_BODIES_HELD = 16


async def off_the_loop(size: int, work: Callable[..., T], *args: Any) -> T:
    """`work` on so many bytes of a request: of many in a thread, while the event loop answers other clients.

    One at a time: they share Python's lock with the loop and with the model's thread.
    """
    return work(*args) if size <= _FEW_BYTES else await asyncio.get_running_loop().run_in_executor(_ASIDE, work, *args)


class Metrics:
    """Counters of one server for Prometheus, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        labels = ("route", "method", "status")
        self.requests = Counter("distilvl_requests", "Requests answered.", labels, registry=self.registry)
        self.seconds = Histogram("distilvl_request_seconds", "From header to end of response.", ("route",),
                                 registry=self.registry, buckets=_SECONDS)  # fmt: skip
        self.batch_items = Histogram("distilvl_batch_items", "Items a batch of the model.", ("modality",),
                                     registry=self.registry, buckets=_ITEMS)  # fmt: skip
        self.batch_seconds = Histogram("distilvl_batch_seconds", "Seconds a batch of the model.", ("modality",),
                                       registry=self.registry, buckets=_SECONDS)  # fmt: skip
        self.waiting = Gauge("distilvl_items_waiting", "Items waiting or being encoded.", registry=self.registry)


class ConcurrencyLimit:
    """Counts what all requests hold at once, and turns away what exceeds a limit; for use in the event loop only.

    `what` names it in the message; `observe` is told of the total each time it changes.
    """

    def __init__(self, what: str, limit: int, observe: Callable[[int], None] = lambda _: None) -> None:
        self._what, self._limit, self._observe, self._held = what, limit, observe, 0
        self._of: dict[str, int] = {}  # what each client holds

    @contextlib.contextmanager
    def hold(self, client: str | None = None) -> Iterator[Callable[[int], None]]:
        """A function that adds to what is held, or raises 503 with Retry-After; at the end all of it is given back.

        A `client` that holds something by another request already gets three quarters of the limit at most.
        """
        own = 0

        def add(amount: int) -> None:
            nonlocal own
            others = 0 if client is None else self._of.get(client, 0) - own
            if self._held + amount > self._limit or (others and others + own + amount > 0.75 * self._limit):
                message = f"The server is busy: too many {self._what} are waiting. Try again in a moment."
                raise RequestError(503, message, code="overloaded", headers={"Retry-After": "1"})
            own += amount
            self._held += amount
            if client is not None:
                self._of[client] = others + own
            self._observe(self._held)

        try:
            yield add
        finally:
            self._held -= own
            if client is not None and (left := self._of.pop(client, own) - own) > 0:
                self._of[client] = left
            self._observe(self._held)


class ResponseMiddleware:
    """ASGI middleware, the outermost: headers of every response, errors as JSON, HEAD as GET, the count of requests."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, exchange = time.perf_counter(), _Exchange(scope, receive, send)
        # The server itself leaves out the body of a response to HEAD.
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        try:
            await self._app(inner, exchange.receive, exchange.send)
        except RequestError as error:
            await exchange.refuse(error)
        except Exception:
            logger.exception("%s %s failed", scope["method"], _route(inner))
            if exchange.status:
                raise  # too late for another response: the server cuts the connection
            message = "The server failed at this request; its log says why."
            await exchange.refuse(RequestError(500, message, code="internal_error"))
        finally:
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other"
            self._metrics.requests.labels(_route(inner), method, str(exchange.status)).inc()
            self._metrics.seconds.labels(_route(inner)).observe(time.perf_counter() - start)


def _route(scope: Scope) -> str:
    """The route's pattern, not the path: a label for each path that anyone tries would never end."""
    return str(getattr(scope.get("route"), "path", "other"))


class _Exchange:
    """Both directions of one request: the status of its response, and whether its body has been read to the end."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        headers = Headers(scope=scope)
        self._unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        self.status = 0

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._unread = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers.update(_HEADERS)
            headers.setdefault("Cache-Control", "no-store")
            if self._unread:
                headers["Connection"] = "close"
        await self._send(message)

    async def refuse(self, error: RequestError) -> None:
        """Answer with `error`; of a body that is still coming in a second's worth, at most 64 MiB, is thrown away."""
        unread = self._unread

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body" and unread:
                await self.send({**message, "more_body": True})
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._discard(), _LINGER_S)
                message = {"type": "http.response.body", "body": b""}
            await self.send(message)

        await error.response()(self._scope, self.receive, send)

    async def _discard(self) -> None:
        taken = 0
        while self._unread and taken < _LINGER_BYTES:
            taken += len((await self.receive()).get("body", b""))


class AccessMiddleware:
    """ASGI middleware: a request without the key, or to another name, is refused before its body is read.

    Without a key everyone gets the page itself, which holds nothing and asks for the key, and `/healthz`.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._app, self._hosts = app, settings.hosts
        self._key = None if settings.api_key is None else settings.api_key.encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            headers, host = Headers(scope=scope), None
            if "transfer-encoding" in headers and "content-length" in headers:
                message = "Content-Length and Transfer-Encoding stand together, which proxies read in different ways."
                raise RequestError(400, message, code="invalid_http")
            with contextlib.suppress(ValueError):
                named = urlsplit(f"//{headers.get('host', '')}")
                host = None if "@" in named.netloc else named.hostname
            if self._hosts is not None and host not in self._hosts:
                only = "This server answers by a name of this machine only."
                raise RequestError(403, f"{only} Give it a key to call it by another name.", code="wrong_host")
            is_open = self._key is None or scope["path"] in _WITHOUT_KEY or scope["path"].startswith(f"{PAGE}/")
            scheme, _, key = headers.get("authorization", "").partition(" ")
            sent = key.strip() if scheme.lower() == "bearer" else ""
            # In time that does not depend on where it differs. Header values are Latin-1, and any byte may come.
            if not is_open and not hmac.compare_digest(sent.encode("latin-1"), self._key or b""):
                message = "A key is needed: Authorization: Bearer KEY." if not sent else "The key is not the right one."
                raise RequestError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        await self._app(scope, receive, send)


class BodyMiddleware:
    """ASGI middleware: 413 as soon as a body is known to be too large, declared or not; 408 when it does not come.

    A body of very many values is refused before it is parsed, with 422, and so is any body of GET or HEAD.
    The application gets the body in one message.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._app, self._limit, self._seconds = app, int(settings.max_upload_mb * 1_000_000), settings.read_timeout
        self._uploads = ConcurrencyLimit("uploads", _BODIES_HELD * self._limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # The HTTP parser has checked that it is a number. A chunked body declares nothing.
        if int(Headers(scope=scope).get("content-length", "0")) > self._limit:
            raise self._too_large()
        with self._uploads.hold(str((scope.get("client") or ("",))[0])) as add:
            try:
                body = await asyncio.wait_for(self._collect(receive, add), self._seconds)
            except TimeoutError as error:
                message = f"The body did not arrive within {self._seconds:g} s."
                raise RequestError(408, message, code="slow_request") from error
            if body is None:
                return
            if body and scope["method"] == "GET":
                message = "GET and HEAD take no body: send it with POST, or what it says as parameters of the address."
                raise RequestError(422, message, code="unexpected_body", param="body")
            await off_the_loop(len(body), check_shape, body)
            scope["body_bytes"] = len(body)
            first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

            async def replay() -> Message:
                return first.pop() if first else await receive()

            await self._app(scope, replay, send)

    async def _collect(self, receive: Receive, add: Callable[[int], None]) -> bytes | None:
        """The body; None when the client has left."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            piece = message.get("body", b"")
            if len(body) + len(piece) > self._limit:
                raise self._too_large()
            add(len(piece))
            body += piece
            if not message.get("more_body", False):
                return bytes(body)

    def _too_large(self) -> RequestError:
        return RequestError(413, f"The body is larger than {self._limit:,} bytes.", code="too_large")
