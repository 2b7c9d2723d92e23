"""What goes wrong with a request, in the shape that OpenAI's clients understand; unknown fields are refused by name."""

from __future__ import annotations

import difflib
import functools
import json
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, model_validator
from starlette.exceptions import HTTPException

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}


class Fault(HTTPException):
    """A request that is refused.

    Args:
        status: HTTP status, 400 or above.
        message: what is wrong and what to do, without any of the request's content.
        code: a word for programs.
        param: the field of the body that it is about.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.code, self.param = code, param

    def response(self) -> JSONResponse:
        """`{"error": {"message", "type", "param", "code"}}`."""
        kind = _TYPES.get(self.status_code, "server_error" if self.status_code >= 500 else "invalid_request_error")
        error = {"message": self.detail, "type": kind, "param": self.param, "code": self.code}
        return JSONResponse({"error": error}, self.status_code, self.headers)


def internal() -> Fault:
    """Our own mistake; what happened is in the log only."""
    return Fault(500, "The server failed at this request; its log says why.", code="internal_error")


async def http_fault(request: Request, error: Exception) -> JSONResponse:
    """Handler of `HTTPException`: ours, or the framework's (no such path)."""
    if isinstance(error, Fault):
        return error.response()
    assert isinstance(error, HTTPException)
    message = f"{error.detail}: {request.method} {request.url.path[:100]}"
    return Fault(error.status_code, message, headers=error.headers).response()


async def validation_fault(request: Request, error: Exception) -> JSONResponse:
    """Handler of a body or query that does not fit: 400 when it is not JSON, 422 when a field is wrong."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return Fault(400, "The body is not JSON.", code="invalid_json").response()
    where = [str(part) for part in first["loc"] if part not in ("body", "query")]
    param = ".".join(where) or None
    if param is None:
        return _no_object(request.headers.get("content-type", "")).response()
    return Fault(422, f"{param}: {first['msg']}.", code="invalid_value", param=param).response()


def _no_object(kind: str) -> Fault:
    message = "The body is not a JSON object sent as application/json."
    if kind.lower().startswith(("multipart/", "image/", "application/octet-stream", "application/x-www-form")):
        message += " Forms and files are not read: send a picture as data:image/TYPE;base64,... in a field of it."
    return Fault(422, message, code="invalid_body")


_SHOWN = 3
_LONGEST_NAME = 60


def unknown(what: str, names: Collection[str], known: Collection[str], param: str = "", advice: str = "") -> Fault:
    """The refusal of `names`, of which there is at least one.

    Args:
        what: `field` or `parameter`.
        names: those that are not known.
        known: those that are, in the order in which they are listed.
        param: where they stand; empty for the top.
        advice: what to do, if it is more than to correct the name.
    """
    first = next(iter(names))
    near = difflib.get_close_matches(first.lower(), known, n=1)
    shown = ", ".join(repr(_cut(name)) for name in list(names)[:_SHOWN])
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    where = f" in {param}" if param else ""
    hint = advice or (f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known) or 'none'}.")
    message = f"unknown {what}{'s' if len(names) > 1 else ''} {shown}{more}{where}. {hint}"
    at = _cut(first).encode("utf-8", "replace").decode("utf-8")
    return Fault(422, message, code=f"unknown_{what}", param=f"{param}.{at}" if param else at)


def require_known(values: Mapping[str, Any], known: Collection[str], param: str = "") -> None:
    """`Fault` if an object of a request has a field that is not among `known`."""
    if names := [name for name in values if name not in known]:
        raise unknown("field", names, known, param)


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."


class Fields(BaseModel):
    """An object of a request; a field that it does not have is a `Fault` that names it."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _require_known(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            require_known(values, known_names(cls))
        return values


@functools.cache
def known_names(kind: type[BaseModel]) -> tuple[str, ...]:
    """What the fields of `kind` are called in a request."""
    names: list[str] = []
    for name, field in kind.model_fields.items():
        alias = field.validation_alias
        choices = getattr(alias, "choices", None) or ([alias] if alias is not None else [name])
        names += [str(choice) for choice in choices]
    return tuple(names)


class ExactRoute(APIRoute):
    """A route that refuses an object with a field given twice, of which most parsers would take the last."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As FastAPI asks for it."""
        handle = super().get_route_handler()

        async def exactly(request: Request) -> Response:
            return await handle(_ExactRequest(request.scope, request.receive))

        return exactly


class _ExactRequest(Request):
    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = json.loads(await self.body(), object_pairs_hook=_once)
        return self._json


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0][:60]
        readable = twice.encode("utf-8", "replace").decode("utf-8")
        raise Fault(422, f"{twice!r} is given twice. Give it once.", code="repeated_field", param=readable)
    return found
