"""Errors as answers: the one place that knows each surface's shape of them."""

import random
import re
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.types import Scope

from app.errors import Draining, Internal, InvalidRequest, Misdirected, SluiceError
from app.events import Failed
from app.observability.figures import figures
from app.observability.metrics import REFUSED
from app.scope import note, request_id
from app.streams.sse import openai_error, sse
from app.streams.sse_anthropic import anthropic_error

log = structlog.get_logger(__name__)

_WHOLE_PATH = re.compile(r"{[^}]+:path}")
_PARAMETER = re.compile(r"{[^}]+}")
_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "limit_exceeded",
    415: "unsupported_media_type",
}


def error_body(failed: Failed, scope: Scope, details: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The error as JSON, in the shape of the surface that `scope` asks."""
    if _speaks_anthropic(scope):
        return {"type": "error", "error": anthropic_error(failed), "request_id": request_id(scope)}
    if scope["path"].startswith("/v1/"):
        error = openai_error(failed)
        error["param"] = (details[0]["field"] or None) if details else None
        return {"error": error | {"request_id": request_id(scope)}}
    error = {
        "code": failed.code,
        "message": failed.message,
        "retryable": failed.retryable,
        "request_id": request_id(scope),
    }
    return {"error": error | ({"details": details} if details else {})}


def _speaks_anthropic(scope: Scope) -> bool:
    """/v1/models is there for both SDKs; only Anthropic's names a version."""
    path = scope["path"]
    if path.startswith("/v1/messages"):
        return True
    return path.startswith("/v1/") and any(name == b"anthropic-version" for name, _ in scope["headers"])


def install(app: FastAPI) -> None:
    """Answer every exception that reaches the routes' edge."""
    app.add_exception_handler(SluiceError, _sluice_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)


def internal_error(scope: Scope) -> Response:
    """The answer to a defect of ours."""
    return _answer(Internal("The server failed.").as_event(), scope)


def unknown_host(scope: Scope) -> Response:
    """The answer to a request for a name that is not ours."""
    return _answer(Misdirected("This server is not for that host.").as_event(), scope)


def draining(scope: Scope) -> Response:
    """The answer to new work where everything stops."""
    answer = _answer(Draining("The server is shutting down.", retry_after_seconds=1).as_event(), scope)
    answer.headers["Connection"] = "close"
    return answer


def _answer(failed: Failed, scope: Scope, details: list[dict[str, Any]] | None = None) -> Response:
    note(scope)["outcome"] = failed.code
    figures.add(REFUSED, 1, failed.code)
    if failed.status == 503 and _is_event_source(scope):
        return _ask_again(failed)
    headers = {} if failed.retry_after_seconds is None else {"Retry-After": str(failed.retry_after_seconds)}
    return JSONResponse(error_body(failed, scope, details), failed.status, headers)


def _is_event_source(scope: Scope) -> bool:
    """Whether a browser's `EventSource` asks, as far as its request tells."""
    return scope["method"] == "GET" and (b"accept", b"text/event-stream") in scope["headers"]


def _ask_again(failed: Failed) -> Response:
    """An `EventSource` gives up on any status but 200, and asks again behind any stream that ends."""
    retry_ms = random.randint(1000, 3000)  # noqa: S311
    body = b"retry: %d\n" % retry_ms + sse("reconnect", {"reason": failed.code, "retry_ms": retry_ms})
    return Response(body, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _sluice_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SluiceError)
    return _answer(error.as_event(), request.scope)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    details = [_detail(item) for item in error.errors()[:20]]
    first = details[0]
    message = f"{first['field']}: {first['message']}" if first["field"] else str(first["message"])
    # OpenAI's API says 400 to what FastAPI's say 422 to; the SDK has an exception for each.
    status = 400 if request.url.path.startswith("/v1/") else 422
    return _answer(Failed(InvalidRequest.code, message, status, retryable=False), request.scope, details)


def _detail(item: dict[str, Any]) -> dict[str, Any]:
    if isinstance(item["loc"][-1], int) and item["type"] == "json_invalid":  # a place in the text is no field
        return {"field": "", "message": f"not JSON, from character {item['loc'][-1]} on"}
    return {"field": _field(item["loc"]), "message": item["msg"]}


def _field(location: tuple[int | str, ...]) -> str:
    """`messages.0.role` for ("body", "messages", 0, "role")."""
    return ".".join(str(part) for part in location[1:])


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "invalid_request" if error.status_code < 500 else "internal_error")
    failed = Failed(code, str(error.detail), error.status_code, error.status_code >= 500)
    answer = _answer(failed, request.scope)
    answer.headers.update(error.headers or {})
    if error.status_code == 405:
        answer.headers["Allow"] = ", ".join(sorted(_allowed(request)))
    return answer


def _allowed(request: Request) -> set[str]:
    """Every method of the path: Starlette names those of one of its routes."""
    methods: set[str] = set()
    for context in iter_route_contexts(request.app.routes):
        route = context.original_route
        pattern = _PARAMETER.sub("[^/]+", _WHOLE_PATH.sub(".+", str(context.path)))
        if isinstance(route, APIRoute) and re.fullmatch(pattern, request.url.path):
            methods |= route.methods or set()
    return methods
