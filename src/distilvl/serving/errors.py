"""Refused requests: errors in the shape that OpenAI's clients understand, and what the framework refuses in it too."""

import difflib
from collections.abc import Collection, Mapping

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Mount, Route

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
_SHOWN = 3
_LONGEST_NAME = 60


class RequestError(HTTPException):
    """A request that is refused, with an HTTP status of 400 or above.

    `message` says what is wrong and what to do, without any of the request's content; `code` is a word for programs;
    `param` the field of the body that it is about; `headers` are further ones of the response.
    """

    def __init__(
        self, status: int, message: str, *,
        code: str | None = None, param: str | None = None, headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(status, message, headers)
        self.code, self.param = code, param

    def response(self) -> JSONResponse:
        """`{"error": {"message", "type", "param", "code"}}`."""
        kind = _TYPES.get(self.status_code, "server_error" if self.status_code >= 500 else "invalid_request_error")
        error = {"message": self.detail, "type": kind, "param": self.param, "code": self.code}
        return JSONResponse({"error": error}, self.status_code, self.headers)


def wrong_field(param: str, wrong: str, code: str = "invalid_value", status: int = 422) -> RequestError:
    """The refusal of a field; its message is the field's name and what is `wrong`."""
    return RequestError(status, f"{param} {wrong}", code=code, param=param)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Handler of `HTTPException`: ours, or the framework's (no such path, no such method); answers OPTIONS too."""
    assert isinstance(error, HTTPException)
    if isinstance(error, RequestError):
        return error.response()
    if error.status_code != 405:
        message = f"{error.detail}: {request.method} {request.url.path[:100]}"
        return RequestError(error.status_code, message, headers=error.headers).response()
    found = {"OPTIONS"}  # and those of all routes of the address; the framework tells those of the first
    for route in request.app.routes:
        if isinstance(route, Route | Mount) and route.path_regex.match(request.scope["path"]):
            found |= (route.methods or set()) if isinstance(route, Route) else {"GET"}
    methods = ", ".join(sorted(found | ({"HEAD"} if "GET" in found else set())))
    if request.method == "OPTIONS":
        return Response(status_code=204, headers={"Allow": methods})
    message = f"{request.method[:20]} is no method of this address; it has {methods}."
    return RequestError(405, message, code="method_not_allowed", headers={"Allow": methods}).response()


async def on_validation_error(request: Request, error: Exception) -> Response:
    """Handler of a body or query that does not fit: 400 when it is not JSON, 422 when a field is wrong."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return RequestError(400, "The body is not JSON.", code="invalid_json").response()
    param = ".".join(str(part) for part in first["loc"] if part not in ("body", "query"))
    if param:
        return RequestError(422, f"{param}: {first['msg']}.", code="invalid_value", param=param).response()
    message = "The body is not a JSON object sent as application/json."
    kind = request.headers.get("content-type", "").lower()
    if kind.startswith(("multipart/", "image/", "application/octet-stream", "application/x-www-form")):
        message += " Forms and files are not read: send a picture as data:image/TYPE;base64,... in a field of it."
    return RequestError(422, message, code="invalid_body").response()


def unknown(
    what: str, names: Collection[str], known: Collection[str], param: str = "", advice: str = ""
) -> RequestError:
    """The refusal of at least one of `names`, which are not among the `known` ones.

    `what` is `field` or `parameter`; `param` the object that they are in, empty for the whole body or the query;
    `advice` what to do, if it is more than to correct the name.
    """
    first = next(iter(names))
    near = difflib.get_close_matches(first.lower(), known, n=1)
    shown = ", ".join(repr(_cut(name)) for name in list(names)[:_SHOWN])
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    where = f" in {param}" if param else ""
    hint = advice or (f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known) or 'none'}.")
    message = f"unknown {what}{'s' if len(names) > 1 else ''} {shown}{more}{where}. {hint}"
    at = _cut(first).encode("utf-8", "replace").decode("utf-8")
    return RequestError(422, message, code=f"unknown_{what}", param=f"{param}.{at}" if param else at)


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
