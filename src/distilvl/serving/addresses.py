"""Who may use the server, and what may be sent to an address: host, key, methods, parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from fastapi import Response
from starlette.datastructures import Headers
from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from distilvl.serving.errors import Fault, unknown
from distilvl.serving.limits import ServeSettings

PAGE = "/page"
_WITHOUT_KEY = ("/", "/healthz")


class Access:
    """ASGI middleware; a request that may not be is refused before its body is read.

    Without a key everyone gets the page itself, which holds nothing and asks for the key, and `/healthz`.

    Args:
        app: what answers.
        settings: key and names.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            self._check_name(headers)
            path = scope["path"]
            if path not in _WITHOUT_KEY and not path.startswith(f"{PAGE}/"):
                self._check_key(headers)
        await self._app(scope, receive, send)

    def _check_name(self, headers: Headers) -> None:
        allowed = self._settings.hosts
        if allowed is not None and _hostname(headers.get("host", "")) not in allowed:
            message = "This server answers by a name of this machine only. Give it a key to call it by another name."
            raise Fault(403, message, code="wrong_host")

    def _check_key(self, headers: Headers) -> None:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        sent = key.strip() if scheme.lower() == "bearer" else ""
        # Header values are Latin-1, and any byte may come.
        if not self._settings.accepts(sent.encode("latin-1")):
            message = "A key is needed: Authorization: Bearer KEY." if not sent else "The key is not the right one."
            raise Fault(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


_MOST_PARAMETERS = 100
_METHODS = ("GET", "POST")
_MOST_REMEMBERED = 1000  # addresses; to ask all routes takes as long as to answer


class PageFiles(StaticFiles):
    """Files, which are there or not there before their parameters are looked at; they take none."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file."""
        found = await super().get_response(path, scope)
        if scope["query_string"]:
            raise unknown("parameter", dict(_parameters(scope["query_string"])) or [""], ())
        return found


class Addresses:
    """ASGI middleware: HEAD is GET without a body, OPTIONS tells the methods, and no parameter is passed over.

    Args:
        app: what answers.
        queries: parameters that GET takes, by path; all other addresses take none.
        bodies: fields of the body that POST takes, by path, for the advice to send them there.
    """

    def __init__(
        self, app: ASGIApp, queries: Mapping[str, Collection[str]], bodies: Mapping[str, Collection[str]]
    ) -> None:
        self._app, self._queries, self._bodies = app, queries, bodies
        self._methods: dict[str, list[str]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        # What is at no address goes on, to be not found or sent to the address without its last slash.
        if methods := self._methods_of(scope):
            allowed = {"Allow": ", ".join(methods)}
            if method == "OPTIONS":
                await Response(status_code=204, headers=allowed)(scope, receive, send)
                return
            if method not in methods:
                message = f"{method[:20]} is no method of this address; it has {', '.join(methods)}."
                raise Fault(405, message, code="method_not_allowed", headers=allowed)
            if not scope["path"].startswith(f"{PAGE}/"):
                self._check_query(scope["path"], method, scope["query_string"])
        if method == "HEAD":
            await _without_body(self._app, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _methods_of(self, scope: Scope) -> list[str]:
        path = scope["path"]
        methods = self._methods.get(path)
        if methods is None:
            methods = _methods(scope)
            if methods and len(self._methods) < _MOST_REMEMBERED:
                self._methods[path] = methods
        return methods

    def _check_query(self, path: str, method: str, query: bytes) -> None:
        if not query:
            return
        known = () if method == "POST" else self._queries.get(path, ())
        names = [name for name, _ in _parameters(query)]
        if strange := dict.fromkeys(name for name in names if name not in known):
            in_body = self._bodies.get(path, ())
            advice = "Send it in the JSON body of POST." if next(iter(strange)) in in_body else ""
            raise unknown("parameter", strange, known, advice=advice)
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise Fault(422, f"{twice} is given twice. Give it once.", code="repeated_parameter", param=twice)


def _methods(scope: Scope) -> list[str]:
    """The methods of an address, in alphabetical order; none where there is nothing."""
    routes = scope["app"].router.routes
    found = {
        method
        for route in routes
        for method in (_METHODS[:1] if isinstance(route, Mount) else _METHODS)
        if route.matches({**scope, "method": method})[0] is Match.FULL
    }
    if not found:
        return []
    return sorted(found | {"OPTIONS"} | ({"HEAD"} if "GET" in found else set()))


def _parameters(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS
        )
    except UnicodeError as error:
        raise Fault(422, "The query is not UTF-8, percent-encoded.", code="invalid_query", param="query") from error
    except ValueError as error:
        message = f"The query has more than {_MOST_PARAMETERS} parameters."
        raise Fault(422, message, code="invalid_query", param="query") from error


async def _without_body(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as to GET, all headers included, and leave the body out."""
    as_get: dict[str, Any] = {**scope, "method": "GET"}

    async def send_head(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    try:
        await app(as_get, receive, send_head)
    finally:
        if "route" in as_get:
            scope["route"] = as_get["route"]  # by which requests are counted
