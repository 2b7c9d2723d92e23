"""What goes wrong with a request, in the shape that OpenAI's clients understand."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
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
