"""Who may ask: the key, and the name by which the server was called."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from distilvl.serving.faults import Fault
from distilvl.serving.settings import ServeSettings

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
